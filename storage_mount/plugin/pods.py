"""The runtime pods of this node, as the cluster's API tells of them: listed, then watched, and never silently no more.

A watch lasts a minute, then everything is listed anew, so that an event that was missed is made good. A failure is never taken for
"there are no pods".
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import urllib3
from kubernetes.client.exceptions import ApiException

log = logging.getLogger(__name__)

DRIVES_ANNOTATION = "minicolab.dev/drives"
MANAGED_BY, INSTALLATION = "app.kubernetes.io/managed-by", "minicolab.dev/installation"
WATCH_SECONDS = 60
CONNECT_SECONDS, SILENCE_SECONDS = 5, 30
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
_GONE = 410


class Trouble(Exception):
    """The API can not be asked just now."""


class Api(Protocol):
    """What is asked of the cluster: pods of one namespace as JSON. Both raise Trouble."""

    def list(self) -> dict[str, Any]: ...

    def watch(self, version: str) -> Iterator[dict[str, Any]]:
        """Yield the events after a version until the watch ends."""
        ...


@dataclass
class Pods:
    """Follows the pods and tells `heard` of the annotations of all of them, by uid, whenever one changes."""

    api: Api
    heard: Callable[[Mapping[str, str]], None]
    sleep: Callable[[float], None] = time.sleep
    _annotations: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Follow for ever."""
        wait = FIRST_WAIT
        while True:
            try:
                self.follow_once()
                wait = FIRST_WAIT
            except Trouble as trouble:
                log.warning("the cluster's API can not be asked: %s; again in about %.1f s", trouble, wait)
                self.sleep(wait * (0.5 + random.random()))
                wait = min(wait * 2, LONGEST_WAIT)

    def follow_once(self) -> None:
        """List the pods and follow their changes until the watch ends. Raise Trouble."""
        listed = self.api.list()
        self._annotations = dict(map(_facts, listed.get("items") or ()))
        self.heard(dict(self._annotations))
        version = str(listed["metadata"]["resourceVersion"])
        for event in self.api.watch(version):
            if event.get("type") == "ERROR":
                code = event.get("object", {}).get("code")
                if code == _GONE:
                    return
                raise Trouble(f"the watch answered {code}")
            self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        if event.get("type") not in ("ADDED", "MODIFIED", "DELETED"):
            return
        before = dict(self._annotations)
        uid, text = _facts(event["object"])
        if event["type"] == "DELETED":
            self._annotations.pop(uid, None)
        else:
            self._annotations[uid] = text
        if before != self._annotations:
            self.heard(dict(self._annotations))


def _facts(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Return a pod's uid and what drives it asks for."""
    metadata = pod["metadata"]
    return str(metadata["uid"]), str((metadata.get("annotations") or {}).get(DRIVES_ANNOTATION, ""))


class KubernetesApi:
    """The real API: only pods of one installation, in one namespace, on one node."""

    def __init__(
        self, client: Any, *, namespace: str, node: str, installation: str, manager: str = "minicolab"
    ):
        self._client = client
        self._selection = {
            "namespace": namespace,
            "field_selector": f"spec.nodeName={node}",
            "label_selector": f"{MANAGED_BY}={manager},{INSTALLATION}={installation}",
        }

    def list(self) -> dict[str, Any]:
        with _troubled("the list"):
            response = self._client.list_namespaced_pod(**self._selection, **_patience(SILENCE_SECONDS))
            listed: dict[str, Any] = json.loads(response.data)
        if listed.get("kind") != "PodList":
            raise Trouble("the answer is no list of pods")
        return listed

    def watch(self, version: str) -> Iterator[dict[str, Any]]:
        with _troubled("the watch"):
            response = self._client.list_namespaced_pod(
                **self._selection,
                **_patience(WATCH_SECONDS + SILENCE_SECONDS),
                watch=True,
                resource_version=version,
                timeout_seconds=WATCH_SECONDS,
            )
            rest = b""
            try:
                for piece in response.stream(amt=None, decode_content=True):
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield json.loads(line)
            finally:
                response.close()


def _patience(silence: float) -> dict[str, Any]:
    return {"_preload_content": False, "_request_timeout": (CONNECT_SECONDS, silence)}


@contextlib.contextmanager
def _troubled(what: str) -> Iterator[None]:
    """Make one Trouble of everything that can go wrong between here and the API."""
    try:
        yield
    except ApiException as error:
        raise Trouble(f"{what}: {error.status} {error.reason}") from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise Trouble(f"{what}: {error}") from error
