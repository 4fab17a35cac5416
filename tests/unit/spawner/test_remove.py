"""D8: removing a runtime's folder never reaches into a drive."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from spawner.local.remove import clean
from spawner.remove_tree import StillMounted, mounts_below, remove_tree


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    drive, folder = tmp_path / "drive", tmp_path / "runtime"
    drive.mkdir()
    (drive / "file").write_text("kept")
    (folder / "content").mkdir(parents=True)
    (folder / "content" / "MyDrive").symlink_to(drive)
    (folder / "content" / "file").symlink_to(drive / "file")
    remove_tree(folder)
    assert not folder.exists()
    assert (drive / "file").read_text() == "kept"


def test_folders_without_any_permission_and_deep_ones_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "runtime"
    (folder / "work" / "work").mkdir(parents=True)
    (folder / "work" / "work").chmod(0)
    deep = folder
    for _ in range(300):
        deep = deep / "d"
    subprocess.run(["mkdir", "-p", str(deep)], check=True)
    remove_tree(folder)
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("name", ["plain", "with blank", "übung\ttab"])
def test_a_folder_with_a_mount_in_it_is_left_alone(tmp_path: Path, name: str) -> None:
    drive, point = tmp_path / "drive", tmp_path / name / "content" / "MyDrive"
    drive.mkdir()
    (drive / "file").write_text("kept")
    point.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(drive), str(point)], check=True)
    try:
        assert mounts_below(tmp_path / name) == [str(point)]
        with pytest.raises(StillMounted):
            remove_tree(tmp_path / name)
        assert (drive / "file").read_text() == "kept"
    finally:
        subprocess.run(["umount", str(point)], check=True)
    remove_tree(tmp_path / name)
    assert (drive / "file").read_text() == "kept"


def test_a_neighbour_whose_name_begins_alike_is_not_below(tmp_path: Path) -> None:
    assert mounts_below(Path("/pro")) == []
    assert "/proc" in mounts_below(Path("/proc"))


def test_the_folder_stays_as_long_as_control_groups_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spawner.local.remove.CLEAN_TRIES", 2)
    folder = tmp_path / "runtime"
    folder.mkdir()
    assert not clean(folder, lambda: False)
    assert folder.exists()
    assert clean(folder, lambda: True)
    assert not folder.exists()
