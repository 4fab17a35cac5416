"""How the runtimes of an installation are made in a cluster, and how they are told from everything else in it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

NAME = "app.kubernetes.io/name"
MANAGED_BY = "app.kubernetes.io/managed-by"
INSTALLATION = "minicolab.dev/installation"
RUNTIME = "minicolab.dev/runtime"
USER = "minicolab.dev/user"  # as a label a hash, as an annotation the name itself
FILE = "minicolab.dev/file"
START = "minicolab.dev/start"
DRIVES = "minicolab.dev/drives"
SNAPSHOT = "minicolab.dev/snapshot-bytes"  # how much of /content is kept at the end
CLAIM_GATE = "minicolab.dev/claim"

RUNTIME_APP = "minicolab-runtime"
MANAGER = "minicolab"

Object = Mapping[str, Any]  # an object of the cluster, as its API writes it


@dataclass(frozen=True)
class PodFlavor:
    """How a pod gets an accelerator: so many of a node's resource, on such nodes."""

    resource: str
    count: int = 1
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Installation:
    """The settings all runtimes share.

    `cpu_share` and `memory_share` are the parts of a shape's limits that are reserved on the node; `disk_bytes` limits what a
    runtime may write; `extension_seconds` how much longer than its limit a life may become; `start_seconds` how long a start may take. `drive_claim`: the
    claim of the drive volume in `namespace`, for drives by sub-path.
    """

    namespace: str
    name: str
    image: str
    image_pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    service_account: str = "runtime"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    drives: Literal["csi", "subpath", "none"] = "csi"
    drive_claim: str = ""
    drive_driver: str = "drive.minicolab.dev"
    flavors: Mapping[str, PodFlavor] = field(default_factory=dict)
    cpu_share: float = 1.0
    memory_share: float = 1.0
    disk_bytes: int | None = None
    priority_class: str | None = None
    user_namespaces: bool = False
    extension_seconds: float = 0.0
    start_seconds: float = 600.0

    @property
    def selector(self) -> str:
        """The label selector of everything that is ours."""
        return f"{MANAGED_BY}={MANAGER},{INSTALLATION}={self.name}"


def user_hash(user: str) -> str:
    """Return a user's name as a label may hold it; no two users share one."""
    return hashlib.sha256(user.encode()).hexdigest()[:40]


def labels_of(installation: Installation, runtime_id: str, user: str) -> dict[str, str]:
    """Return what tells a runtime's objects from all others."""
    return {
        NAME: RUNTIME_APP,
        MANAGED_BY: MANAGER,
        INSTALLATION: installation.name,
        RUNTIME: runtime_id,
        USER: user_hash(user),
    }


def is_ours(found: Object, installation: Installation) -> bool:
    """Return whether an object belongs to this installation; only such objects are ever changed."""
    labels = found.get("metadata", {}).get("labels") or {}
    return bool(labels.get(MANAGED_BY) == MANAGER and labels.get(INSTALLATION) == installation.name)


def annotation(found: Object, name: str) -> str:
    """Return an annotation, nothing when there is none."""
    return str((found.get("metadata", {}).get("annotations") or {}).get(name, ""))
