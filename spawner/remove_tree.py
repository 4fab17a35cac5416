"""Remove a folder without ever touching a drive: no mount crossed, no link followed."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path


class StillMounted(Exception):
    """Something is mounted below the folder, so nothing of it is removed."""


def mounts_below(folder: Path) -> list[str]:
    """Return what is mounted at or below `folder` in our own mount namespace."""
    prefix = os.fsencode(folder.resolve())
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        # Blanks and backslashes are written as three octal digits; all other bytes as they are.
        point = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), line.split(b" ")[4])
        if point == prefix or point.startswith(prefix + b"/"):
            found.append(os.fsdecode(point))
    return found


def remove_tree(folder: Path) -> None:
    """Remove `folder` and what is in it. Raise StillMounted, or OSError for what can not be removed."""
    if not folder.exists():
        return
    mounted = mounts_below(folder)
    if mounted:
        raise StillMounted(f"{mounted[0]} is still mounted")
    device = folder.stat(follow_symlinks=False).st_dev
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _remove(parent, folder.name, device)
    finally:
        os.close(parent)


def _remove(parent: int, name: str, device: int) -> None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    if status.st_dev != device:
        raise StillMounted(f"{name} lies on another file system")
    try:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)  # overlayfs leaves its work folder with mode 000
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if not status.st_mode & stat.S_IWUSR:
            os.fchmod(folder, 0o700)
        for entry in os.listdir(folder):
            _remove(folder, entry, device)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)
