"""Keeps every volume as the pods' annotations say: at once after a change, and again until it has worked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from storage_mount.plugin.reconcile import Drive, parse_drives
from storage_mount.plugin.volumes import Volumes

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.25, 15.0


class Attendant:
    """Applies what is known of the pods. Before the pods were heard of once, nothing that is bound is taken away."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._wanted: Mapping[str, tuple[Drive, ...]] | None = None
        self._changed = threading.Event()

    def heard(self, annotations: Mapping[str, str]) -> None:
        """Take over what all pods of this node ask for, by uid."""
        wanted = {}
        for uid, annotation in annotations.items():
            wanted[uid], problems = parse_drives(annotation)
            for problem in problems:
                log.warning("pod %s: %s", uid, problem)
        self._wanted = wanted
        self._changed.set()

    def wake(self) -> None:
        """Look again: a volume was made."""
        self._changed.set()

    def run(self) -> None:
        """Work until the process ends."""
        wait: float | None = None
        while True:
            self._changed.wait(wait)
            self._changed.clear()
            if self._wanted is None or self._volumes.apply(self._wanted):
                wait = None
            else:
                wait = FIRST_WAIT if wait is None else min(wait * 2, LONGEST_WAIT)
