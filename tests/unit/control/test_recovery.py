"""Control is killed at every step of a runtime's life, and what is left agrees again afterwards (R1)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from control_support import World, world

from hub.setup.runtime_environment import environment_for
from quota.model import State
from quota.service import new_runtime_id
from support.patience import PATIENCE, until_async

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PYTHON_PATH = f"{ROOT}:{HERE}:{ROOT / 'tests'}"


@asynccontextmanager
async def control_process(
    here: World, runner: str = "run_control.py"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run control in its own process until it answers; it is killed afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / runner),
        "--state",
        str(here.service.state),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PYTHON_PATH},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await here.call(None, "GET", "/services/control/healthz")
                    break
                except aiohttp.ClientError:
                    assert process.returncode is None, "control ended"
                    await asyncio.sleep(0.02)
        yield process
    finally:
        await kill(process)


async def kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "state", control=False) as it:
        yield it


def row(here: World, runtime_id: str) -> Any:
    session = here.control.sessions.ledger.get(runtime_id)
    assert session is not None
    return session


async def start(here: World, file_id: str = "nb-ada") -> str:
    status, model = await here.call("ada", "POST", "runtimes", {"file_id": file_id})
    assert status == 202, model
    return str(model["id"])


STEPS = ["preparing", "asked-hub-goes-on", "asked-hub-dies-too", "machine-made-hub-forgot", "ready"]


@pytest.mark.parametrize("step", STEPS)
async def test_killed_while_starting_the_same_runtime_becomes_ready_and_is_the_only_one(
    outside: World, step: str
) -> None:
    here = outside
    environment = environment_for("default")[1]
    if step == "preparing":
        (environment.folder / "complete").unlink()
    elif step != "ready":
        here.hub.gate.clear()
    async with control_process(here) as first:
        runtime = await start(here)
        if step == "preparing":
            await until_async(lambda: row(here, runtime).phase == "preparing")
        elif step == "ready":
            await until_async(lambda: row(here, runtime).state == "ready")
        else:
            await here.hub.asked.wait()
        await kill(first)
    if step == "preparing":
        environment.mark_pins_complete()
        environment.code.mkdir(parents=True, exist_ok=True)
    if step == "asked-hub-dies-too":
        here.hub.die()
    if step == "machine-made-hub-forgot":
        here.hub.die()
        here.backend.put(runtime)
    here.hub.gate.set()
    async with control_process(here):
        await until_async(lambda: row(here, runtime).state == "ready")
        assert [o.id for o in await here.backend.list_all()] == [runtime]
        assert list(here.hub.servers) == [runtime]
        status, again = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
        assert (status, again["id"]) == (200, runtime)


async def test_killed_while_ending_the_end_is_carried_on_with_its_reason(outside: World) -> None:
    here = outside
    async with control_process(here) as first:
        runtime = await start(here)
        await until_async(lambda: row(here, runtime).state == "ready")
        await kill(first)
    from quota.model import Reason

    here.control.sessions.ledger.take_over("the test", here.control.clock.now())
    here.control.sessions.stopping(runtime, Reason("admin", "An administrator ended the runtime."))
    async with control_process(here):
        await until_async(lambda: row(here, runtime).state == "ended")
        assert row(here, runtime).reason.code == "admin"
        assert await here.backend.list_all() == []
        await until_async(lambda: here.hub.servers == {})


async def test_what_happened_while_control_was_dead_is_found(outside: World) -> None:
    here = outside
    async with control_process(here) as first:
        crashed, alive = await start(here, "nb-ada"), await start(here, "nb-two")
        await until_async(lambda: {row(here, i).state for i in (crashed, alive)} == {"ready"})
        await kill(first)
    here.backend.crash(crashed, "out_of_memory")
    here.backend.put("r-aaaaaaaaaaaa")
    async with control_process(here):
        await until_async(lambda: row(here, crashed).state == "ended")
        assert row(here, crashed).reason.code == "out_of_memory"
        assert row(here, alive).state == "ready"
        assert [o.id for o in await here.backend.list_all()] == [alive]
        await until_async(lambda: list(here.hub.servers) == [alive])


async def test_servers_the_hub_was_never_told_about_are_forgotten(outside: World) -> None:
    here = outside
    async with control_process(here) as first:
        runtime = await start(here)
        await until_async(lambda: row(here, runtime).state == "ready")
        await here.call("ada", "DELETE", f"runtimes/{runtime}")
        await kill(first)
    here.hub.servers[runtime] = "ada"  # as when the hub was away when the runtime ended
    here.hub.servers["someone-elses"] = "ada"
    async with control_process(here):
        await until_async(lambda: runtime not in here.hub.servers)
        assert "someone-elses" in here.hub.servers


async def test_after_the_computer_was_restarted_its_runtimes_have_ended_and_say_why(outside: World) -> None:
    here = outside
    async with control_process(here) as first:
        runtime = await start(here)
        await until_async(lambda: row(here, runtime).state == "ready")
        await kill(first)
    session = row(here, runtime)
    here.control.sessions.ledger.take_over("the test", here.control.clock.now())
    other = replace(
        session, id=new_runtime_id(), file_id="nb-two", state=State.READY, boot_id="an earlier boot"
    )
    here.control.sessions.ledger.begin(other)
    async with control_process(here):
        await until_async(lambda: row(here, other.id).state == "ended")
        assert row(here, other.id).reason.code == "machine_restarted"
        assert row(here, runtime).state == "ready"


async def test_a_second_control_ends_with_75_and_names_the_first(outside: World) -> None:
    here = outside
    async with control_process(here) as first:
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "run_control.py"),
            "--state",
            str(here.service.state),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": PYTHON_PATH},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await second.communicate()
        assert second.returncode == 75
        assert f"process {first.pid}" in said.decode()
        assert (await here.call(None, "GET", "/services/control/healthz"))[0] == 200


async def test_one_that_lost_its_place_writes_nothing_and_ends_with_75(outside: World) -> None:
    here = outside
    async with control_process(here) as first:
        first.send_signal(signal.SIGSTOP)
        here.control.sessions.ledger.take_over("another machine", here.control.clock.now())
        first.send_signal(signal.SIGCONT)
        status, answer = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
        assert (status, answer["code"]) == (503, "not_in_charge")
        async with asyncio.timeout(PATIENCE):
            assert await first.wait() == 75
    assert here.control.sessions.ledger.live() == []


async def test_without_an_installation_the_settings_are_named(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hub.control",
        "--state",
        str(tmp_path),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 78
    assert "no installation was started here" in said.decode()
    assert "Traceback" not in said.decode()


async def test_on_a_cluster_the_restart_of_controls_computer_is_no_reason(outside: World) -> None:
    here = outside
    async with control_process(here) as first:
        runtime = await start(here)
        await until_async(lambda: row(here, runtime).state == "ready")
        await kill(first)
    session = row(here, runtime)
    here.control.sessions.ledger.take_over("the test", here.control.clock.now())
    other = replace(
        session,
        id=new_runtime_id(),
        file_id="nb-two",
        state=State.READY,
        boot_id="that of another node",
        backend="kubernetes",
    )
    here.control.sessions.ledger.begin(other)
    here.backend.put(other.id, file_id="nb-two")
    here.backend.crash(other.id, "evicted")
    async with control_process(here):
        await until_async(lambda: row(here, other.id).state == "ended")
        assert row(here, other.id).reason.code == "evicted"


async def test_control_answers_while_its_backend_does_not_and_takes_up_its_runtimes_later(
    outside: World,
) -> None:
    here = outside
    async with control_process(here) as first:
        runtime = await start(here)
        await until_async(lambda: row(here, runtime).state == "ready")
        await kill(first)
    here.backend.silence(True)
    async with control_process(here):
        assert row(here, runtime).state == "ready", "who does not answer is not gone"
        here.backend.silence(False)
        here.backend.crash(runtime)
        await until_async(lambda: row(here, runtime).state == "ended")
        assert row(here, runtime).reason.code == "crashed"
