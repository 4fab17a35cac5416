"""What code inside finds, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from spawner.ports import BackendError
from support.patience import PATIENCE
from tests.contract.suite.harness import STOPPED, Bench


async def test_inside_is_a_working_folder_with_samples_and_no_secret(bench: Bench) -> None:
    runtime = await bench.start()
    code = (
        "import json, os\n"
        "print(json.dumps({'samples': sorted(os.listdir('sample_data')), 'tag': 'COLAB_RELEASE_TAG' in os.environ,"
        "'owner': os.stat(os.environ['HOME']).st_uid == os.geteuid(), 'tmp': os.access('/tmp', os.W_OK),"
        "'secrets': [n for n in ('MINICOLAB_SPEC', 'MINICOLAB_TICKET_KEY_FILE') if n in os.environ],"
        "'transport': __import__('ipykernel.kernelapp').kernelapp.IPKernelApp.instance().transport}))"
    )
    out = json.loads(await runtime.run(code))
    assert out.pop("samples")
    assert out == {"tag": True, "owner": True, "tmp": True, "secrets": [], "transport": "ipc"}


async def test_a_kernel_keeps_its_state_from_cell_to_cell_and_runtimes_share_nothing(bench: Bench) -> None:
    one, other = await asyncio.gather(bench.start("ada"), bench.start("bob"))
    await one.run("open('mine', 'w').write('ada')")
    assert await one.run("print(open('mine').read())") == "ada\n"
    assert "FileNotFoundError" in await other.run("open('mine')")


async def test_resources_activity_and_log_can_be_looked_at(bench: Bench) -> None:
    runtime = await bench.start()
    before = await bench.backend.resources(runtime.id)
    used = time.monotonic()
    await runtime.run("open('big', 'wb').write(b'x' * (8 << 20))")
    after = await bench.backend.resources(runtime.id)
    assert after.disk_used - before.disk_used >= 8 << 20
    assert after.disk_free > 0
    assert after.processes >= 2
    assert 0 < after.memory_used < runtime.spec.shape.memory_bytes
    assert after.memory_limit == runtime.spec.shape.memory_bytes
    activity = await bench.backend.activity(runtime.id)
    assert not activity.busy
    assert activity.seconds_ago <= time.monotonic() - used + 0.001  # the server tells milliseconds
    assert "Serving notebooks" in await bench.backend.logs(runtime.id)


async def test_a_running_cell_is_seen_from_outside(bench: Bench) -> None:
    runtime = await bench.start()
    cell = asyncio.create_task(
        runtime.run("import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\nprint('done')")
    )
    async with asyncio.timeout(PATIENCE):
        while not (await bench.backend.activity(runtime.id)).busy:
            await asyncio.sleep(0.05)
    await runtime.run("open('go', 'w').close()")
    assert await cell == "done\n"


async def test_what_is_gone_is_answered_as_gone(bench: Bench) -> None:
    runtime = await bench.start()
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0)
    assert await bench.backend.observe(runtime.id) is None
    assert await bench.backend.list_all() == []
    for call in (bench.backend.resources, bench.backend.activity, bench.backend.mounts, bench.backend.logs):
        with pytest.raises(BackendError) as gone:
            await call(runtime.id)
        assert gone.value.code == "no_such_runtime"
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0)
