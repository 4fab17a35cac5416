"""Binding a drive into a mount namespace whose root is another user of this machine, as a remapping engine makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawner.docker import bind

ROOT = Path(__file__).parents[3]
REMAPPED = 200_000
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

# A container's first process: in a user and a mount namespace of its own, with an empty /drives of its root's.
FIRST = """
import os, sys
from spawner.supervisor import linux
linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
print("made", flush=True)
sys.stdin.readline()  # its users are mapped by now
os.setgid(0)
os.setuid(0)
linux.mount("none", "/", None, linux.MS_PRIVATE | linux.MS_REC)
linux.mount("tmpfs", "/mnt", "tmpfs", 0)
os.mkdir("/mnt/drives")
linux.mount("tmpfs", "/mnt/drives", "tmpfs", 0, "mode=0755")
linux.mount("/mnt", "/", None, linux.MS_BIND | linux.MS_REC)
print("ready", flush=True)
sys.stdin.readline()
"""

# What root inside does: it finds the file it makes to be its own.
WRITE = """
import os, sys
from spawner.supervisor import linux
kinds = {"user": linux.CLONE_NEWUSER, "mnt": linux.CLONE_NEWNS}
opened = [(os.open(f"/proc/{sys.argv[1]}/ns/{kind}", os.O_RDONLY), flag) for kind, flag in kinds.items()]
for fd, flag in opened:
    linux.setns(f"/proc/self/fd/{fd}", flag)
os.setgid(0)
os.setuid(0)
print(os.fstat(os.open("/drives/0123456789ab/new.txt", os.O_CREAT | os.O_WRONLY)).st_uid)
"""


@pytest.fixture
def container() -> Iterator[int]:
    """The first process of something like a container."""
    first = subprocess.Popen(
        [sys.executable, "-c", FIRST],
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin is not None and first.stdout is not None
    try:
        assert first.stdout.readline() == "made\n"
        for kind in ("uid", "gid"):
            Path(f"/proc/{first.pid}/{kind}_map").write_text(f"0 {REMAPPED} 65536")
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.stdout.readline() == "ready\n"
        yield first.pid
    finally:
        first.kill()
        first.wait()


def run(pid: int, verb: str, source: Path, name: str) -> None:
    command = [
        sys.executable,
        "-S",
        "-m",
        bind.__name__,
        str(pid),
        verb,
        str(source),
        name,
        "0",
        str(REMAPPED),
    ]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_drive_is_bound_where_this_machines_root_is_nobody_and_goes_again(
    container: int, tmp_path: Path
) -> None:
    (tmp_path / "old.txt").write_text("from before")
    run(container, "mount", tmp_path, "0123456789ab")
    mounted = Path(f"/proc/{container}/mountinfo").read_text()
    assert "/drives/0123456789ab" in mounted
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(container)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert (tmp_path / "new.txt").stat().st_uid == os.geteuid()  # a drive's files are its owner's
    run(container, "umount", tmp_path, "0123456789ab")
    assert "/drives/0123456789ab" not in Path(f"/proc/{container}/mountinfo").read_text()
    assert (tmp_path / "old.txt").read_text() == "from before"
