"""Containers for the tests of what docker and kubernetes share, on an engine that is always there: bubblewrap with a pid namespace."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import sys
from pathlib import Path

from quota.ticket import supervisor_key
from spawner.container.backend import ContainerBackend, Place
from spawner.container.spec import describe
from spawner.ended import Ended
from spawner.environment import RuntimeEnvironment
from spawner.local.launch import stack
from spawner.local.sandbox import Layout, Rung
from spawner.model import Endpoint, EndReason, IsolationReport, Phase, RuntimeSpec
from spawner.ports import BackendError, OnPhase
from support.runtimes import Started

MASTER = b"m" * 32
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

    keeps_content = True

    def __init__(
        self,
        folder: Path,
        env: RuntimeEnvironment,
        hand_over_seconds: float = 0.0,
        most_content: int = 0,
    ) -> None:
        super().__init__(lambda runtime_id: supervisor_key(MASTER, runtime_id), Ended(folder / ".ended"))
        self.hand_over_seconds, self.most_content = hand_over_seconds, most_content
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

    async def _most_content(self, runtime_id: str) -> int:
        return self.most_content

    def isolation(self) -> IsolationReport:
        return IsolationReport("container", (), ())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def started(backend: BubblewrapBackend, spec: RuntimeSpec) -> Started:
    return Started(spec, Endpoint("127.0.0.1", backend.containers[spec.id].server_port))


async def run(backend: BubblewrapBackend, spec: RuntimeSpec, code: str) -> str:
    return await started(backend, spec).run(code)
