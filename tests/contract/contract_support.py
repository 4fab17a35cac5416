"""What the contract tests of runtime backends share: runtimes started through the interface, and looks at the real machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spawner.environment import RuntimeEnvironment
from spawner.local.backend import LocalBackend
from spawner.local.probe import NoRung
from spawner.model import EndReason, RuntimeSpec
from spawner.supervisor import wire
from spawner.supervisor.limits import find_groups
from support.patience import until_async
from support.runtimes import Started, a_spec
from tests.contract.suite.harness import STOPPED, Drive

RUNGS = ("namespaces", "bubblewrap", "plain")

# Stops whatever bears the runtime's name, the process that does it last.
STOP_ALL = (
    "import os, signal\n"
    "for name in os.listdir('/proc'):\n"
    "    if name.isdigit() and int(name) != os.getpid():\n"
    "        try:\n"
    "            line = open(f'/proc/{name}/environ', 'rb').read() + open(f'/proc/{name}/cmdline', 'rb').read()\n"
    "            if os.environ['MINICOLAB_RUNTIME_ID'].encode() in line: os.kill(int(name), signal.SIGSTOP)\n"
    "        except OSError: pass\n"
    "os.kill(os.getpid(), signal.SIGSTOP)"
)


@dataclass
class Runtime(Started):
    """A started runtime."""

    folder: Path

    def path(self, below_content: str) -> str:
        """Return where code inside finds a file of its working folder."""
        return below_content

    def processes(self) -> list[int]:
        """Return every process of the machine that belongs to this runtime: supervisor, sandbox and all inside."""
        return processes_of(self.id)


@dataclass
class Bench:
    """A backend to test; `started` are the ids of its runtimes."""

    backend: LocalBackend
    folder: Path
    rung: str
    env: RuntimeEnvironment
    started: list[str] = field(default_factory=list)
    kind = "local"
    overrun_seconds = 5.0

    @property
    def apart(self) -> bool:
        return self.rung != "plain"

    def spec(self, user: str = "ada", **changes: object) -> RuntimeSpec:
        return a_spec(user, **changes)

    async def start(self, user: str = "ada", **changes: object) -> Runtime:
        return await self.start_spec(self.spec(user, **changes))

    async def start_spec(self, spec: RuntimeSpec) -> Runtime:
        endpoint = await self.backend.start(spec, lambda phase, sentence="": None)
        self.adopt(spec)
        return Runtime(spec, endpoint, self.folder / spec.id)

    def adopt(self, spec: RuntimeSpec) -> None:
        self.started.append(spec.id)

    def another(self) -> LocalBackend:
        return self.with_environment(self.env.env, self.env.code)

    def with_environment(self, env: Path, code: Path) -> LocalBackend:
        return LocalBackend(self.folder, env, code, isolation=self.rung, allow_plain_multiuser=True)

    def service(self) -> str:
        return (
            "from pathlib import Path\nfrom spawner.local.backend import LocalBackend\n"
            f"backend = LocalBackend(Path({str(self.folder)!r}), Path({str(self.env.env)!r}), Path({str(self.env.code)!r}),"
            f" isolation={self.rung!r}, allow_plain_multiuser=True)\n"
        )

    def without_image(self) -> LocalBackend:
        return self.with_environment(self.folder.parent / "no-environment", self.folder.parent / "no-layer")

    def without_room(self) -> tuple[LocalBackend, dict[str, object]]:
        return self.backend, {"devices": ("/dev/nvidia250",)}

    def services_die(self) -> None:
        """Nothing of this process is connected to a runtime when it asks nothing."""

    def lives(self, runtime_id: str) -> bool:
        return processes_of(runtime_id) != []

    def signal_supervisor(self, runtime_id: str, number: int) -> None:
        with socket.socket(socket.AF_UNIX) as connection, wire.short_path(self.folder / runtime_id) as path:
            connection.connect(path)
            pid, _ = wire.peer(connection)
        os.kill(pid, number)

    def leftovers(self) -> list[str]:
        return leftovers(self)

    @contextlib.contextmanager
    def drives(self, folder: Path) -> Iterator[Drive]:
        yield a_drive(folder)


@contextlib.asynccontextmanager
async def make_bench(folder: Path, env: RuntimeEnvironment, rung: str) -> AsyncIterator[Bench]:
    backend = LocalBackend(folder / "runtimes", env.env, env.code, isolation=rung, allow_plain_multiuser=True)
    try:
        backend.isolation()
    except NoRung as error:
        pytest.skip(str(error))
    bench = Bench(backend, folder / "runtimes", rung, env)
    try:
        yield bench
    finally:
        for runtime_id in bench.started:
            await backend.stop(runtime_id, reason=STOPPED, grace_seconds=0.0)
    assert leftovers(bench) == []


async def supervisor(runtime: Runtime) -> int:
    """Return the process id of the runtime's supervisor."""
    _, writer = await wire.connect(runtime.folder)
    pid, _ = wire.peer(writer.get_extra_info("socket"))
    writer.close()
    return pid


def a_drive(folder: Path) -> Drive:
    """Return a drive of ada's, in a folder of this machine."""
    place = folder / "drive of ada"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("of ada")
    return Drive(str(place), str(folder / "nowhere"), place)


def leftovers(bench: Bench) -> list[str]:
    """Return what the runtimes of a bench left on the machine: processes, mounts, control groups, folders."""
    mounts = Path("/proc/self/mountinfo").read_text()
    found = [f"mount below {bench.folder}"] if str(bench.folder) in mounts else []
    if bench.folder.is_dir():
        found += [f"entry {path.name}" for path in bench.folder.iterdir() if path.name != ".ended"]
    for runtime_id in bench.started:
        found += [f"process {pid}" for pid in processes_of(runtime_id)]
        found += [f"group {folder}" for folder in find_groups(runtime_id).folders]
        short = Path(f"/tmp/minicolab-{runtime_id}")
        found += [f"link {short}"] if short.is_symlink() else []
    return found


async def nothing_left(bench: Bench) -> None:
    """Wait until the last process of an end that nobody awaited is gone too: a supervisor goes a moment after its folder."""
    with contextlib.suppress(AssertionError):  # told by the next line
        await until_async(lambda: leftovers(bench) == [])
    assert leftovers(bench) == []


def processes_of(word: str) -> list[int]:
    """Return the processes that name `word` in their command line or environment."""
    needle, found = word.encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                text = (folder / name).read_bytes()
            except OSError:
                continue
            if needle in text and int(folder.name) != os.getpid():
                found.append(int(folder.name))
                break
    return found


def command_of(pid: int) -> bytes:
    """Return the command line of a process, nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def watching(runtime: Runtime, backend: LocalBackend) -> asyncio.Task[EndReason]:
    """Return a task that waits for the runtime's end, once the supervisor knows of it."""
    watcher = asyncio.create_task(backend.wait_end(runtime.id))
    # What is asked later is answered later: by then the supervisor has read what the watcher sent.
    for _ in range(2):
        assert await backend.observe(runtime.id) is not None
    return watcher
