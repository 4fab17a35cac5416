"""Keeping processes running, and ending them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from hub.installation import AlreadyRunning, hold, prepare, read_holder
from hub.settings import Settings
from hub.supervise import Program, Supervisor
from support.patience import PATIENCE, until_async


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def sleeper(tmp_path: Path, name: str = "sleeper") -> Program:
    return Program(name, [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / f"{name}.log")


async def test_a_killed_process_is_started_again_and_its_new_number_is_told(tmp_path: Path) -> None:
    written: list[dict[str, int]] = []
    supervisor = Supervisor(lambda: written.append(supervisor.pids()))
    restarted = asyncio.Event()

    async def told() -> None:
        restarted.set()

    program = sleeper(tmp_path)
    supervisor.start(Program(program.name, program.command, program.log_file, after_restart=told))
    supervisor.ready()
    await until_async(lambda: supervisor.pids())
    first = supervisor.pids()["sleeper"]
    os.kill(first, signal.SIGKILL)
    await until_async(lambda: supervisor.pids().get("sleeper") not in (None, first))
    async with asyncio.timeout(PATIENCE):
        await restarted.wait()
    assert written == [supervisor.pids()]
    assert written[0]["sleeper"] != first
    await supervisor.stop()
    assert not alive(first)
    assert supervisor.pids() == {}


async def test_a_process_that_ends_while_starting_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    supervisor = Supervisor()
    supervisor.start(
        Program(
            "bad", [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"], tmp_path / "bad.log"
        )
    )
    async with asyncio.timeout(PATIENCE):
        failure = await supervisor.first_failure
    assert "status 3" in str(failure)
    assert "no such thing" in str(failure)
    await supervisor.stop()


async def test_a_process_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    code = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    supervisor = Supervisor()
    supervisor.start(Program("deaf", [sys.executable, "-c", code], tmp_path / "deaf.log", stop_seconds=0.2))
    await until_async(
        lambda: (tmp_path / "deaf.log").exists() and "deaf" in (tmp_path / "deaf.log").read_text()
    )
    pid = supervisor.pids()["deaf"]
    await supervisor.stop()
    assert not alive(pid)


async def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from hub.supervise import Program, Supervisor
async def main():
    s = Supervisor()
    s.start(Program("child", [sys.executable, "-c", "import time; time.sleep(600)"], Path({str(tmp_path)!r}) / "child.log"))
    while not s.pids():
        await asyncio.sleep(0.01)
    print(s.pids()["child"], flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert alive(child)
    parent.kill()
    await parent.wait()
    await until_async(lambda: not alive(child))


def test_a_state_folder_has_one_holder(tmp_path: Path) -> None:
    assert read_holder(tmp_path) is None
    with hold(tmp_path) as holder:
        holder.write("http://localhost:1", {"hub": 5})
        seen = read_holder(tmp_path)
        assert seen is not None
        assert seen.pid == os.getpid()
        with pytest.raises(AlreadyRunning, match=str(os.getpid())), hold(tmp_path):
            raise AssertionError("two holders")
    assert read_holder(tmp_path) is None


def test_tokens_and_internal_ports_survive_a_restart(tmp_path: Path) -> None:
    first = prepare(tmp_path, Settings(), 8123)
    second = prepare(tmp_path, Settings(), 8124)
    assert second.control_token == first.control_token
    assert second.ports.hub == first.ports.hub
    assert second.ports.public == 8124
    assert len({*vars(second.ports).values()}) == 5
