"""Volumes for claims: folders of the node, as static `local` volumes of the default storage class.

Of all that one node offers without a driver, only these obey `fsGroup`, which a pod that is not root needs. A volume serves one claim
and is spent; `replenish` makes it anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from cluster.harness.cluster import Cluster
from cluster.harness.configuration import NODE_NAME

CLASS = "local"
COUNT = 12
SIZE = "100Gi"


def storage_class() -> dict[str, Any]:
    """The class that claims without one get."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def volume(number: int, folder: Path) -> dict[str, Any]:
    """A volume in a folder of the node, for one writer or many."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"local-{number}"},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": str(folder)},
            "nodeAffinity": _on_the_node(),
        },
    }


def static_claim(namespace: str, name: str, source: dict[str, Any]) -> list[dict[str, Any]]:
    """A volume of the one node's and its claim, as an administrator makes them for storage that is there already."""
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeMode": "Filesystem"}
    size, volume = {"storage": "1Gi"}, f"{namespace}-{name}"
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                **common,
                **source,
                "capacity": size,
                "persistentVolumeReclaimPolicy": "Retain",
                "nodeAffinity": _on_the_node(),
                "claimRef": {"namespace": namespace, "name": name},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {**common, "volumeName": volume, "resources": {"requests": size}},
        },
    ]


def _on_the_node() -> dict[str, Any]:
    here = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}]
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}}


def replenish(cluster: Cluster, folder: Path) -> None:
    """Make the class and its volumes; those whose claim is gone are emptied and made anew."""
    known = json.loads(cluster.kubectl("get", "persistentvolumes", "-o", "json"))["items"]
    kept = set()
    for each in known:
        name = each["metadata"]["name"]
        if each["status"].get("phase") == "Released" and each["spec"].get("storageClassName") == CLASS:
            cluster.kubectl("delete", "persistentvolume", name)
            shutil.rmtree(folder / name)
        else:
            kept.add(name)
    missing = [number for number in range(COUNT) if f"local-{number}" not in kept]
    for number in missing:
        (folder / f"local-{number}").mkdir(parents=True, exist_ok=True)
    cluster.apply(storage_class(), *(volume(number, folder / f"local-{number}") for number in missing))
