"""Who holds a runtime's limits when the one that should is stopped, hangs or is gone. On every rung of the local backend."""

from __future__ import annotations

import asyncio
import os
import signal
import tarfile
from pathlib import Path

import pytest

from spawner.local.backend import LocalBackend
from spawner.supervisor import linux, processes, watchdog, wire
from support.kernel import Kernel
from support.patience import PATIENCE, Stopwatch, until_async
from tests.contract.contract_support import (
    STOP_ALL,
    STOPPED,
    Bench,
    Runtime,
    command_of,
    nothing_left,
    watching,
)

pytestmark = pytest.mark.slow  # they wait for limits and for those who watch over limits

STRAY = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"


async def let_end(runtime: Runtime, backend: LocalBackend, limit: str, seconds: float) -> None:
    """Set the limits of a runtime so that one of them is reached in about so many seconds."""
    observed = await backend.observe(runtime.id)
    assert observed is not None and observed.ready_boottime is not None
    age = linux.boottime() - observed.ready_boottime
    await backend.set_limits(
        runtime.id,
        max_lifetime_seconds=age + (seconds if limit == "max_lifetime" else 600),
        idle_limit_seconds=seconds if limit == "idle" else 300,
    )


async def guardians(runtime: Runtime) -> tuple[int, int]:
    """Return the process ids of the supervisor and its watchdog."""
    _, writer = await wire.connect(runtime.folder)
    supervisor, _ = wire.peer(writer.get_extra_info("socket"))
    writer.close()
    found: list[int] = []

    def look() -> list[int]:
        # The keeper of the plain rung looks the same, but has the runtime's server below it.
        ours = [pid for pid in same_program(supervisor) if parent(pid) == supervisor]
        found[:] = [pid for pid in ours if not processes.children_of(pid)]
        return found

    await until_async(look, "no watchdog came")
    assert len(found) == 1
    return supervisor, found[0]


def same_program(pid: int) -> list[int]:
    """Return the processes with the command line of `pid` that lead a session of their own, without itself."""
    line = command_of(pid)
    others = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [other for other in others if other != pid and command_of(other) == line and leads(other)]


def fields(pid: int) -> list[str]:
    """Return what /proc tells of a process after its name: state, parent, group, session..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0", "0", "0"]


def parent(pid: int) -> int:
    return int(fields(pid)[1])


def leads(pid: int) -> bool:
    return int(fields(pid)[3]) == pid


def stopped(pid: int) -> bool:
    return fields(pid)[0] == "T"


def lives(pid: int) -> bool:
    return fields(pid)[0] not in "XZ"


# -- a supervisor that does not act ---------------------------------------------------------------------------


async def test_a_supervisor_that_was_stopped_is_sent_on_its_way_and_ends_the_runtime(bench: Bench) -> None:
    runtime = await bench.start()
    await runtime.run(STRAY)
    supervisor, _ = await guardians(runtime)
    await let_end(runtime, bench.backend, "max_lifetime", 1.0)
    with Stopwatch() as watch:
        os.kill(supervisor, signal.SIGSTOP)
        await until_async(lambda: not runtime.folder.exists())
    assert watch.seconds < 1 + 8
    assert (await bench.another().wait_end(runtime.id)).code == "max_lifetime"
    await nothing_left(bench)


async def hang(runtime: Runtime, backend: LocalBackend) -> None:
    """Let the supervisor wait for ever, as on a dead disk: its log is a pipe that nobody writes."""
    log = runtime.folder / "server.log"
    log.unlink()
    os.mkfifo(log)
    with pytest.raises(wire.NoAnswer):
        await wire.call(runtime.folder, {"op": "logs"}, seconds=0.3)


@pytest.mark.parametrize("limit", ["max_lifetime", "idle"])
async def test_a_supervisor_that_hangs_is_killed_with_the_runtime_and_what_it_owed_is_left(
    bench: Bench, limit: str
) -> None:
    runtime = await bench.start(snapshot_bytes=1 << 20)
    await runtime.run(f"{STRAY}\nopen('result.txt', 'w').write('kept')")
    supervisor, _ = await guardians(runtime)
    with Stopwatch() as watch:
        await let_end(runtime, bench.backend, limit, 2.0)
        await hang(runtime, bench.backend)
        await until_async(lambda: not runtime.folder.exists())
    assert not lives(supervisor)
    assert watch.seconds < 2 + 8
    reason = await bench.another().wait_end(runtime.id)
    assert reason.code == limit
    assert reason.boottime is not None
    left = await bench.backend.left_behind(runtime.id)
    assert left is not None and left.snapshot is not None
    with tarfile.open(left.snapshot) as archive:
        assert any(name.endswith("result.txt") for name in archive.getnames())
    await bench.backend.forget(runtime.id)
    await nothing_left(bench)


async def test_a_supervisor_that_hangs_before_any_limit_is_left_alone(bench: Bench) -> None:
    """Who only looks longer than a watchdog would wait must not lose a runtime."""
    runtime = await bench.start()
    supervisor, _ = await guardians(runtime)
    os.kill(supervisor, signal.SIGSTOP)
    await asyncio.sleep(watchdog.LATE_SECONDS + watchdog.SILENT_SECONDS + 1)
    assert stopped(supervisor)
    assert await runtime.run("print('here')") == "here\n"
    os.kill(supervisor, signal.SIGCONT)
    assert await bench.backend.observe(runtime.id) is not None


async def test_longer_limits_reach_the_watchdog(bench: Bench) -> None:
    runtime = await bench.start()
    supervisor, _ = await guardians(runtime)
    await bench.backend.touch(runtime.id)
    limits = {"max_lifetime_seconds": 600.0, "idle_limit_seconds": 3.0}
    await bench.backend.set_limits(runtime.id, **limits)
    await bench.backend.set_limits(runtime.id, **{**limits, "idle_limit_seconds": 300.0})
    os.kill(supervisor, signal.SIGSTOP)
    await asyncio.sleep(3.0 + watchdog.LATE_SECONDS + watchdog.SILENT_SECONDS + 1)
    assert lives(supervisor) and stopped(supervisor)
    os.kill(supervisor, signal.SIGCONT)
    assert await runtime.run("print('here')") == "here\n"


# -- a watchdog that does not watch ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_watchdog_that_is_killed_or_stopped_is_replaced(bench: Bench, number: signal.Signals) -> None:
    runtime = await bench.start()
    supervisor, first = await guardians(runtime)
    os.kill(first, number)
    await until_async(lambda: not lives(first))
    again, second = await guardians(runtime)
    assert (again, second) == (supervisor, second) and second != first
    # The new one knows the limits.
    await let_end(runtime, bench.backend, "max_lifetime", 1.0)
    os.kill(supervisor, signal.SIGSTOP)
    assert (await bench.another().wait_end(runtime.id)).code == "max_lifetime"
    await nothing_left(bench)


async def test_a_killed_supervisor_takes_its_watchdog_and_all_processes_along(bench: Bench) -> None:
    runtime = await bench.start()
    await runtime.run(STRAY)
    supervisor, _ = await guardians(runtime)
    watcher = await watching(runtime, bench.backend)
    with Stopwatch() as watch:
        os.kill(supervisor, signal.SIGKILL)
        assert (await watcher).code == "lost"
    assert watch.seconds < 2
    await nothing_left(bench)


# -- a user who stops what he can reach -----------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_lifetime", "idle"])
async def test_who_stops_every_process_he_can_see_lives_no_longer(isolated: Bench, limit: str) -> None:
    runtime = await isolated.start()
    await asyncio.to_thread(execute_and_leave, runtime, STOP_ALL)
    await until_async(lambda: all(stopped(pid) for pid in kernels(runtime)) and kernels(runtime))
    supervisor, _ = await guardians(runtime)
    assert not stopped(supervisor)
    with Stopwatch() as watch:
        await let_end(runtime, isolated.backend, limit, 1.0)
        await until_async(lambda: not runtime.folder.exists())
    assert watch.seconds < 1 + 5
    await nothing_left(isolated)


def execute_and_leave(runtime: Runtime, code: str) -> None:
    """Send a cell to a new kernel and do not wait for its end."""
    kernel = Kernel(runtime.url, runtime.ticket())
    kernel.send("execute_request", {"code": code, "silent": False, "store_history": True})
    kernel.close()


def kernels(runtime: Runtime) -> list[int]:
    return [pid for pid in runtime.processes() if b"minicolab_runtime.kernel" in command_of(pid)]


async def test_a_stopped_server_ends_in_order_all_the_same(bench: Bench) -> None:
    """It is sent on its way together with the request to end, so it needs none of the grace."""
    runtime = await bench.start()
    server = [
        pid
        for pid in runtime.processes()
        if b"minicolab_runtime.server" in command_of(pid) and b"bwrap" not in command_of(pid)
    ]
    os.kill(server[0], signal.SIGSTOP)
    with Stopwatch() as watch:
        await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=PATIENCE)
    assert watch.seconds < PATIENCE / 2
    await nothing_left(bench)
