"""What many runtimes on one machine rely on: each ends in time, whatever it does, and holds little while it lives."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from spawner.supervisor import linux, processes
from support.patience import Stopwatch, until_async
from tests.contract.contract_support import Bench, supervisor
from tests.contract.suite.harness import runs_a_cell

DEAF = "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass"
BOUND_SECONDS = 2.0


async def test_a_deaf_and_busy_runtime_is_gone_within_two_seconds_of_its_limit(bench: Bench) -> None:
    runtime = await bench.start()
    busy = asyncio.create_task(runtime.run(DEAF))
    await until_async(lambda: runs_a_cell(runtime))
    observed = await bench.backend.observe(runtime.id)
    assert observed is not None and observed.ready_boottime is not None
    with Stopwatch() as watch:
        deadline = linux.boottime() + 1.0
        life = deadline - observed.ready_boottime
        await bench.backend.set_limits(runtime.id, max_lifetime_seconds=life, idle_limit_seconds=600)
        reason = await bench.backend.wait_end(runtime.id)
    assert reason.code == "max_lifetime"
    assert reason.boottime is not None
    assert 0 <= reason.boottime - deadline < BOUND_SECONDS * watch.slowness
    with pytest.raises(Exception, match=r".*"):  # its websocket ended
        await busy


async def test_a_live_runtime_holds_one_watch_of_a_folder_at_most(bench: Bench) -> None:
    """A user may have 128 of them on an ordinary Linux, and others want some too."""
    runtime = await bench.start()
    pid = await supervisor(runtime)
    keeper_and_watchdog = processes.children_of(pid)
    assert keeper_and_watchdog
    assert [watches(one) for one in keeper_and_watchdog] == [0] * len(keeper_and_watchdog)
    assert watches(pid) <= 1  # that of the folder in which kernels appear


def watches(pid: int) -> int:
    found = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return sum("inotify" in link for link in found)
