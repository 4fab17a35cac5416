"""How a drive comes into a runtime's pod, by setting. Pure.

csi       an inline volume of the drive plugin: empty until the user has consented, drives come and go while the pod runs
subpath   without a privileged part: a sub-folder of the drive volume, decided when the pod is made, and there from its start
none      runtimes without Drive
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from spawner.container.spec import bind_name

DriveSetting = Literal["csi", "subpath", "none"]

VOLUME = "drives"
FOLDER = "/drives"  # where drives appear inside
DRIVER = "drive.minicolab.dev"
TARGET = "/content/drive"  # what a notebook that was written for Colab asks for
_DRIVE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class DriveVolume:
    """One volume of a pod, and how its container mounts it."""

    volume: dict[str, Any]
    mount: dict[str, Any]


def drive_volume(
    setting: DriveSetting,
    *,
    driver: str = DRIVER,
    claim: str = "",
    drive: str = "",
    target: str = TARGET,
    readonly: bool = False,
) -> DriveVolume:
    """Return the volume of a pod's drives.

    With `subpath`: `claim` is the drive volume's claim in the pod's own namespace, `drive` the id of the user's drive, which can
    then be mounted at `target` alone, with `readonly` as said here. Raise ValueError for an id or a claim that is none.
    """
    if setting == "subpath":
        if not _DRIVE_ID.fullmatch(drive) or not claim:
            raise ValueError("a sub-path needs the claim of the drive volume and the id of a drive")
        name = bind_name(target, readonly=readonly)
        return DriveVolume(
            {"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}},
            {
                "name": VOLUME,
                "mountPath": f"{FOLDER}/{name}",
                "subPath": f"drive/{drive}",
                "readOnly": readonly,
            },
        )
    source: dict[str, Any] = {"emptyDir": {"sizeLimit": "1Mi"}}
    mount: dict[str, Any] = {"name": VOLUME, "mountPath": FOLDER}
    if setting == "csi":
        source = {"csi": {"driver": driver}}
        mount["mountPropagation"] = "HostToContainer"
    return DriveVolume({"name": VOLUME, **source}, mount)
