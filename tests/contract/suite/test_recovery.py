"""Hub, control and supervisor are killed; the runtime, or its end, is found all the same."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from spawner.ports import BackendError
from support.patience import PATIENCE, until_async
from support.runtimes import Started
from tests.contract.suite.harness import STOPPED, Bench, process, says, watching


async def test_the_death_of_the_hub_disturbs_no_runtime_and_the_next_one_finds_it(bench: Bench) -> None:
    spec = bench.spec()
    bench.adopt(spec)
    code = (
        f"spec = {spec!r}\n"
        "async def main():\n"
        "    endpoint = await backend.start(spec, lambda phase, sentence='': None)\n"
        "    print(endpoint.host, endpoint.port, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    async with process(bench, code) as hub:
        host, port = (await says(hub)).split()
        os.killpg(hub.pid, signal.SIGKILL)
        hub.wait()
    [found] = await bench.backend.list_all()
    assert (found.id, found.user, found.file_id, found.state) == (spec.id, "ada", "f-1", "ready")
    assert found.endpoint is not None
    assert (found.endpoint.host, found.endpoint.port) == (host, int(port))
    assert found.ready_boottime is not None
    assert await Started(spec, found.endpoint).run("print('undisturbed')") == "undisturbed\n"


async def test_a_hub_that_dies_while_it_starts_a_runtime_leaves_one_that_can_be_found_and_ended(
    bench: Bench,
) -> None:
    """Intent, kill, then look at reality."""
    spec = bench.spec()
    bench.adopt(spec)
    code = (
        f"spec = {spec!r}\n"
        "def die(phase, sentence=''):\n"
        "    if phase is Phase.SERVER: os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(backend.start(spec, die))\n"
    )
    async with process(bench, code) as hub:
        assert await asyncio.to_thread(hub.wait) == -signal.SIGKILL
    await bench.backend.stop(spec.id, reason=STOPPED, grace_seconds=0)
    assert not bench.lives(spec.id)
    assert bench.leftovers() == []


async def test_a_running_cell_does_not_notice_that_control_is_killed_and_the_next_one_carries_on(
    bench: Bench,
) -> None:
    runtime = await bench.start()
    go_on = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\nprint('through')"
    cell = asyncio.create_task(runtime.run(go_on))
    code = (
        "async def main():\n"
        f"    watcher = asyncio.create_task(backend.wait_end({runtime.id!r}))\n"
        f"    for _ in range(2): await backend.observe({runtime.id!r})\n"
        "    print('watching', flush=True)\n"
        "    await watcher\n"
        "asyncio.run(main())\n"
    )
    async with process(bench, code) as control:
        assert await says(control) == "watching"
        os.killpg(control.pid, signal.SIGKILL)
        control.wait()
    following = bench.another()
    assert [o.id for o in await following.list_all()] == [runtime.id]
    await runtime.run("open('go', 'w').close()")
    assert await cell == "through\n"
    end = asyncio.create_task(following.wait_end(runtime.id))
    await following.set_limits(runtime.id, max_lifetime_seconds=0.5, idle_limit_seconds=300.0)
    assert (await asyncio.wait_for(end, PATIENCE)).code == "max_lifetime"


async def test_killing_the_supervisor_ends_everything_and_is_noticed(bench: Bench) -> None:
    runtime = await bench.start()
    stray = "import subprocess\nsubprocess.Popen(['sleep', '4242'], start_new_session=True)"
    await runtime.run(stray)
    watcher = await watching(bench, runtime)
    bench.signal_supervisor(runtime.id, signal.SIGKILL)
    assert (await asyncio.wait_for(watcher, PATIENCE)).code in ("lost", "crashed")
    assert not bench.lives(runtime.id)
    assert bench.leftovers() == []


async def test_the_end_of_a_killed_supervisor_that_nobody_watched_is_found_and_cleared_away(
    bench: Bench,
) -> None:
    runtime = await bench.start()
    bench.signal_supervisor(runtime.id, signal.SIGKILL)
    await until_async(lambda: not bench.lives(runtime.id))
    assert await bench.another().observe(runtime.id) is None
    assert (await asyncio.wait_for(bench.another().wait_end(runtime.id), PATIENCE)).code in (
        "lost",
        "crashed",
    )
    async with asyncio.timeout(PATIENCE):
        # The last process may not have let go of the folder when we look first; the next look sweeps.
        while bench.leftovers():
            assert await bench.another().list_all() == []


async def test_another_start_of_the_same_notebook_is_another_runtime(bench: Bench) -> None:
    """What ended does not come back under a later one's name."""
    first = await bench.start()
    await first.run("open('of the first', 'w').close()")
    await bench.backend.stop(first.id, reason=STOPPED, grace_seconds=0)
    second = await bench.start()
    assert second.id != first.id
    assert await second.run("import os; print(os.path.exists('of the first'))") == "False\n"
    with pytest.raises(BackendError) as gone:
        await bench.backend.resources(first.id)
    assert gone.value.code == "no_such_runtime"
