"""The system calls of mounting that Python does not offer. Linux 5.12 or newer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x2, 0x4, 0x8
_MS_PRIVATE, _MS_SHARED = 1 << 18, 1 << 20
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_AT_EMPTY_PATH, _OPEN_TREE_CLONE = 0x1000, 1
_MOVE_FROM_FD, _MOVE_TO_FD = 0x04, 0x40
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x1, 0x2, 0x4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount_tmpfs(name: str, target: str, options: str) -> None:
    """Mount an empty file system in memory at `target`; `name` is what mountinfo calls it."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(
        _libc.mount(name.encode(), os.fsencode(target), b"tmpfs", ctypes.c_ulong(flags), options.encode()),
        f"mount {target}",
    )


def make_shared(target: str) -> None:
    """Let what is mounted below `target` from now on appear wherever it is seen."""
    shared = ctypes.c_ulong(_MS_SHARED)
    _check(_libc.mount(None, os.fsencode(target), None, shared, None), f"share {target}")


def bind(source: int, target: int, *, readonly: bool) -> None:
    """Put the folder `source` over the folder `target` (descriptors), with nosuid and nodev, in one step.

    The mount has its flags before it is attached: a flag that is set later does not reach the copies in running containers. It is
    private before, so that what is mounted below the original later does not appear in it.
    """
    tree = _check(
        _libc.syscall(_SYS_OPEN_TREE, source, b"", _AT_EMPTY_PATH | _OPEN_TREE_CLONE | os.O_CLOEXEC),
        "copy the folder's mount",
    )
    try:
        flags = _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if readonly else 0)
        attributes = struct.pack("QQQQ", flags, 0, _MS_PRIVATE, 0)
        _check(
            _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes)),
            "set the mount's flags",
        )
        _check(
            _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", target, b"", _MOVE_FROM_FD | _MOVE_TO_FD),
            "attach the mount",
        )
    finally:
        os.close(tree)


def mount_id(fd: int) -> int:
    """Return on which mount an open file lies."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise OSError(errno.ENOSYS, "the kernel does not tell on which mount a file lies")


@contextlib.contextmanager
def files_of(owner: int | None) -> Iterator[None]:
    """Let this thread reach files as `owner` would, None: as it is. Root may be nobody on a network file system."""
    if owner is None:
        yield
        return
    before = _libc.setfsuid(owner)
    try:
        if _libc.setfsuid(-1) != owner:  # it never says whether it has worked
            raise OSError(errno.EPERM, f"may not act as the user {owner}")
        yield
    finally:
        _libc.setfsuid(before)


def detach(point: str) -> None:
    """Take the topmost mount at `point` away at once; files that are open in it stay so until they are closed."""
    _check(_libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW), f"unmount {point}")
