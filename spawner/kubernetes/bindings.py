"""What of drives is to be bound into a pod: an annotation of the pod, which the drive plugin of its node follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from spawner.kubernetes.client import ApiFault, Cluster
from spawner.kubernetes.model import DRIVES, Installation, annotation, is_ours
from spawner.kubernetes.refusals import refusal
from spawner.ports import BackendError
from spawner.supervised import gone

PATCH_TRIES = 10

Bindings = list[dict[str, Any]]


async def change_bindings(
    cluster: Cluster, installation: Installation, path: str, change: Callable[[Bindings], Bindings]
) -> None:
    """Change what the drive plugin is to bind into the pod at `path`, from what is written there now. Raise BackendError."""
    for _ in range(PATCH_TRIES):
        try:
            found = await cluster.get(path)
            if found is None or not is_ours(found, installation):
                raise gone()
            bound = change(json.loads(annotation(found, DRIVES) or "[]"))
            same = {k: found["metadata"][k] for k in ("uid", "resourceVersion")}
            metadata = {**same, "annotations": {DRIVES: json.dumps(bound)}}
            await cluster.patch(path, {"metadata": metadata})
            return
        except ApiFault as fault:
            if fault.status != 409:  # another changed it meanwhile: look again
                raise refusal(fault) from fault
    raise BackendError("mount_failed", "The machine's drives are being changed by somebody else.")
