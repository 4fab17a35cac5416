"""What tests on the Docker engine share: the images, and backends of installations of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hub.setup.images import image_called
from quota.ticket import supervisor_key
from spawner.docker.backend import DockerBackend
from spawner.docker.containers import ContainerSettings, container_name
from spawner.model import Phase, RuntimeSpec
from support.docker_engine import Engine
from support.patience import until_async
from support.runtimes import SMALL, Started, a_spec
from tests.contract.contract_support import a_drive
from tests.contract.suite.harness import STOPPED, Drive

MASTER = b"m" * 32


@dataclass
class Runtime(Started):
    """A started runtime. `phases` and `sentences` are what its start told."""

    phases: list[Phase]
    sentences: list[str]
    container: str


@dataclass
class Bench:
    """A backend to test, of an installation of its own."""

    backend: DockerBackend
    folder: Path
    engine: Engine
    settings: ContainerSettings
    started: list[str] = field(default_factory=list)
    kind = "docker"
    apart = True
    overrun_seconds = 5.0

    def spec(self, user: str = "ada", **changes: object) -> RuntimeSpec:
        return a_spec(user, **{"control_url": "http://host.docker.internal:1/", **changes})

    async def start(self, user: str = "ada", **changes: object) -> Runtime:
        return await self.start_spec(self.spec(user, **changes))

    async def start_spec(self, spec: RuntimeSpec) -> Runtime:
        phases: list[Phase] = []
        sentences: list[str] = []

        def on_phase(phase: Phase, sentence: str = "") -> None:
            phases.append(phase)
            sentences.append(sentence)

        endpoint = await self.backend.start(spec, on_phase)
        self.adopt(spec)
        return Runtime(spec, endpoint, phases, sentences, self.container(spec))

    def adopt(self, spec: RuntimeSpec) -> None:
        self.started.append(spec.id)

    def container(self, spec: RuntimeSpec) -> str:
        return container_name(self.settings.installation, spec.id)

    def service(self) -> str:
        return (
            "from pathlib import Path\nfrom quota.ticket import supervisor_key\n"
            "from spawner.docker.backend import DockerBackend\n"
            "from spawner.docker.containers import ContainerSettings\n"
            f"backend = DockerBackend(Path({str(self.folder)!r}), lambda i: supervisor_key({MASTER!r}, i),"
            f" {self.settings!r}, url={self.engine.url!r}, pull=False)\n"
        )

    def without_image(self) -> DockerBackend:
        return self.another(image="docker.io/local/no-such-image:1")

    def without_room(self) -> tuple[DockerBackend, dict[str, object]]:
        return self.backend, {"shape": replace(SMALL, cpus=640.0)}

    def services_die(self) -> None:
        """Nothing of this process is connected to a container when it asks nothing."""

    def lives(self, runtime_id: str) -> bool:
        return self._state(runtime_id, "Running") == "true"

    def _state(self, runtime_id: str, what: str) -> str:
        asked = (
            "inspect",
            "--format",
            f"{{{{.State.{what}}}}}",
            container_name(self.settings.installation, runtime_id),
        )
        return self.engine.docker(*asked, check=False).stdout.strip()

    def signal_supervisor(self, runtime_id: str, number: int) -> None:
        os.kill(int(self._state(runtime_id, "Pid")), number)

    @contextlib.contextmanager
    def drives(self, folder: Path) -> Iterator[Drive]:
        yield a_drive(folder)

    def another(
        self, *, pull: bool = False, url: str | None = None, folder: Path | None = None, **changes: object
    ) -> DockerBackend:
        """Return a backend as another process, or the hub after a restart, would make it."""
        settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        return make_backend(folder or self.folder, self.engine, settings, pull=pull, url=url)

    def containers(self) -> list[str]:
        """Return the names of this installation's containers, ended ones too."""
        label = f"label=minicolab.dev/installation={self.settings.installation}"
        return self.engine.docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").stdout.split()

    def leftovers(self) -> list[str]:
        """Return what runtimes left: containers, folders and volumes."""
        return self.containers() + self.folders() + self.volumes()

    def folders(self) -> list[str]:
        names = [p.name for p in self.folder.iterdir()] if self.folder.is_dir() else []
        return [name for name in names if name not in (".ended", ".network")]

    def volumes(self) -> list[str]:
        label = f"label=minicolab.dev/installation={self.settings.installation}"
        return self.engine.docker("volume", "ls", "-q", "--filter", label).stdout.split()

    def loops(self) -> list[str]:
        """Return the files of this installation that are block devices now."""
        files = []
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # it goes just now
                files.append(path.read_text().strip())
        return [file for file in files if file.startswith(str(self.folder))]


def make_backend(
    folder: Path,
    engine: Engine,
    settings: ContainerSettings,
    *,
    pull: bool = False,
    url: str | None = None,
    device_names: Callable[[], Mapping[str, str]] = dict,
) -> DockerBackend:
    return DockerBackend(
        folder,
        lambda runtime_id: supervisor_key(MASTER, runtime_id),
        settings,
        url=url or engine.url,
        pull=pull,
        device_names=device_names,
    )


async def installs_a_package(runtime: Runtime) -> None:
    """Assert that root of a runtime can do what `!apt-get install` does."""
    text = await runtime.run(
        "import subprocess\n"
        "done = subprocess.run('apt-get update -qq && apt-get install -y -qq tree && tree --version',"
        " shell=True, capture_output=True, text=True)\n"
        "print(done.returncode, done.stdout[-200:], done.stderr[-500:])"
    )
    assert text.startswith("0 ") and "tree v" in text, text


@contextlib.asynccontextmanager
async def make_bench(
    folder: Path, engine: Engine, *, image: str = "minimal", **changes: object
) -> AsyncIterator[Bench]:
    """Yield a bench of the runtime `image` with these settings; whatever a test leaves is ended and must leave nothing."""
    installation = secrets.token_hex(6)
    plain = ContainerSettings(installation, image_called(image).tag, f"minicolab-{installation}")
    settings = replace(plain, **changes)  # type: ignore[arg-type]
    bench = Bench(make_backend(folder / "runtimes", engine, settings), folder / "runtimes", engine, settings)
    try:
        yield bench
    finally:
        for runtime_id in bench.started:
            await bench.backend.stop(runtime_id, reason=STOPPED, grace_seconds=0.0)
        leftovers = bench.leftovers()
        for name in bench.containers():
            engine.docker("rm", "-fv", name, check=False)
        engine.docker("network", "rm", settings.network, check=False)
    assert leftovers == []
    await until_async(lambda: bench.loops() == [])
