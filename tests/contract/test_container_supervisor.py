"""What docker and kubernetes share, on an engine that is always there: bubblewrap with a pid namespace of its own.

The supervisor is the first process there, as in a container; what an engine adds (images, networks, limits) is tested with the engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quota.ticket import supervisor_key
from spawner.container import link
from spawner.container.backend import ContainerBackend, Place
from spawner.container.spec import describe
from spawner.ended import Ended
from spawner.environment import RuntimeEnvironment
from spawner.local.launch import stack
from spawner.local.sandbox import Layout, Rung
from spawner.model import Endpoint, EndReason, IsolationReport, Phase, RuntimeSpec
from spawner.ports import BackendError, OnPhase
from spawner.supervisor.wire import SupervisorGone
from support.patience import PATIENCE, Stopwatch, until_async
from support.runtimes import Started, a_spec

MASTER = b"m" * 32
STOPPED = EndReason("user_deleted", "The runtime was ended by its user.")
CODE = Path(__file__).parents[2]


@dataclasses.dataclass
class Contained:
    """One container: its process outside, its ports, its folder."""

    process: asyncio.subprocess.Process
    server_port: int
    supervisor_port: int
    folder: Path
    user: str


class BubblewrapBackend(ContainerBackend):
    """Containers that are bubblewraps, sharing the machine's network, so each has ports of its own."""

    name = "bubblewrap"

    def __init__(self, folder: Path, env: RuntimeEnvironment, hand_over_seconds: float = 0.0) -> None:
        super().__init__(lambda runtime_id: supervisor_key(MASTER, runtime_id), Ended(folder / ".ended"))
        self.hand_over_seconds = hand_over_seconds
        self._folder, self._env = folder, env
        self.containers: dict[str, Contained] = {}

    async def _create(self, spec: RuntimeSpec, told: str, on_phase: OnPhase) -> None:
        if spec.id in self.containers:
            raise BackendError("already_exists", f"A runtime named {spec.id} exists already.")
        on_phase(Phase.SANDBOX)
        folder = self._folder / spec.id
        for name in ("content", "run", "home", "tmp", "drives"):
            (folder / name).mkdir(parents=True)
        ports = free_port(), free_port()
        key = supervisor_key(MASTER, spec.id)
        told = describe(
            spec,
            key,
            server_port=ports[0],
            supervisor_port=ports[1],
            hand_over_seconds=self.hand_over_seconds,
        )
        layout = Layout(folder, self._env.env, self._env.code, Path(sys.base_prefix), Rung.PLAIN)
        stack(layout)
        binds = [
            ("content", "/content"),
            ("run", "/run"),
            ("home", "/root"),
            ("tmp", "/tmp"),
            ("drives", "/drives"),
        ]
        command = [
            "bwrap",
            "--unshare-pid",
            "--as-pid-1",
            "--cap-drop",
            "ALL",
            "--die-with-parent",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        ]
        for top in ("usr", "bin", "sbin", "lib", "lib64", "etc"):
            command += ["--ro-bind-try", f"/{top}", f"/{top}"]
        for name, inside in binds:
            command += ["--bind", str(folder / name), inside]
        command += ["--ro-bind", str(CODE), "/opt/minicolab"]
        for path in (self._env.folder, Path(sys.base_prefix)):
            command += ["--ro-bind", str(path), str(path)]
        command += ["--bind", str(layout.venv), "/opt/venv"]
        command += ["--setenv", "PYTHONPATH", "/opt/minicolab", "--setenv", "MINICOLAB_SPEC", told]
        command += [os.path.realpath(sys.executable), "-S", "-m", "spawner.container.supervisor"]
        log = (folder / "log").open("wb")
        with log:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={"PATH": os.environ["PATH"], "HOME": "/root"},
                stdout=log,
                stderr=log,
            )
        self.containers[spec.id] = Contained(process, *ports, folder, spec.user)

    async def _until_placed(self, runtime_id: str, on_phase: OnPhase) -> Place:
        place = await self._find(runtime_id)
        assert place is not None
        return place

    async def _find(self, runtime_id: str) -> Place | None:
        found = self.containers.get(runtime_id)
        if found is None:
            return None
        ended = found.process.returncode is not None
        return Place(
            runtime_id,
            found.user,
            "f-1",
            "127.0.0.1",
            ended,
            self._last_words(found.folder) if ended else None,
            0.0 if ended else None,
            found.server_port,
            found.supervisor_port,
        )

    def _last_words(self, folder: Path) -> EndReason:
        for line in reversed((folder / "log").read_text().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                if event["event"] == "end":
                    return EndReason(event["code"], event["message"])
        return EndReason("crashed", "The machine ended by itself.")

    async def _list(self) -> list[Place]:
        return [place for name in self.containers if (place := await self._find(name)) is not None]

    async def _until_ended(self, runtime_id: str) -> Place | None:
        if runtime_id in self.containers:
            await self.containers[runtime_id].process.wait()
        return await self._find(runtime_id)

    async def _remove(self, runtime_id: str) -> None:
        if found := self.containers.pop(runtime_id, None):
            with contextlib.suppress(ProcessLookupError):
                found.process.kill()
            await found.process.wait()

    async def _bind(self, runtime_id: str, name: str, source: str, *, readonly: bool) -> None:
        raise BackendError("mount_failed", "There is nobody here who binds drives.")

    async def _unbind(self, runtime_id: str, name: str) -> None:
        return None

    def isolation(self) -> IsolationReport:
        return IsolationReport("container", (), ())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


def started(backend: BubblewrapBackend, spec: RuntimeSpec) -> Started:
    return Started(spec, Endpoint("127.0.0.1", backend.containers[spec.id].server_port))


async def run(backend: BubblewrapBackend, spec: RuntimeSpec, code: str) -> str:
    return await started(backend, spec).run(code)


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
