"""A runtime as a pod and a secret. Pure.

The pod passes Pod Security `restricted`: no root, no privileges, no host folders, no service account token. Nothing of a drive is in
it before its user has consented (spawner.kubernetes.volumes, docs/storage.md).
"""

from __future__ import annotations

import math
from typing import Any

from spawner.kubernetes.model import (
    CLAIM_GATE,
    DRIVES,
    FILE,
    SNAPSHOT,
    START,
    USER,
    Installation,
    Object,
    PodFlavor,
    labels_of,
)
from spawner.kubernetes.volumes import DriveVolume, drive_volume
from spawner.model import RuntimeSpec

CONTAINER = "runtime"
SERVER_PORT, SUPERVISOR_PORT = 8888, 8889
SPEC_KEY, SPEC_VARIABLE = "spec", "MINICOLAB_SPEC"
USER_ID = 1000
END_SECONDS = 30  # between SIGTERM and SIGKILL when the pod is deleted by somebody else
SPARE_SECONDS = (
    300.0  # the cluster's deadline lies behind our own: it is for a supervisor that does not keep it
)
SHARED_MEMORY_PART = 0.5
# A node whose kubelet is away may go on running what it runs: whether a runtime is lost is ours to find out, by asking its supervisor.
STAYS = tuple(
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute"}
    for key in ("not-ready", "unreachable")
)


def pod(spec: RuntimeSpec, installation: Installation, *, start: str, gated: bool = False) -> dict[str, Any]:
    """Return the pod of a runtime. `start` names this try; `gated`: it waits until its accelerator is granted. Raise KeyError."""
    flavor = installation.flavors[spec.accelerator] if spec.accelerator != "NONE" else None
    drives = drive_volume(
        installation.drives,
        driver=installation.drive_driver,
        claim=installation.drive_claim,
        drive=spec.drive,
    )
    gates = {"schedulingGates": [{"name": CLAIM_GATE}]} if gated else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": spec.id,
            "namespace": installation.namespace,
            "labels": labels_of(installation, spec.id, spec.user),
            "annotations": {
                USER: spec.user,
                FILE: spec.file_id,
                START: start,
                DRIVES: "[]",
                SNAPSHOT: str(spec.snapshot_bytes),
                # Autoscalers and drains must not move a running notebook.
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "karpenter.sh/do-not-disrupt": "true",
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": installation.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "activeDeadlineSeconds": deadline(spec, installation),
            "terminationGracePeriodSeconds": END_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(spec, installation, flavor, drives)],
            "volumes": _volumes(spec, installation, drives),
            **_placement(installation, flavor),
            **gates,
        },
    }


def secret(spec: RuntimeSpec, installation: Installation, *, described: str, pod_uid: str) -> dict[str, Any]:
    """Return the secret that holds the runtime's description; it goes with its pod."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {
            "name": spec.id,
            "namespace": installation.namespace,
            "labels": labels_of(installation, spec.id, spec.user),
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": spec.id, "uid": pod_uid, "controller": True}
            ],
        },
        "stringData": {SPEC_KEY: described},
    }


def deadline(spec: RuntimeSpec, installation: Installation) -> int:
    """Return when the cluster itself ends the pod, in seconds from its start: the longest it can be alive rightly."""
    life = spec.max_lifetime_seconds + installation.extension_seconds
    return math.ceil(installation.start_seconds + life + SPARE_SECONDS)


def longest_life(pod: Object, installation: Installation) -> float:
    """Return the longest limit of life a pod that was made can be given."""
    return float(pod["spec"]["activeDeadlineSeconds"]) - installation.start_seconds - SPARE_SECONDS


def ungated(pod: Object, node: str | None) -> dict[str, Any] | None:
    """Return the change that lets a gated pod be scheduled, best on `node`; None when it is not gated."""
    gates = pod["spec"].get("schedulingGates") or []
    left = [gate for gate in gates if gate.get("name") != CLAIM_GATE]
    if len(left) == len(gates):
        return None
    spec: dict[str, Any] = {"schedulingGates": left}
    if node is not None:
        wanted = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]
        preference = {"weight": 100, "preference": {"matchExpressions": wanted}}
        spec["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}
    same = {k: pod["metadata"][k] for k in ("uid", "resourceVersion")}
    return {"metadata": same, "spec": spec}


def _container(
    spec: RuntimeSpec, installation: Installation, flavor: PodFlavor | None, drives: DriveVolume
) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [
        {
            "name": SPEC_VARIABLE,
            "valueFrom": {"secretKeyRef": {"name": spec.id, "key": SPEC_KEY, "optional": False}},
        }
    ]
    if flavor is None:
        # Images made for GPUs ask for all of a node's, and some nodes grant that to whoever asks.
        environment.append({"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"})
    return {
        "name": CONTAINER,
        "image": (flavor.image if flavor is not None else None) or installation.image,
        "imagePullPolicy": installation.image_pull_policy,
        "env": environment,
        "ports": [
            {"name": "server", "containerPort": SERVER_PORT},
            {"name": "supervisor", "containerPort": SUPERVISOR_PORT},
        ],
        "resources": _resources(spec, installation, flavor),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "content", "mountPath": "/content"},
            {"name": "run", "mountPath": "/run/minicolab"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *drives.mounts,
        ],
    }


def _resources(spec: RuntimeSpec, installation: Installation, flavor: PodFlavor | None) -> dict[str, Any]:
    shape = spec.shape
    limits: dict[str, str] = {"cpu": _millis(shape.cpus), "memory": str(shape.memory_bytes)}
    requests = {
        "cpu": _millis(shape.cpus * installation.cpu_share),
        "memory": str(int(shape.memory_bytes * installation.memory_share)),
    }
    if installation.disk_bytes is not None:
        limits["ephemeral-storage"] = requests["ephemeral-storage"] = str(installation.disk_bytes)
    if flavor is not None:
        limits[flavor.resource] = requests[flavor.resource] = str(flavor.count)
    return {"requests": requests, "limits": limits}


def _millis(cpus: float) -> str:
    return f"{max(1, round(cpus * 1000))}m"


def _volumes(spec: RuntimeSpec, installation: Installation, drives: DriveVolume) -> list[dict[str, Any]]:
    content = {"sizeLimit": str(installation.disk_bytes)} if installation.disk_bytes is not None else {}
    shared = str(int(spec.shape.memory_bytes * SHARED_MEMORY_PART))
    return [
        {"name": "content", "emptyDir": content},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "80Mi"}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": shared}},
        drives.volume,
    ]


def _placement(installation: Installation, flavor: PodFlavor | None) -> dict[str, Any]:
    selector = {**installation.node_selector, **(flavor.node_selector if flavor is not None else {})}
    tolerations = [
        dict(t)
        for t in (*STAYS, *installation.tolerations, *(flavor.tolerations if flavor is not None else ()))
    ]
    placement: dict[str, Any] = {"tolerations": tolerations}
    if selector:
        placement["nodeSelector"] = selector
    if flavor is not None and flavor.runtime_class is not None:
        placement["runtimeClassName"] = flavor.runtime_class
    if installation.pull_secrets:
        placement["imagePullSecrets"] = [{"name": name} for name in installation.pull_secrets]
    if installation.priority_class is not None:
        placement["priorityClassName"] = installation.priority_class
    if installation.user_namespaces:
        placement["hostUsers"] = False
    return placement
