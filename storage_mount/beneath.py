"""File-system access that never leaves one folder: every path is resolved by `openat2` below a folder descriptor.

No link is followed, no mount or magic link crossed, whatever a runtime that shares the folder does meanwhile. Only regular
files and folders exist here. Writes are durable: beside, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TEMPORARY_PREFIX = ".mc-tmp-"
CHUNK_BYTES = 1 << 20
_SYS_STATX, _SYS_OPENAT2 = 332, 437
_RESOLVE = 0x02 | 0x04 | 0x08  # NO_MAGICLINKS | NO_SYMLINKS | BENEATH
_AT_EMPTY_PATH, _STATX_BTIME = 0x1000, 0x800
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Facts:
    """What the file system says about a file. `identity` survives renames and is never reused; times in nanoseconds."""

    identity: str
    is_folder: bool
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def signature(self) -> str:
        """Return what changes whenever the content may have changed."""
        return f"{self.identity}:{self.mtime_ns}:{self.ctime_ns}:{self.size}"


class NotRegular(OSError):
    """Something that is neither a regular file nor a folder."""


def open_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """Return a descriptor of `path` below `folder`. Raise OSError: ENOENT, ELOOP or EXDEV for what lies elsewhere."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, _RESOLVE)
    for _ in range(100):
        fd = int(_libc.syscall(_SYS_OPENAT2, folder, os.fsencode(path or "."), how, len(how)))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != errno.EAGAIN:  # a rename raced the resolution: the kernel asks to try again
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def facts_of(fd: int) -> Facts:
    """Return the facts of an open file. Raise NotRegular, or OSError (ELOOP) for a link: nothing lies there."""
    status = os.fstat(fd)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise NotRegular(errno.EINVAL, "not a regular file")
    buffer = ctypes.create_string_buffer(256)
    born = 0
    if _libc.syscall(_SYS_STATX, fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) == 0:
        seconds, nanoseconds = struct.unpack_from("qI", buffer.raw, 80)
        born = seconds * 10**9 + nanoseconds
    identity = f"{status.st_dev:x}-{status.st_ino:x}-{born:x}"
    return Facts(
        identity, stat.S_ISDIR(status.st_mode), status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


class Folder:
    """The files below one folder of the machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def _open_root(self) -> Iterator[int]:
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def open_folder(self, path: str) -> Iterator[int]:
        """Give the descriptor of a folder. Raise OSError."""
        with self._open_root() as root:
            fd = open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    def facts(self, path: str) -> Facts:
        """Return the facts of a path. Raise OSError."""
        with self._open_root() as root:
            fd = open_beneath(root, path, os.O_PATH)
        try:
            return facts_of(fd)
        finally:
            os.close(fd)

    def scan(self, path: str) -> list[tuple[str, Facts]]:
        """Return (name, facts) of the regular files and folders in a folder. Raise OSError."""
        out = []
        with self.open_folder(path) as folder:
            for name in os.listdir(folder):
                if name.startswith(TEMPORARY_PREFIX):
                    continue
                with contextlib.suppress(OSError):  # it went away, or is no regular file: not listed
                    fd = open_beneath(folder, name, os.O_PATH)
                    try:
                        out.append((name, facts_of(fd)))
                    finally:
                        os.close(fd)
        return out

    def names(self, path: str) -> list[str]:
        """Return every name in a folder, of whatever kind: none of them is free."""
        with self.open_folder(path) as folder:
            return [name for name in os.listdir(folder) if not name.startswith(TEMPORARY_PREFIX)]

    def open_file(self, path: str) -> tuple[int, Facts]:
        """Return an open descriptor of a regular file for reading, and its facts. Raise OSError, NotRegular."""
        with self._open_root() as root:
            fd = open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            facts = facts_of(fd)
            if facts.is_folder:
                raise IsADirectoryError(errno.EISDIR, "is a folder")
        except BaseException:
            os.close(fd)
            raise
        return fd, facts

    def read(self, path: str) -> tuple[bytes, Facts]:
        """Return the content of a file, and the facts it had."""
        fd, facts = self.open_file(path)
        with os.fdopen(fd, "rb") as file:
            return file.read(), facts

    def write(self, path: str, chunks: Iterable[bytes], *, replace: bool) -> Facts:
        """Put the chunks at `path`, all or nothing, durably; return the facts. Raise FileExistsError without `replace`."""
        parent, _, name = path.rpartition("/")
        with self.open_folder(parent) as folder:
            draft = TEMPORARY_PREFIX + secrets.token_hex(8)
            fd = os.open(
                draft,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o644,
                dir_fd=folder,
            )
            try:
                with os.fdopen(fd, "wb", buffering=0) as file:
                    for chunk in chunks:
                        view = memoryview(chunk)
                        while view:
                            view = view[file.write(view) :]
                    os.fsync(file.fileno())
                    # The name is taken by a link first, so that an existing file is never replaced by accident.
                    if replace:
                        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
                    else:
                        os.link(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
                        os.unlink(draft, dir_fd=folder)
                    os.fsync(folder)
                    return facts_of(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(draft, dir_fd=folder)
                raise

    def make_folder(self, path: str) -> Facts:
        """Make a folder, durably. Raise FileExistsError."""
        parent, _, name = path.rpartition("/")
        with self.open_folder(parent) as folder:
            os.mkdir(name, 0o755, dir_fd=folder)
            os.fsync(folder)
        return self.facts(path)

    def move(self, path: str, target: Folder, target_path: str) -> None:
        """Move a file or folder to a free name, here or in another folder of the same file system. Raise FileExistsError."""
        parent, _, name = path.rpartition("/")
        target_parent, _, target_name = target_path.rpartition("/")
        with self.open_folder(parent) as source, target.open_folder(target_parent) as destination:
            _rename_free(source, name, destination, target_name)
            os.fsync(destination)
            os.fsync(source)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds, following nothing. What is gone already is no error."""
        parent, _, name = path.rpartition("/")
        with self.open_folder(parent) as folder:
            _remove(folder, name)
            os.fsync(folder)

    def walk(self, path: str = "") -> Iterator[tuple[str, Facts]]:
        """Yield (path, facts) of everything below a folder, a folder before what it holds; no tree is too deep."""
        waiting = [path]
        while waiting:
            folder = waiting.pop()
            with contextlib.suppress(OSError):  # it went away, or its path is longer than the system takes
                for name, facts in self.scan(folder):
                    here = f"{folder}/{name}" if folder else name
                    yield here, facts
                    if facts.is_folder:
                        waiting.append(here)

    def free_bytes(self) -> int:
        """Return how much can still be written."""
        with self._open_root() as root:
            status = os.fstatvfs(root)
        return status.f_bavail * status.f_frsize


def _rename_free(source: int, name: str, destination: int, target: str) -> None:
    """renameat2 with RENAME_NOREPLACE: what is there already is never replaced."""
    result = _libc.syscall(316, source, os.fsencode(name), destination, os.fsencode(target), 1)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _remove(folder: int, name: str) -> None:
    try:
        top = _open_if_folder(folder, name)
    except FileNotFoundError:
        return
    if top is None:
        os.unlink(name, dir_fd=folder)
        return
    try:
        while entries := os.listdir(top):
            for entry in entries:
                _take_apart(top, entry)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=folder)


def _take_apart(top: int, name: str) -> None:
    """Remove a file below `top`; of a folder only its files, while its folders move up: so no tree is too deep."""
    folder = _open_if_folder(top, name)
    if folder is None:
        os.unlink(name, dir_fd=top)
        return
    try:
        for entry in os.listdir(folder):
            if stat.S_ISDIR(os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode):
                os.rename(entry, TEMPORARY_PREFIX + secrets.token_hex(8), src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(entry, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _open_if_folder(parent: int, name: str) -> int | None:
    """Return a descriptor of a folder, None for anything else. Raise FileNotFoundError."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        return None
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
