"""The few system calls Python does not offer: namespaces, mounts, safe path resolution, death signals, timers, folder events."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 32, 4096, 16384
MS_PRIVATE, MS_SHARED = 1 << 18, 1 << 20
MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_TFD_TIMER_ABSTIME = 1
_SYS_LANDLOCK_CREATE_RULESET, _SYS_LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1
_LANDLOCK_SCOPES_SINCE = 6
_PR_SET_NO_NEW_PRIVS = 38
_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_OPENAT2, _SYS_MOUNT_SETATTR = 428, 429, 437, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_FROM_FD, _MOVE_TO_FD = 0x04, 0x40
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 0x1, 0x2, 0x4
_MOUNT_ATTR_IDMAP = 0x100000
LOOK_SECONDS = 0.05  # how often a folder is looked into that can not be watched
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(path: str, kind: int) -> None:
    """Enter the namespace behind `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, kind), f"setns {path}")
    finally:
        os.close(fd)


def in_own_user_namespace() -> bool:
    """Return whether this process's user namespace is not the machine's."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    kind_bytes = kind.encode() if kind is not None else None
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, f"mount {target}")


def bind(source: str, target: int, *, readonly: bool) -> None:
    """Bind the folder `source` over the folder descriptor `target`, with nosuid and nodev, in one step."""
    tree = clone_tree(source, readonly=readonly)
    try:
        attach_tree(tree, target)
    finally:
        os.close(tree)


def clone_tree(source: str, *, readonly: bool, owners: int | None = None) -> int:
    """Return the descriptor of a mount of the folder `source` that is attached nowhere yet, with nosuid and nodev.

    It has its flags before it is attached, so that they are also those of the copies that propagation makes. `owners` is the
    descriptor of a user namespace: who owns a file on the disk is seen there as whom the namespace maps it to.
    """
    tree = _check(
        _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | os.O_CLOEXEC),
        f"open {source}",
    )
    try:
        flags = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | (_MOUNT_ATTR_RDONLY if readonly else 0)
        flags |= _MOUNT_ATTR_IDMAP if owners is not None else 0
        attributes = struct.pack("QQQQ", flags, 0, 0, owners or 0)
        _check(
            _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes)),
            f"flags of {source}",
        )
    except OSError:
        os.close(tree)
        raise
    return tree


def attach_tree(tree: int, target: int) -> None:
    """Attach a mount over the folder descriptor `target`."""
    flags = _MOVE_FROM_FD | _MOVE_TO_FD
    _check(_libc.syscall(_SYS_MOVE_MOUNT, tree, b"", target, b"", flags), "attach a mount")


def umount(target: str) -> None:
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def set_parent_death_signal(number: int) -> None:
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")


def adopt_orphans() -> None:
    """Make this process the new parent of every orphan among its descendants, so that none gets away."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def forbid_looking_in() -> None:
    """Keep other processes of our own user from our memory, environment and descriptors (ptrace, /proc/<pid>)."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def landlock_scopes() -> bool:
    """Return whether this kernel can restrict a process to sockets of its own kind (Landlock's scopes)."""
    version = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    return bool(version >= _LANDLOCK_SCOPES_SINCE)


def forbid_abstract_sockets() -> bool:
    """Keep this process and its descendants from sockets of the machine that have no path; return whether the kernel can.

    They live in the network namespace, which a runtime shares with the machine, and some daemons trust who reaches them.
    """
    if not landlock_scopes():
        return False
    rules = struct.pack("QQQ", 0, 0, _LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)
    ruleset = _check(_libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, rules, len(rules), 0), "landlock")
    try:
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        _check(_libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)
    return True


def boottime() -> float:
    """Return seconds since boot, suspend included: no NTP step, time zone or sleep of the machine bends it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def new_timer() -> int:
    """Return the descriptor of a timer on CLOCK_BOOTTIME; it is readable once it has struck."""
    return _check(_libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK), "timerfd_create")


def set_timer(timer: int, at: float, *, again_seconds: float = 0.0) -> None:
    """Let the timer strike when boottime() is `at`, at once when that has passed; then every `again_seconds` (0: once)."""
    first, again = _parts(max(0.0, at)), _parts(again_seconds)
    value = struct.pack("qqqq", *again, first[0], max(1, first[1]))
    _check(_libc.timerfd_settime(timer, _TFD_TIMER_ABSTIME, value, None), "timerfd_settime")


def _parts(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * 1e9)


def watch_or_look(path: str) -> int:
    """Return a descriptor that is readable when a file appears in the folder, or often, where this user has no watch left."""
    try:
        return watch_folder(path)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENOSPC):
            raise
    timer = new_timer()
    set_timer(timer, boottime(), again_seconds=LOOK_SECONDS)
    return timer


def watch_folder(path: str) -> int:
    """Return a descriptor that is readable when a file appears in the folder."""
    watch = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
    try:
        _check(_libc.inotify_add_watch(watch, os.fsencode(path), _IN_CREATE | _IN_MOVED_TO), f"watch {path}")
    except OSError:
        os.close(watch)
        raise
    return watch


def open_beneath(folder: int, path: str, flags: int) -> int:
    """Open `path` below the folder descriptor without following any link. Raise OSError."""
    how = struct.pack(
        "QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
    )
    result = _libc.syscall(_SYS_OPENAT2, folder, os.fsencode(path), how, len(how))
    return _check(int(result), path)
