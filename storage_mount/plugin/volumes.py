"""The volumes of runtime pods on this node: a tiny file system each, in which drives appear and disappear.

Nothing is remembered here: a volume is found in mountinfo by its source (the driver's name) and its place below kubelet's folder,
which holds the pod's uid; a drive in it by the folder it shows. So a plugin that was killed at any moment goes on where it was.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from storage_mount.plugin import binds, mountinfo, system
from storage_mount.plugin.mountinfo import Mount
from storage_mount.plugin.reconcile import DRIVE_ID, Bind, Bound, Drive, Unbind, Volume, steps

log = logging.getLogger(__name__)

DRIVES = "drive"  # the drives' folder below the drive root
OWNER = 1000
OPTIONS = "size=64k,nr_inodes=64,mode=0755"
POD_NAMESPACE, POD_UID = "csi.storage.k8s.io/pod.namespace", "csi.storage.k8s.io/pod.uid"
EPHEMERAL = "csi.storage.k8s.io/ephemeral"
_PLACE = re.compile(
    r"/pods/(?P<uid>[A-Za-z0-9-]{1,64})/volumes/kubernetes\.io~csi/[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/mount"
)
_FOLDER = re.compile(rf"(?:.*/)?{DRIVES}/(?P<id>[^/]+)")


class Refused(Exception):
    """A request that is not one of kubelet's for a runtime of ours."""


@dataclass(frozen=True)
class Layout:
    """Where things lie on this node. `namespace`: the one whose pods get drives; `owner`: whose all files on the volume are."""

    driver: str
    kubelet_root: Path
    drive_root: Path
    namespace: str
    owner: int = OWNER


class Volumes:
    """The volumes on this node. Kubelet calls from many threads; `apply` is called from one."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._turn = threading.Lock()

    def publish(self, target: str, context: Mapping[str, str]) -> None:
        """Make the pod's volume at `target`, empty. Once it is there, nothing changes. Raise Refused, OSError."""
        uid = self._pod_of(target)
        if context.get(POD_NAMESPACE) != self._layout.namespace:
            raise Refused(f"Drives are only for pods in the namespace {self._layout.namespace}.")
        if context.get(POD_UID) != uid or context.get(EPHEMERAL) != "true":
            raise Refused("Drives are only for inline volumes, at the place of their own pod.")
        with self._turn:
            place = Path(target)
            place.mkdir(mode=0o750, exist_ok=True)  # kubelet made the folder above
            if not self._there(target):
                system.mount_tmpfs(self._layout.driver, target, OPTIONS)
            system.make_shared(target)
        log.info("volume of pod %s made", uid)

    def unpublish(self, target: str) -> None:
        """Take the volume and all drives in it away, leaving nothing. Nothing there is no error. Raise Refused, OSError."""
        uid = self._pod_of(target)
        with self._turn:
            binds.unbind(Path(target))
        log.info("volume of pod %s taken away", uid)

    def apply(self, wanted: Mapping[str, Iterable[Drive]]) -> bool:
        """Let every volume show the drives its pod may see, by pod uid; return whether all of it could be done."""
        done = True
        for step in steps(wanted, self.find()):
            try:
                self._take(step)
            except OSError as error:
                done = False
                log.warning("pod %s: %s: %s", step.volume.pod, _describe(step), error)
        with self._turn:
            for volume in self.find():
                _tidy(Path(volume.place))
        return done

    def find(self) -> list[Volume]:
        """Return the volumes there are, with what is bound in them."""
        seen = binds.mounts()
        found = []
        for place in dict.fromkeys(mount.point for mount in seen if self._is_volume(mount)):
            inside = [mount for mount in mountinfo.below(seen, place) if mount.point != place]
            bound = tuple(_bound(mount, place) for mount in inside)
            found.append(Volume(self._pod_of(place), place, bound))
        return found

    def _take(self, step: Bind | Unbind) -> None:
        place = Path(step.volume.place)
        if isinstance(step, Unbind):
            with self._turn:
                binds.unbind(place / step.name)
        else:
            drive = step.drive
            # A file system that hangs keeps nobody's volume from being taken away.
            folder, owner = f"{DRIVES}/{drive.id}", self._layout.owner
            with binds.source(self._layout.drive_root, folder, owner=owner) as opened, self._turn:
                if not self._there(step.volume.place):
                    return  # it was taken away meanwhile
                binds.attach(opened, place / drive.name, readonly=drive.readonly)
        log.info("pod %s: %s: done", step.volume.pod, _describe(step))

    def _there(self, target: str) -> bool:
        return any(self._is_volume(mount) for mount in binds.mounts() if mount.point == target)

    def _is_volume(self, mount: Mount) -> bool:
        ours = mount.kind == "tmpfs" and mount.source == self._layout.driver and mount.root == "/"
        return ours and self._match(mount.point) is not None

    def _pod_of(self, target: str) -> str:
        """Return the uid of the pod whose volume lies at `target`. Raise Refused."""
        found = self._match(target)
        if found is None:
            raise Refused("This is not the place of a pod's inline volume.")
        return found["uid"]

    def _match(self, target: str) -> re.Match[str] | None:
        root = str(self._layout.kubelet_root)
        return _PLACE.fullmatch(target.removeprefix(root)) if target.startswith(f"{root}/") else None


def _bound(mount: Mount, place: str) -> Bound:
    folder = _FOLDER.fullmatch(mount.root)
    drive = folder["id"] if folder is not None and DRIVE_ID.fullmatch(folder["id"]) else None
    return Bound(mount.point.removeprefix(f"{place}/"), drive, mount.readonly)


def _describe(step: Bind | Unbind) -> str:
    if isinstance(step, Unbind):
        return f"take {step.name} away"
    how = "read-only" if step.drive.readonly else "writable"
    return f"bind drive {step.drive.id} at {step.drive.name}, {how}"


def _tidy(place: Path) -> None:
    """Remove the empty folders on which nothing is mounted: what a killed plugin left. A mount does not let itself be removed."""
    for entry in place.iterdir():
        with contextlib.suppress(OSError):
            entry.rmdir()
