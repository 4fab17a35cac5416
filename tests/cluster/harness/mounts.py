"""What is mounted, as this process sees it."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.harness.errors import ClusterError
from cluster.harness.machine import command


def mount_points() -> list[Path]:
    """Return where something is mounted."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    return [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]


def mounted(path: Path) -> bool:
    """Whether something is mounted just there (a folder bound onto itself counts, unlike for `Path.is_mount`)."""
    return path in mount_points()


def unmount_all(folder: Path) -> None:
    """Unmount everything at and below a folder, what was mounted last first."""
    for path in reversed(mount_points()):
        if path == folder or folder in path.parents:
            command("umount", str(path))


def remove_folder(folder: Path) -> None:
    """Remove a folder that holds no mount. Raise ClusterError, and remove nothing, when it holds one."""
    inside = [path for path in mount_points() if path == folder or folder in path.parents]
    if inside:
        raise ClusterError(f"{inside[0]} is still mounted; nothing was removed")
    if folder.exists():
        shutil.rmtree(folder)
