"""Nodes that are only objects: KWOK keeps them Ready and runs pods there in name. They have what our one real node cannot have."""

from __future__ import annotations

import json
from typing import Any

TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
TPU_CHIPS = 8
# As GKE labels a node of a single-host slice of TPU v5e.
TPU_LABELS = {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
    "cloud.google.com/gke-tpu-topology": "2x4",
    "cloud.google.com/gke-accelerator-count": str(TPU_CHIPS),
}


def node(
    name: str, resources: dict[str, str], labels: dict[str, str] | None = None, *, keeper: str = "fake"
) -> dict[str, Any]:
    """Return a node object with these resources beside processors and memory. `keeper` names the KWOK that keeps it Ready."""
    amounts = {"cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "500Gi", **resources}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": keeper},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                **(labels or {}),
            },
        },
        "spec": {"taints": [TAINT]},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


def tpu_nodes(count: int) -> str:
    """Return TPU nodes as JSON for `kubectl apply`."""
    items = [node(f"tpu-{number}", {"google.com/tpu": str(TPU_CHIPS)}, TPU_LABELS) for number in range(count)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
