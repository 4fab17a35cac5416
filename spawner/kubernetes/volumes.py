"""How a drive comes into a runtime's pod, by setting. Pure.

csi       an inline volume of the drive plugin: empty until the user has consented, drives come and go while the pod runs
subpath   without a privileged part: a sub-folder of the drive volume, decided when the pod is made, and there from its start
none      runtimes without Drive
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from spawner.container.spec import DRIVES, bind_name
from spawner.model import DriveAtStart

DriveSetting = Literal["csi", "subpath", "none"]

VOLUME = "drives"
DRIVER = "drive.minicolab.dev"
DRIVE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class DriveVolume:
    """One volume of a pod, and how its container mounts it."""

    volume: dict[str, Any]
    mounts: tuple[dict[str, Any], ...]


def drive_volume(
    setting: DriveSetting, *, driver: str = DRIVER, claim: str = "", drive: DriveAtStart | None = None
) -> DriveVolume:
    """Return the volume of a pod's drives.

    With `subpath`: `claim` is the drive volume's claim in the pod's own namespace, `drive` what its user has agreed to; None: nothing
    of the volume is in the pod. Raise ValueError for an id or a claim that is none.
    """
    if setting == "subpath" and drive is not None:
        return _sub_path(claim, drive)
    source: dict[str, Any] = {"emptyDir": {"sizeLimit": "1Mi"}}
    mount: dict[str, Any] = {"name": VOLUME, "mountPath": DRIVES}
    if setting == "csi":
        source = {"csi": {"driver": driver}}
        mount["mountPropagation"] = "HostToContainer"
    return DriveVolume({"name": VOLUME, **source}, (mount,))


def _sub_path(claim: str, drive: DriveAtStart) -> DriveVolume:
    if not DRIVE_ID.fullmatch(drive.id) or not claim:
        raise ValueError("a sub-path needs the claim of the drive volume and the id of a drive")
    # Who agreed to a writable drive may ask for a read-only one too; not the other way round.
    ways = (True,) if drive.readonly else (False, True)
    mounts = tuple(
        {
            "name": VOLUME,
            "mountPath": f"{DRIVES}/{name_at_start(readonly=readonly)}",
            "subPath": sub_path(drive.id),
            "readOnly": readonly,
        }
        for readonly in ways
    )
    return DriveVolume({"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}}, mounts)


def sub_path(drive_id: str) -> str:
    """Return where a drive lies on the drive volume."""
    return f"drive/{drive_id}"


def name_at_start(*, readonly: bool) -> str:
    """Return the name below /drives of a drive that is there from the start, wherever it will be asked for."""
    return bind_name("", readonly=readonly)
