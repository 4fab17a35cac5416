"""What tests on the Docker engine share: the images, and backends of installations of their own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hub.setup.images import image_called
from quota.ticket import mint, supervisor_key
from spawner.docker.backend import DockerBackend
from spawner.docker.containers import ContainerSettings, container_name
from spawner.model import Endpoint, EndReason, Phase, RuntimeSpec, Shape
from support.docker_engine import Engine
from support.kernel import run_cell
from support.patience import PATIENCE

STOPPED = EndReason("user_deleted", "The runtime was ended by its user.")
SMALL = Shape("SMALL", 1 << 30, 1.0, 200)
MASTER = b"m" * 32


@dataclass
class Runtime:
    """A started runtime. `phases` and `sentences` are what its start told."""

    spec: RuntimeSpec
    endpoint: Endpoint
    phases: list[Phase]
    sentences: list[str]
    container: str

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def url(self) -> str:
        return self.endpoint.url + self.spec.base_url

    def ticket(self) -> str:
        return mint(self.spec.ticket_key, self.id, self.spec.user, int(time.time()) + 600, "n")

    async def run(self, code: str, *, timeout: float = PATIENCE) -> str:
        """Run a cell on a new kernel and return what it printed."""
        return await asyncio.to_thread(run_cell, self.url, self.ticket(), code, timeout=timeout)


@dataclass
class Bench:
    """A backend to test, of an installation of its own."""

    backend: DockerBackend
    folder: Path
    engine: Engine
    settings: ContainerSettings
    started: list[Runtime] = field(default_factory=list)

    def spec(self, user: str = "ada", **changes: object) -> RuntimeSpec:
        runtime_id = "r-" + base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
        spec = RuntimeSpec(
            id=runtime_id,
            user=user,
            file_id="f-1",
            base_url=f"/user/{user}/{runtime_id}/",
            shape=SMALL,
            accelerator="NONE",
            devices=(),
            max_lifetime_seconds=600.0,
            idle_limit_seconds=300.0,
            ticket_key=secrets.token_bytes(32),
            allow_origin="http://localhost:1",
            control_url="http://host.docker.internal:1/",
            public_control_url="http://localhost:1/services/control/",
        )
        return replace(spec, **changes)  # type: ignore[arg-type]

    async def start(self, user: str = "ada", **changes: object) -> Runtime:
        return await self.start_spec(self.spec(user, **changes))

    async def start_spec(self, spec: RuntimeSpec) -> Runtime:
        phases: list[Phase] = []
        sentences: list[str] = []

        def on_phase(phase: Phase, sentence: str = "") -> None:
            phases.append(phase)
            sentences.append(sentence)

        endpoint = await self.backend.start(spec, on_phase)
        runtime = Runtime(spec, endpoint, phases, sentences, self.container(spec))
        self.started.append(runtime)
        return runtime

    def container(self, spec: RuntimeSpec) -> str:
        return container_name(self.settings.installation, spec.id)

    def another(self, *, pull: bool = False, **changes: object) -> DockerBackend:
        """Return a backend as another process, or the hub after a restart, would make it."""
        settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        return make_backend(self.folder, self.engine, settings, pull=pull)

    def containers(self) -> list[str]:
        """Return the names of this installation's containers, ended ones too."""
        label = f"label=minicolab.dev/installation={self.settings.installation}"
        return self.engine.docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").stdout.split()

    def leftovers(self) -> list[str]:
        """Return what runtimes left: containers and folders."""
        folders = [p.name for p in self.folder.iterdir()] if self.folder.is_dir() else []
        return self.containers() + [name for name in folders if name not in (".ended", ".network")]


def make_backend(
    folder: Path, engine: Engine, settings: ContainerSettings, *, pull: bool = False
) -> DockerBackend:
    return DockerBackend(
        folder,
        lambda runtime_id: supervisor_key(MASTER, runtime_id),
        settings,
        url=engine.url,
        pull=pull,
    )


@contextlib.asynccontextmanager
async def make_bench(folder: Path, engine: Engine, *, root: bool = True) -> AsyncIterator[Bench]:
    """Yield a bench; whatever a test leaves is ended and must leave nothing."""
    installation = secrets.token_hex(6)
    image = image_called("minimal").tag
    settings = ContainerSettings(installation, image, f"minicolab-{installation}", root=root)
    bench = Bench(make_backend(folder / "runtimes", engine, settings), folder / "runtimes", engine, settings)
    try:
        yield bench
    finally:
        for runtime in bench.started:
            await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0.0)
        leftovers = bench.leftovers()
        for name in bench.containers():
            engine.docker("rm", "-f", name, check=False)
        engine.docker("network", "rm", settings.network, check=False)
    assert leftovers == []
