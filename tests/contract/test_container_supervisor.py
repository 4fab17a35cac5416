"""What docker and kubernetes share, on an engine that is always there: bubblewrap with a pid namespace of its own.

The supervisor is the first process there, as in a container; what an engine adds (images, networks, limits) is tested with the engines.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spawner.container import link
from spawner.environment import RuntimeEnvironment
from spawner.model import EndReason, Phase, RuntimeSpec
from spawner.ports import BackendError
from spawner.supervisor.wire import SupervisorGone
from support.patience import PATIENCE, Stopwatch, until_async
from support.runtimes import a_spec
from tests.contract.bubblewrap_support import BubblewrapBackend, run, started

STOPPED = EndReason("user_deleted", "The runtime was ended by its user.")


@pytest.fixture
async def backend(tmp_path: Path, env: RuntimeEnvironment) -> AsyncIterator[BubblewrapBackend]:
    backend = BubblewrapBackend(tmp_path, env)
    yield backend
    for name in list(backend.containers):
        await backend._remove(name)


@pytest.fixture
async def handing(tmp_path: Path, env: RuntimeEnvironment) -> AsyncIterator[BubblewrapBackend]:
    """One whose containers take their files with them, and wait for whoever takes what their cells printed last."""
    backend = BubblewrapBackend(tmp_path, env, hand_over_seconds=2 * PATIENCE)
    yield backend
    for name in list(backend.containers):
        await backend._remove(name)


async def test_a_container_starts_answers_and_ends_with_the_reason_it_was_given(
    backend: BubblewrapBackend,
) -> None:
    spec, phases = a_spec(), []
    await backend.start(spec, lambda phase, sentence="": phases.append(phase))
    assert phases == [Phase.SANDBOX, Phase.SERVER, Phase.READY]
    assert (await run(backend, spec, "print(6 * 7)")).strip() == "42"
    observed = await backend.observe(spec.id)
    assert observed is not None
    assert observed.state == "ready"
    end = asyncio.create_task(backend.wait_end(spec.id))
    for _ in range(2):  # what is asked later is answered later: by then the supervisor knows who listens
        assert await backend.observe(spec.id) is not None
    await backend.stop(spec.id, reason=STOPPED, grace_seconds=3.0)
    assert await end == STOPPED
    assert await backend.list_all() == []


async def test_code_inside_can_neither_stop_nor_read_the_supervisor(backend: BubblewrapBackend) -> None:
    spec = a_spec()
    await backend.start(spec, lambda phase, sentence="": None)
    code = """
import os, signal
for number in (signal.SIGKILL, signal.SIGSTOP):
    os.kill(1, number)
for name in ("environ", "mem", "fd/1", "maps"):
    try:
        with open(f"/proc/1/{name}", "rb") as file:
            print(name, "read", len(file.read(10)))
    except OSError as error:
        print(name, "refused")
print("MINICOLAB_SPEC" in os.environ)
"""
    told = (await run(backend, spec, code)).split("\n")
    assert told[:5] == ["environ refused", "mem refused", "fd/1 refused", "maps refused", "False"]
    assert (await backend.activity(spec.id)).seconds_ago < 600


async def test_who_has_not_the_key_is_not_listened_to(backend: BubblewrapBackend) -> None:
    spec = a_spec()
    await backend.start(spec, lambda phase, sentence="": None)
    port = backend.containers[spec.id].supervisor_port
    with pytest.raises(SupervisorGone):
        await link.call(
            link.Address("127.0.0.1", port, b"x" * 32), {"op": "stop", "code": "x", "message": "x"}
        )
    assert await backend.observe(spec.id) is not None


async def test_the_longest_life_ends_it_though_its_user_stops_every_process_he_can(
    backend: BubblewrapBackend,
) -> None:
    spec = a_spec(max_lifetime_seconds=6.0)
    await backend.start(spec, lambda phase, sentence="": None)
    with Stopwatch() as watch:
        end = asyncio.create_task(backend.wait_end(spec.id))
        stopping = asyncio.create_task(run(backend, spec, "import os, signal\nos.kill(-1, signal.SIGSTOP)"))
        reason = await end
    await asyncio.gather(stopping, return_exceptions=True)
    assert reason.code == "max_lifetime"
    assert watch.seconds < 6.0 + 3.0 + 5.0  # life, grace, and what the service promises
    assert backend.containers == {}


async def test_an_end_by_the_supervisors_death_is_told_as_a_crash(backend: BubblewrapBackend) -> None:
    spec = a_spec()
    await backend.start(spec, lambda phase, sentence="": None)
    end = asyncio.create_task(backend.wait_end(spec.id))
    backend.containers[spec.id].process.send_signal(signal.SIGKILL)
    assert (await end).code == "crashed"


async def test_a_drive_that_never_comes_is_refused_and_not_listed(backend: BubblewrapBackend) -> None:
    spec = a_spec()
    await backend.start(spec, lambda phase, sentence="": None)
    with pytest.raises(BackendError) as refused:
        await backend.mount(spec.id, source="/x", target="/content/drive", readonly=False)
    assert refused.value.code == "mount_failed"
    assert await backend.mounts(spec.id) == []


async def test_the_supervisor_of_a_container_hears_its_kernels_itself(backend: BubblewrapBackend) -> None:
    """A silent cell is use while it runs, and no more once its user has stopped every process he can."""
    spec = a_spec()
    await backend.start(spec, lambda phase, sentence="": None)
    code = (
        "import os, signal, time\nwhile not os.path.exists('stop'): time.sleep(0.1)\n"
        "os.kill(-1, signal.SIGSTOP)\nos.kill(os.getpid(), signal.SIGSTOP)"
    )
    cell = asyncio.create_task(run(backend, spec, code))
    async with asyncio.timeout(PATIENCE):
        while not (await backend.activity(spec.id)).busy:
            await asyncio.sleep(0.1)
    await asyncio.sleep(2.0)
    assert (await backend.activity(spec.id)).busy
    (backend.containers[spec.id].folder / "content" / "stop").touch()
    await backend.set_limits(spec.id, max_lifetime_seconds=600.0, idle_limit_seconds=2.0)
    async with asyncio.timeout(PATIENCE):
        assert (await backend.wait_end(spec.id)).code == "idle"
    await asyncio.gather(cell, return_exceptions=True)


# -- what the cells printed last ---------------------------------------------------------------------------------

LAST_WORDS = "print('last words')"


async def ends_itself(backend: BubblewrapBackend, spec: RuntimeSpec) -> None:
    """Let a cell print its last words; then the notebook ends its own runtime."""
    await started(backend, spec).run_marked(LAST_WORDS, "c1")
    last = "import google.colab.runtime as r\nr.unassign()"
    await asyncio.gather(run(backend, spec, last), return_exceptions=True)


async def kept(backend: BubblewrapBackend, runtime_id: str) -> list[str]:
    """Return what is kept of a runtime's last outputs."""
    left = await backend.left_behind(runtime_id)
    return [e["outputs"][0]["text"] for e in left.executions] if left is not None else []


async def test_who_ends_a_runtime_is_handed_its_last_outputs(handing: BubblewrapBackend) -> None:
    spec = a_spec()
    await handing.start(spec, lambda phase, sentence="": None)
    await started(handing, spec).run_marked(LAST_WORDS, "c1")
    with Stopwatch() as watch:
        await handing.stop(spec.id, reason=STOPPED, grace_seconds=PATIENCE)
    assert watch.seconds < 30, "it waited for more than one to take them"
    assert await kept(handing, spec.id) == ["last words\n"]
    assert await handing.wait_end(spec.id) == STOPPED
    await handing.forget(spec.id)
    assert await handing.left_behind(spec.id) is None


async def test_large_outputs_are_handed_over_in_parts_and_whole(handing: BubblewrapBackend) -> None:
    spec = a_spec()
    await handing.start(spec, lambda phase, sentence="": None)
    end = asyncio.create_task(handing.wait_end(spec.id))
    picture = "from IPython.display import display\ndisplay({'text/plain': '', 'text/html': 'x' * 3_000_000}, raw=True)"
    await started(handing, spec).run_marked(picture, "c1")
    await handing.stop(spec.id, reason=STOPPED, grace_seconds=PATIENCE)
    assert await end == STOPPED
    left = await handing.left_behind(spec.id)
    assert left is not None
    assert left.executions[0]["outputs"][0]["data"]["text/html"] == "x" * 3_000_000


async def test_last_outputs_wait_for_a_service_that_was_away(handing: BubblewrapBackend) -> None:
    spec = a_spec()
    await handing.start(spec, lambda phase, sentence="": None)
    await ends_itself(handing, spec)
    log = handing.containers[spec.id].folder / "log"
    await until_async(lambda: '"unassigned"' in log.read_text())
    assert handing.containers[spec.id].process.returncode is None
    assert (await handing.wait_end(spec.id)).code == "unassigned"
    assert await kept(handing, spec.id) == ["last words\n"]


async def test_last_outputs_that_nobody_takes_keep_a_container_no_longer_than_agreed(
    tmp_path: Path, env: RuntimeEnvironment
) -> None:
    backend = BubblewrapBackend(tmp_path, env, hand_over_seconds=1.0)
    spec = a_spec()
    await backend.start(spec, lambda phase, sentence="": None)
    await ends_itself(backend, spec)
    await backend.containers[spec.id].process.wait()
    assert (await backend.wait_end(spec.id)).code == "unassigned"
    assert await kept(backend, spec.id) == []
