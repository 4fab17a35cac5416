"""`python -S -m spawner.docker.bind PID mount|umount SOURCE NAME RO UID`: bind a drive inside a container's mount namespace.

PID is the container's first process, NAME a folder below /drives, UID the user of this machine who is to own there what root owns on the
disk. The mount exists in the container's namespace only, so it ends with the container, and nothing on this machine lies above a drive.
A process of its own, because a namespace is entered by a single thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from spawner.container.spec import DRIVES
from spawner.supervisor import linux

MAPPED_IDS = 65536


def bind(pid: int, source: str, name: str, *, readonly: bool, owner: int) -> None:
    """Show the folder `source` at /drives/<name>. Raise OSError."""
    with _seen_as(owner) as owners:
        tree = linux.clone_tree(source, readonly=readonly, owners=owners)
    drives = Drives(pid)
    with contextlib.suppress(FileExistsError), _as_owner_of(drives.folder):
        os.mkdir(name, 0o755, dir_fd=drives.folder)
    if not drives.holds(name):
        place = linux.open_beneath(drives.folder, name, os.O_RDONLY | os.O_DIRECTORY)
        linux.attach_tree(tree, place)


def release(pid: int, name: str) -> None:
    """Take it away again; nothing there is no error. Raise OSError."""
    drives = Drives(pid)
    while drives.holds(name):
        linux.umount(f"{DRIVES}/{name}")
    with contextlib.suppress(FileNotFoundError), _as_owner_of(drives.folder):
        os.rmdir(name, dir_fd=drives.folder)


class Drives:
    """The folder /drives of a container, whose mount namespace this process enters for good."""

    def __init__(self, pid: int) -> None:
        # Before entering: this machine's /proc is not seen from there.
        self._mountinfo = Path(f"/proc/{pid}/mountinfo").open("rb")  # noqa: SIM115
        if Path(f"/proc/{pid}/ns/mnt").samefile("/proc/self/ns/mnt"):
            raise OSError("the container has no mount namespace of its own")
        linux.setns(f"/proc/{pid}/ns/mnt", linux.CLONE_NEWNS)
        self.folder = os.open(DRIVES, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    def holds(self, name: str) -> bool:
        """Return whether a drive is mounted at this name."""
        self._mountinfo.seek(0)
        point = os.fsencode(f"{DRIVES}/{name}")
        return any(line.split(b" ")[4] == point for line in self._mountinfo)


@contextlib.contextmanager
def _as_owner_of(folder: int) -> Iterator[None]:
    """Be who owns the folder: where an engine remaps users, this machine's root is nobody in it and can make nothing."""
    found, own = os.fstat(folder), (os.geteuid(), os.getegid())
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(own[0])
        os.setegid(own[1])


@contextlib.contextmanager
def _seen_as(owner: int) -> Iterator[int | None]:
    """Yield a user namespace that maps this machine's root to `owner`, None when that is root."""
    if owner == 0:
        yield None
        return
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        linux.unshare(linux.CLONE_NEWUSER)
        os.write(ready_write, b"r")
        signal.pause()
    try:
        os.read(ready_read, 1)
        count = MAPPED_IDS if owner >= MAPPED_IDS else 1  # a remapped engine's whole range, or one user
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text(f"0 {owner} {count}")
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> int:
    pid, verb, source, name, readonly, owner = sys.argv[1:7]
    try:
        if verb == "mount":
            bind(int(pid), source, name, readonly=readonly == "1", owner=int(owner))
        else:
            release(int(pid), name)
    except OSError as error:
        sys.stderr.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
