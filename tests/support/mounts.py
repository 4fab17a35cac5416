"""Tests on real mounts: a test's body in a mount namespace of its own, so that nothing it mounts is seen outside or left behind."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import struct
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE, _MS_SLAVE, _MS_SHARED, _MS_BIND = 0x4000, 1 << 18, 1 << 19, 1 << 20, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


def in_private_mounts(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a child of its own whose mounts nobody else sees; skipped by name where the machine forbids it."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        failure = in_child(lambda: _private(test, *arguments, **named))
        if failure is not None and "MountsForbidden" in failure:
            pytest.skip("mount namespaces are forbidden on this machine")
        assert failure is None, failure

    return run


def in_child(work: Callable[[], object]) -> str | None:
    """Do something in a forked child; return None, or how it failed: a traceback, or the signal it died of."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60_000:])
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return told if os.waitstatus_to_exitcode(status) != 0 else None


class MountsForbidden(Exception):
    """This machine lets nobody make a mount namespace."""


def bind_shared(folder: Path) -> None:
    """Make a folder a mount whose mounts propagate, as kubelet's folder is on a node."""
    _mount(str(folder), str(folder), _MS_BIND | _MS_REC)
    _mount(None, str(folder), _MS_SHARED)


def exchange(one: Path, other: Path) -> None:
    """Let two names change places in one step."""
    if _libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) != 0:  # AT_FDCWD, RENAME_EXCHANGE
        raise OSError(ctypes.get_errno(), "renameat2")


def squash_root() -> None:
    """Take root's rights to all files from this process: what NFS does to root unless it is told not to."""
    header = struct.pack("Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    _libc.syscall(125, header, data)  # capget
    fields = list(struct.unpack("6I", data.raw))
    for at in (0, 1, 2):  # effective, permitted, inheritable
        fields[at] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if _libc.syscall(126, header, struct.pack("6I", *fields)) != 0:  # capset
        raise OSError(ctypes.get_errno(), "capset")


class Pod:
    """A process with mounts of its own that follow those outside: what a container with HostToContainer sees."""

    def __init__(self) -> None:
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _unshare(_CLONE_NEWNS)
            _mount(None, "/", _MS_SLAVE | _MS_REC)
            os.write(told, b"x")
            signal.pause()
            os._exit(0)
        assert os.read(ready, 1) == b"x"
        os.close(ready)
        os.close(told)

    def path(self, path: Path) -> Path:
        """Return where what the pod sees at `path` can be seen from here."""
        return Path(f"/proc/{self.pid}/root{path}")

    def mountinfo(self) -> str:
        return Path(f"/proc/{self.pid}/mountinfo").read_text()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _private(test: Callable[..., None], *arguments: Any, **named: Any) -> None:
    try:
        _unshare(_CLONE_NEWNS)
        _mount(None, "/", _MS_PRIVATE | _MS_REC)
    except OSError as error:
        raise MountsForbidden from error
    test(*arguments, **named)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _mount(source: str | None, target: str, flags: int) -> None:
    result = _libc.mount(
        source.encode() if source is not None else None, target.encode(), None, ctypes.c_ulong(flags), None
    )
    if result != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")
