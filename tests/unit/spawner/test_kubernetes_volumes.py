"""How a drive comes into a pod."""

from __future__ import annotations

import pytest

from spawner.kubernetes.volumes import drive_volume, name_at_start
from spawner.model import DriveAtStart

WRITABLE, READ_ONLY = DriveAtStart("0f3c", readonly=False), DriveAtStart("0f3c", readonly=True)


def test_the_plugins_volume_is_empty_at_first_and_follows_what_is_mounted_outside() -> None:
    made = drive_volume("csi")
    assert made.volume == {"name": "drives", "csi": {"driver": "drive.minicolab.dev"}}
    (mount,) = made.mounts
    assert mount == {"name": "drives", "mountPath": "/drives", "mountPropagation": "HostToContainer"}


@pytest.mark.parametrize(("drive", "ways"), [(WRITABLE, [False, True]), (READ_ONLY, [True])])
def test_a_sub_path_is_one_drives_folder_in_the_ways_its_user_agreed_to(
    drive: DriveAtStart, ways: list[bool]
) -> None:
    made = drive_volume("subpath", claim="drive", drive=drive)
    assert made.volume == {"name": "drives", "persistentVolumeClaim": {"claimName": "drive"}}
    assert list(made.mounts) == [
        {
            "name": "drives",
            "mountPath": f"/drives/{name_at_start(readonly=readonly)}",
            "subPath": "drive/0f3c",
            "readOnly": readonly,
        }
        for readonly in ways
    ]


def test_nothing_of_the_volume_is_in_a_pod_whose_user_has_not_agreed() -> None:
    assert drive_volume("subpath", claim="drive") == drive_volume("none")


@pytest.mark.parametrize("drive", ["", "..", "../bob", "a/b", "A", "0f3c\n", "-x"])
def test_what_is_no_drive_id_never_becomes_a_path(drive: str) -> None:
    with pytest.raises(ValueError, match="id of a drive"):
        drive_volume("subpath", claim="drive", drive=DriveAtStart(drive, readonly=False))


def test_a_sub_path_needs_a_claim() -> None:
    with pytest.raises(ValueError, match="claim"):
        drive_volume("subpath", drive=WRITABLE)


def test_without_drives_there_is_an_empty_folder() -> None:
    made = drive_volume("none", drive=WRITABLE)
    assert made.volume == {"name": "drives", "emptyDir": {"sizeLimit": "1Mi"}}
    assert made.mounts == ({"name": "drives", "mountPath": "/drives"},)
