"""The nodes of a cluster as its API writes them, as an inventory. Who reads the API hands the objects in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpu_scheduler.model import Node, Nodes

NOT_KNOWN = "The cluster's nodes are not known just now."

Read = Callable[[], Sequence[Mapping[str, Any]] | None]  # None: they can not be read


class KubeInventory:
    """Nodes out of a list that somebody keeps true."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def nodes(self) -> Nodes:
        found = self._read()
        return Nodes((), NOT_KNOWN) if found is None else Nodes(tuple(node_of(item) for item in found))


def node_of(found: Mapping[str, Any]) -> Node:
    """Return a node object as a node. One that is not ready, cordoned or going away takes no work."""
    metadata, spec, status = found["metadata"], found.get("spec", {}), found.get("status", {})
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()
    )
    usable = ready and not spec.get("unschedulable") and not metadata.get("deletionTimestamp")
    has: dict[str, int] = {}
    for resource, amount in (status.get("allocatable") or {}).items():
        if "/" in resource and str(amount).isdigit():  # cpu, memory and the like are no slots
            has[resource] = int(amount)
    return Node(str(metadata["name"]), dict(metadata.get("labels") or {}), has, bool(usable))
