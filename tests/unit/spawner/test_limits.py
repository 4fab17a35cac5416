"""Limits, processes and what a runtime's own code may have written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spawner.model import Shape
from spawner.supervisor import limits, linux, processes
from spawner.supervisor.limits import find_groups, make_groups
from spawner.supervisor.safe_read import parse_object, read_object

SHAPE = Shape("S", 1 << 28, 1.5, 64)


def fake_v2(root: Path, *, controllers: bool) -> None:
    (root / "cgroup.controllers").write_text("memory pids cpu")
    folder = root / "minicolab" / "r-1"
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").touch()
    if controllers:
        for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max"):
            (folder / name).touch()
        (folder / "memory.current").write_text("5000")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 2000\n")
        (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
        (folder / "cpu.stat").write_text("usage_usec 2500000\n")


def test_v2_groups_get_every_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path)
    fake_v2(tmp_path, controllers=True)
    groups = make_groups("r-1", SHAPE)
    folder = tmp_path / "minicolab" / "r-1"
    assert groups.limited == {"memory", "pids", "cpu"}
    assert (folder / "memory.max").read_text() == str(1 << 28)
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "pids.max").read_text() == "64"
    assert (folder / "cpu.max").read_text() == "150000 100000"
    assert (groups.memory_used(), groups.oom_kills(), groups.cpu_seconds()) == (3000, 2, 2.5)


def test_a_group_without_controllers_limits_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that may make groups but not divide resources."""
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path)
    fake_v2(tmp_path, controllers=False)
    groups = make_groups("r-1", SHAPE)
    assert groups.limited == frozenset()
    assert groups.memory_used() is None
    assert not (tmp_path / "minicolab" / "r-1" / "memory.max").exists()


def test_without_any_control_groups_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path)
    groups = make_groups("r-1", SHAPE)
    assert (groups.folders, groups.limited, find_groups("r-1").folders) == ((), frozenset(), ())


def test_every_descendant_is_found_and_killed_also_one_that_ran_away() -> None:
    code = (
        "import subprocess, sys\n"
        "from spawner.supervisor import linux, processes\n"
        "linux.adopt_orphans()\n"
        "subprocess.run(['sh', '-c', '(setsid sleep 300 &) ; (sleep 300 &)'])\n"
        "import os\nbefore = len(processes.below(os.getpid()))\nprocesses.kill_below(os.getpid())\n"
        "print(before, len(processes.below(os.getpid())))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=60, check=True
    )
    assert done.stdout.split() == ["2", "0"]


def test_the_memory_of_a_process_is_what_only_it_holds() -> None:
    held = bytearray(64 << 20)
    assert processes.memory(os.getpid()) > len(held)
    assert processes.memory(0) == 0


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"5", b'"x"', b"{", b"[" * 60000, b"\xff", b"{}" + b" " * 70000], ids=range(8)
)
def test_what_is_no_small_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_object(text)


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "good").write_text(json.dumps({"a": 1}))
    (tmp_path / "link").symlink_to(tmp_path / "good")
    os.mkfifo(tmp_path / "pipe")
    assert read_object(tmp_path, "good") == {"a": 1}
    for name in ("link", "pipe", "absent", "../" + tmp_path.name + "/good", "/etc/hostname"):
        with pytest.raises((OSError, ValueError)):
            read_object(tmp_path, name)


def test_a_timer_strikes_by_the_clock_that_runs_while_the_machine_sleeps() -> None:
    timer = linux.new_timer()
    try:
        linux.set_timer(timer, linux.boottime() + 3600)
        with pytest.raises(BlockingIOError):
            os.read(timer, 8)
        linux.set_timer(timer, linux.boottime() - 1)
        os.set_blocking(timer, True)
        assert int.from_bytes(os.read(timer, 8), sys.byteorder) == 1
    finally:
        os.close(timer)


def test_an_appearing_file_wakes_the_watch_of_its_folder(tmp_path: Path) -> None:
    watch = linux.watch_folder(str(tmp_path))
    try:
        (tmp_path / "draft").touch()
        (tmp_path / "draft").rename(tmp_path / "ready.json")
        assert b"ready.json" in os.read(watch, 4096)
        with pytest.raises(OSError, match="watch"):
            linux.watch_folder(str(tmp_path / "absent"))
    finally:
        os.close(watch)


WITHOUT_WATCHES = """
import os, pathlib, select, sys
from spawner.supervisor import linux
uid = os.getuid()
linux.unshare(linux.CLONE_NEWUSER)
pathlib.Path("/proc/self/setgroups").write_text("deny")
pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
pathlib.Path("/proc/sys/user/max_inotify_instances").write_text("0")
try:
    linux.watch_folder(sys.argv[1])
    sys.exit("a watch was to be had")
except OSError:
    pass
watch = linux.watch_or_look(sys.argv[1])
for _ in range(3):  # again and again, also after it was read
    assert select.select([watch], [], [], 60)[0]
    os.read(watch, 4096)
"""


def test_where_a_user_has_no_watch_left_a_folder_is_looked_into_often(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", WITHOUT_WATCHES, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if "PermissionError" in done.stderr:
        pytest.skip("no user namespace of one's own on this machine")
    assert done.returncode == 0, done.stderr
    with pytest.raises(OSError, match="watch"):
        linux.watch_or_look(str(tmp_path / "absent"))
