"""Copying files and folders inside a drive: all of it, or nothing."""

from __future__ import annotations

from storage_mount import errors, policy
from storage_mount.beneath import Facts, Folder


def copy(files: Folder, path: str, facts: Facts, target: str) -> None:
    """Copy what lies at `path` to the free path `target`. Raise DiskFull, BadRequest `path_too_long`, OSError."""
    if not facts.is_folder:
        _copy_file(files, path, facts, target)
        return
    found = [
        (here, below, policy.join(target, here[len(path) + 1 :])) for here, below in files.walk(path)
    ]  # all paths fit before anything is made
    _need_space(files, sum(below.size for _, below, _ in found if not below.is_folder))
    files.make_folder(target)
    try:
        for here, below, there in found:
            if below.is_folder:
                files.make_folder(there)
            else:
                _copy_file(files, here, below, there)
    except BaseException:
        files.remove(target)
        raise


def _copy_file(files: Folder, path: str, facts: Facts, target: str) -> None:
    _need_space(files, facts.size)
    fd, _ = files.open_file(path)
    with open(fd, "rb") as file:  # noqa: PTH123  # a descriptor has no path
        files.write(target, iter(lambda: file.read(1 << 20), b""), replace=False)


def _need_space(files: Folder, size: int) -> None:
    """Refuse before anything is written: a sparse file may claim to be larger than the disk."""
    if size > files.free_bytes():
        raise errors.DiskFull
