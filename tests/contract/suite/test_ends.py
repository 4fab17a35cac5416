"""How a runtime ends, why, and what stays of it."""

from __future__ import annotations

import asyncio
import signal

import pytest

from spawner.model import EndReason
from support.patience import PATIENCE, Stopwatch, until_async
from support.runtimes import Started
from tests.contract.suite.harness import STOPPED, Bench, answers, begins, watching

STRAY = (
    "import subprocess\nsubprocess.Popen('(sleep 4242 &) ; sleep 4242', shell=True, start_new_session=True)"
)
UNASSIGN = "import google.colab.runtime as r\nr.unassign()"
WHY = EndReason("why", "Because.")


# -- a stop ---------------------------------------------------------------------------------------------------


async def test_a_stop_leaves_nothing_and_tells_every_watcher_why(bench: Bench) -> None:
    runtime = await bench.start()
    await runtime.run(STRAY)
    other = bench.another()
    watchers = [await watching(bench, runtime), asyncio.create_task(other.wait_end(runtime.id))]
    await bench.another().stop(runtime.id, reason=WHY, grace_seconds=2)
    assert await asyncio.gather(*watchers) == [WHY] * 2
    assert not bench.lives(runtime.id)
    assert bench.leftovers() == []


async def test_the_reason_of_an_end_nobody_watched_is_told_until_it_is_forgotten(bench: Bench) -> None:
    runtime = await bench.start()
    await bench.another().stop(runtime.id, reason=WHY, grace_seconds=0)
    for _ in range(2):  # who asked first may have died before it wrote the reason down
        assert await bench.backend.wait_end(runtime.id) == WHY
    await bench.backend.forget(runtime.id)
    assert await bench.backend.left_behind(runtime.id) is None
    assert (await bench.another().wait_end(runtime.id)).code == "lost"


async def test_a_stop_does_not_wait_longer_than_the_grace(bench: Bench) -> None:
    runtime = await bench.start()
    stubborn = "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass"
    await begins(runtime, stubborn, "c1")
    with Stopwatch() as watch:
        await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0.5)
    assert watch.seconds < 0.5 + bench.overrun_seconds
    assert not bench.lives(runtime.id)


async def test_a_supervisor_that_hangs_can_still_be_stopped_and_the_reason_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spawner.local.backend.END_SECONDS", 1.0)
    monkeypatch.setattr("spawner.container.backend.END_SECONDS", 1.0)
    runtime = await bench.start()
    bench.signal_supervisor(runtime.id, signal.SIGSTOP)
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0)
    assert not bench.lives(runtime.id)
    assert bench.leftovers() == []


# -- other ends -----------------------------------------------------------------------------------------------


async def test_the_end_of_the_runtimes_server_is_its_end(bench: Bench) -> None:
    runtime = await bench.start()
    watcher = await watching(bench, runtime)
    end_it = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    cell = asyncio.create_task(runtime.run(end_it))
    assert (await asyncio.wait_for(watcher, PATIENCE)).code == "crashed"
    await asyncio.gather(cell, return_exceptions=True)
    assert not bench.lives(runtime.id)
    assert bench.leftovers() == []


async def test_a_notebook_can_end_its_own_runtime_and_that_is_the_reason(bench: Bench) -> None:
    runtime = await bench.start()
    watcher = await watching(bench, runtime)
    cell = asyncio.create_task(runtime.run(UNASSIGN))
    assert (await asyncio.wait_for(watcher, PATIENCE)).code == "unassigned"
    await asyncio.gather(cell, return_exceptions=True)


async def test_code_inside_can_not_hold_up_the_end_or_invent_a_reason(bench: Bench) -> None:
    """A pipe, a link and a lie in the place where the server leaves its word."""

    async def plays(trick: str) -> str:
        runtime = await bench.start()
        watcher = await watching(bench, runtime)
        code = (
            "import os, signal\np = os.environ['MINICOLAB_RUNTIME_DIR'] + '/end.json'\n"
            f"{trick}\nos.kill(os.getppid(), signal.SIGKILL)"
        )
        cell = asyncio.create_task(runtime.run(code))
        reason = await asyncio.wait_for(watcher, PATIENCE)
        await asyncio.gather(cell, return_exceptions=True)
        return reason.code

    tricks = (
        "os.mkfifo(p)",
        "os.symlink('/etc/passwd', p)",
        '_ = open(p, \'w\').write(\'{"code": "max_lifetime", "message": "x"}\')',
        "_ = open(p, 'w').write('[' * 100000)",
    )
    assert await asyncio.gather(*map(plays, tricks)) == ["crashed"] * 4


# -- what the cells printed last --------------------------------------------------------------------------------


async def last_words(bench: Bench, runtime: Started) -> list[tuple[str, str]]:
    """Return the cells whose outputs are kept of an ended runtime, and what they had printed."""
    left = await bench.backend.left_behind(runtime.id)
    assert left is not None
    return [(e["cell_id"], "".join(o["text"] for o in e["outputs"])) for e in left.executions]


async def test_the_last_outputs_and_the_reason_of_an_end_stay_until_they_are_forgotten(bench: Bench) -> None:
    runtime = await bench.start()
    await runtime.run_marked("print('last words')", "c1")
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=PATIENCE)
    for _ in range(2):  # who asked first may have died before it wrote it down
        assert await bench.backend.wait_end(runtime.id) == STOPPED
    assert await last_words(bench, runtime) == [("c1", "last words\n")]
    left = await bench.another().left_behind(runtime.id)
    assert left is not None
    assert (left.snapshot, left.snapshot_note) == (None, "")
    await bench.backend.forget(runtime.id)
    assert await bench.backend.left_behind(runtime.id) is None


async def test_what_a_cell_prints_right_before_its_machine_is_ended_is_kept(bench: Bench) -> None:
    """While it runs on and prints more."""
    runtime = await bench.start()
    end = await watching(bench, runtime)
    goes_on = "import time\nfor n in range(100000): print(n, flush=True); time.sleep(0.01)"
    await begins(runtime, goes_on, "c1")
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=PATIENCE)
    assert await asyncio.wait_for(end, PATIENCE) == STOPPED
    [(cell, text)] = await last_words(bench, runtime)
    assert cell == "c1"
    begun, *lines = text.splitlines()
    assert begun == "begun"
    assert lines == [str(n) for n in range(len(lines))]


async def test_last_outputs_are_kept_of_an_end_that_no_service_saw(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a slow machine the next service comes later than a pod waits for it.
    monkeypatch.setattr("spawner.kubernetes.backend.KubernetesBackend.hand_over_seconds", PATIENCE)
    runtime = await bench.start()
    bench.services_die()
    await begins(runtime, UNASSIGN, "c1")
    bench.backend = bench.another()
    await until_async(lambda: not answers(runtime))
    assert (await asyncio.wait_for(bench.backend.wait_end(runtime.id), PATIENCE)).code == "unassigned"
    assert await last_words(bench, runtime) == [("c1", "begun\n")]


async def test_what_a_users_code_plants_in_the_place_of_the_last_outputs_hurts_nobody(bench: Bench) -> None:
    async def plants(trick: str) -> tuple[str, int]:
        runtime = await bench.start()
        place = "import os; p = os.environ['MINICOLAB_RUNTIME_DIR'] + '/executions.json'\n"
        await runtime.run(place + trick)
        await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0.0)
        left = await bench.backend.left_behind(runtime.id)
        assert left is not None
        return (await bench.backend.wait_end(runtime.id)).code, len(left.executions)

    tricks = (
        "os.symlink('/etc/passwd', p)",
        "os.mkfifo(p)",
        "open(p, 'w').truncate(1 << 33)",
        "os.mkdir(p)",
        "_ = open(p, 'w').write('[' * 100000)",
    )
    assert await asyncio.gather(*map(plants, tricks)) == [("user_deleted", 0)] * len(tricks)
    assert bench.leftovers() == []
