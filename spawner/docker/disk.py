"""/content as a file system of its own in a file: nobody can put more there than the file may grow to, and the rest of the disk is others'.

`python -S -m spawner.docker.disk pack DISK ARCHIVE MOST`: pack what is in it (spawner.keep); print why not, nothing when it was packed.
A process of its own, because only its mount namespace sees the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from spawner import keep
from spawner.docker import loop
from spawner.supervisor import linux

KIND = "ext4"
# What is removed inside is given back to the machine.
OPTIONS = "nosuid,nodev,noatime,discard,noinit_itable"
LEAST_BYTES = 16 << 20
JOURNAL_MIB = 4
SYSTEM_PROGRAMS = "/usr/sbin:/sbin"
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_PRIVATE_ALL = 2, 4, 8, 0x44000


def make(disk: Path, size: int, owner: int) -> None:
    """Make an empty file system of at most `size` bytes whose top folder is `owner`'s. Raise OSError."""
    with disk.open("xb") as file:
        file.truncate(max(size, LEAST_BYTES))
    features = f"root_owner={owner}:{owner},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    _run(
        *("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^resize_inode"),
        *("-J", f"size={JOURNAL_MIB}", "-E", features, str(disk)),
    )
    _run("debugfs", "-w", "-R", "rmdir lost+found", str(disk))


def _run(*command: str) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PROGRAMS}"
    try:
        done = subprocess.run(
            command, env={"PATH": path}, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError:
        raise OSError(2, f"{command[0]} (package e2fsprogs) is not installed") from None
    if done.returncode != 0:
        raise OSError(5, f"{command[0]}: {done.stderr.strip()[-200:]}")


@contextlib.contextmanager
def opened(disk: Path) -> Iterator[Path]:
    """Show what is in a disk, in a mount namespace that this process enters for good. Raise OSError."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", None, _MS_PRIVATE_ALL)
    with disk.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # one file system is not to be mounted from two devices
        device, name = loop.attach(disk)
        place = disk.with_name(f"{disk.name}.seen")
        place.mkdir(mode=0o700, exist_ok=True)
        try:
            linux.mount(name, str(place), KIND, _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
            try:
                yield place
            finally:
                linux.umount(str(place))
        finally:
            place.rmdir()
            os.close(device)


def main() -> int:
    verb, disk, archive, most = sys.argv[1:5]
    try:
        if verb != "pack":
            raise OSError(22, f"unknown verb {verb}")
        with opened(Path(disk)) as content:
            why_not = keep.why_not(content, int(most))
            if not why_not:
                keep.pack(content, Path(archive))
    except OSError as error:
        sys.stderr.write(str(error))
        return 1
    sys.stdout.write(why_not)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
