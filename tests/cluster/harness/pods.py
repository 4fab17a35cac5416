"""Pods for tests, as Pod Security `restricted` wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.harness.images import BUSYBOX


def restricted_pod(
    name: str,
    namespace: str,
    command: Sequence[str],
    *,
    image: str = BUSYBOX,
    limits: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Return a pod of one container that runs as user 1000 and may nothing; `spec` adds to the pod's."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(command),
                    "resources": {"limits": {"cpu": "500m", "memory": "64Mi", **(limits or {})}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            **spec,
        },
    }
