"""How a drive comes into a pod."""

from __future__ import annotations

import pytest

from spawner.container.spec import bind_name
from spawner.kubernetes.volumes import drive_volume


def test_the_plugins_volume_is_empty_at_first_and_follows_what_is_mounted_outside() -> None:
    made = drive_volume("csi")
    assert made.volume == {"name": "drives", "csi": {"driver": "drive.minicolab.dev"}}
    assert made.mount == {"name": "drives", "mountPath": "/drives", "mountPropagation": "HostToContainer"}


def test_a_sub_path_is_one_drives_folder_where_the_supervisor_looks_for_it() -> None:
    made = drive_volume("subpath", claim="drive", drive="0f3c")
    assert made.volume == {"name": "drives", "persistentVolumeClaim": {"claimName": "drive"}}
    place = f"/drives/{bind_name('/content/drive', readonly=False)}"
    assert made.mount == {"name": "drives", "mountPath": place, "subPath": "drive/0f3c", "readOnly": False}


def test_a_read_only_sub_path_is_read_only_and_has_the_name_of_one() -> None:
    mount = drive_volume("subpath", claim="drive", drive="0f3c", readonly=True).mount
    assert mount["readOnly"] is True
    assert mount["mountPath"] == f"/drives/{bind_name('/content/drive', readonly=True)}"


@pytest.mark.parametrize("drive", ["", "..", "../bob", "a/b", "A", "0f3c\n", "-x"])
def test_what_is_no_drive_id_never_becomes_a_path(drive: str) -> None:
    with pytest.raises(ValueError, match="id of a drive"):
        drive_volume("subpath", claim="drive", drive=drive)


def test_a_sub_path_needs_a_claim() -> None:
    with pytest.raises(ValueError, match="claim"):
        drive_volume("subpath", drive="0f3c")


def test_without_drives_there_is_an_empty_folder() -> None:
    made = drive_volume("none")
    assert made.volume == {"name": "drives", "emptyDir": {"sizeLimit": "1Mi"}}
    assert made.mount == {"name": "drives", "mountPath": "/drives"}
