"""Memory, life, idleness, budgets: held by the runtime itself, whoever is dead, and told truly."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from spawner.model import Budget, EndReason, Shape
from spawner.ports import BackendError
from spawner.supervisor.linux import boottime
from support.kernel import Kernel
from support.patience import PATIENCE, Stopwatch, until_async
from support.runtimes import Started
from tests.contract.contract_support import STOP_ALL, command_of, processes_of
from tests.contract.suite.harness import Bench, runs_a_cell, watching

USED_UP = EndReason("budget_used_up", "The budget 'gpu' is used up.")
TINY = Shape("TINY", 400 << 20, 1.0, 200)
HOG = "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'x = bytearray(800 << 20); print(len(x))'], capture_output=True, text=True))"


def has_stopped(runtime_id: str) -> bool:
    """Return whether a process of a runtime on this machine is stopped."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (process / "stat").read_bytes().rpartition(b")")[2].split()[0]
            if state == b"T" and runtime_id.encode() in (process / "environ").read_bytes():
                return True
    return False


# -- memory ---------------------------------------------------------------------------------------------------


async def test_a_program_that_takes_too_much_memory_is_killed_and_counted_and_the_runtime_lives_on(
    bench: Bench,
) -> None:
    runtime = await bench.start(shape=TINY)
    out = await runtime.run(HOG)
    assert "returncode=-9" in out or "MemoryError" in out, out
    assert await runtime.run("print('still here')") == "still here\n"
    resources = await bench.backend.resources(runtime.id)
    assert resources.memory_limit == TINY.memory_bytes
    if "returncode=-9" in out:
        assert resources.oom_kills >= 1


async def test_a_cell_that_takes_too_much_memory_is_told_so_and_its_kernel_comes_back(bench: Bench) -> None:
    runtime = await bench.start(shape=TINY)

    def hog() -> None:
        kernel = Kernel(runtime.url, runtime.ticket())
        kernel.send("execute_request", {"code": "x = bytearray(900 << 20)\nprint('had it')", "silent": False})
        ended = False
        while not ended:
            message = kernel.receive()
            kind, content = message["msg_type"], message["content"]
            assert not (kind == "stream" and "had it" in content["text"]), "the limit was not held"
            ended = kind == "error" or content.get("execution_state") in ("restarting", "dead")
        kernel.close()

    await asyncio.wait_for(asyncio.to_thread(hog), 2 * PATIENCE)
    assert await runtime.run("print('again')") == "again\n"


async def test_a_machine_whose_server_is_killed_for_memory_says_so(bench: Bench) -> None:
    """Many small programs fill the memory, and the kernel picks the runtime's own server."""
    runtime = await bench.start(shape=TINY)
    if not await kills_for_memory(bench, runtime):
        pytest.skip(
            "nothing counts memory for many processes together on this rung, so nobody is killed for it"
        )
    [server] = servers_of(runtime.id) or [None]
    if server is None:
        pytest.skip("the runtime runs on another machine")
    Path(f"/proc/{server}/oom_score_adj").write_text("1000")
    end = await watching(bench, runtime)
    code = (
        "import subprocess, sys, time\n"
        "for _ in range(30):\n"
        "    subprocess.Popen([sys.executable, '-S', '-c', 'b = bytearray(20 << 20); import time; time.sleep(600)'])\n"
        "time.sleep(600)\n"
    )
    hungry = asyncio.create_task(runtime.run(code))
    assert (await asyncio.wait_for(end, PATIENCE)).code == "out_of_memory"
    hungry.cancel()
    await asyncio.gather(hungry, return_exceptions=True)


def servers_of(runtime_id: str) -> list[int]:
    """Return the processes of this machine that are the runtime's server."""
    commands = {pid: command_of(pid) for pid in processes_of(runtime_id)}
    return [
        pid for pid, line in commands.items() if b"minicolab_runtime.server" in line and b"bwrap" not in line
    ]


async def kills_for_memory(bench: Bench, runtime: Started) -> bool:
    """Return whether a program that takes too much is killed, rather than refused the memory."""
    await runtime.run(HOG)
    return (await bench.backend.resources(runtime.id)).oom_kills > 0


async def test_a_cell_that_was_killed_for_memory_is_not_the_reason_of_a_later_end(bench: Bench) -> None:
    runtime = await bench.start(shape=TINY)
    await runtime.run(HOG)
    await bench.backend.set_limits(runtime.id, max_lifetime_seconds=0.5, idle_limit_seconds=300.0)
    await until_async(lambda: not bench.lives(runtime.id))
    assert (await bench.another().wait_end(runtime.id)).code == "max_lifetime"


# -- life, idleness, budget -----------------------------------------------------------------------------------


async def test_the_longest_life_holds_with_every_service_dead_though_the_user_stops_all_he_can(
    bench: Bench,
) -> None:
    """This process only looks whether anything of it runs: no service acts. Its reason is found later."""
    runtime = await bench.start()
    if bench.apart:
        # What stops its own server is not told by it.
        kernel = await asyncio.to_thread(Kernel, runtime.url, runtime.ticket())
        kernel.send("execute_request", {"code": STOP_ALL, "silent": False}, metadata={"cellId": "c1"})
        await until_async(lambda: has_stopped(runtime.id), "nothing inside was stopped")
    ready = await bench.backend.observe(runtime.id)
    assert ready is not None and ready.ready_boottime is not None
    with Stopwatch() as watch:
        life = boottime() - ready.ready_boottime + 2.0
        await bench.backend.set_limits(runtime.id, max_lifetime_seconds=life, idle_limit_seconds=300.0)
        bench.services_die()
        await until_async(lambda: not bench.lives(runtime.id))
    over = boottime() - ready.ready_boottime - life
    assert -0.5 < over < bench.overrun_seconds * watch.slowness
    reason = await asyncio.wait_for(bench.another().wait_end(runtime.id), PATIENCE)
    assert reason.code == "max_lifetime"
    assert "longest life" in reason.message
    assert reason.boottime is not None
    assert await bench.another().list_all() == []


async def test_an_idle_runtime_is_ended_and_a_silent_busy_one_is_not(bench: Bench) -> None:
    idle, busy = await asyncio.gather(bench.start(), bench.start())
    cell = asyncio.create_task(busy.run("import time; time.sleep(4); print('done')"))
    # A kernel takes its time to start: the limit holds from here on.
    await until_async(lambda: runs_a_cell(busy))
    for runtime in (idle, busy):
        limits = {"max_lifetime_seconds": 600.0, "idle_limit_seconds": 1.5}
        await bench.backend.set_limits(runtime.id, **limits)
    with Stopwatch() as watch:
        reason = await asyncio.wait_for(bench.backend.wait_end(idle.id), PATIENCE)
    assert watch.seconds < 1.5 + bench.overrun_seconds
    assert (reason.code, reason.message) == ("idle", "Idle for 1.5 seconds (limit 1.5 seconds).")
    assert await cell == "done\n"
    assert (await asyncio.wait_for(bench.backend.wait_end(busy.id), PATIENCE)).code == "idle"


async def test_a_persons_action_begins_the_idle_time_anew(bench: Bench) -> None:
    runtime = await bench.start(idle_limit_seconds=3.0)
    watcher = asyncio.create_task(bench.backend.wait_end(runtime.id))
    begun = time.monotonic()
    while time.monotonic() - begun < 5:
        await asyncio.sleep(0.1)
        await bench.backend.touch(runtime.id)
    assert not watcher.done()
    assert (await asyncio.wait_for(watcher, PATIENCE)).code == "idle"


async def test_limits_can_be_changed_while_it_lives(bench: Bench) -> None:
    runtime = await bench.start()
    end = await watching(bench, runtime)
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(BackendError) as refused:
            await bench.backend.set_limits(runtime.id, max_lifetime_seconds=bad, idle_limit_seconds=600)
        assert refused.value.code in ("bad_request", "too_long")
    await bench.backend.set_limits(runtime.id, max_lifetime_seconds=0.5, idle_limit_seconds=600)
    with Stopwatch() as watch:
        assert (await asyncio.wait_for(end, PATIENCE)).code == "max_lifetime"
    assert watch.seconds < 0.5 + bench.overrun_seconds


async def test_a_budget_ends_it_with_its_own_reason(bench: Bench) -> None:
    one, two = await asyncio.gather(bench.start(budget=Budget(1.0, USED_UP)), bench.start())
    assert await bench.backend.wait_end(one.id) == USED_UP
    limits = {"max_lifetime_seconds": 600.0, "idle_limit_seconds": 600.0}
    await bench.backend.set_limits(two.id, **limits, budget=Budget(0.5, USED_UP))
    assert await bench.backend.wait_end(two.id) == USED_UP
    assert bench.leftovers() == []
