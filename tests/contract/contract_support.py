"""What the contract tests of runtime backends share: runtimes started through the interface, and looks at the real machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spawner.environment import RuntimeEnvironment
from spawner.local.backend import LocalBackend
from spawner.local.probe import NoRung
from spawner.model import EndReason, Phase, RuntimeSpec
from spawner.supervisor.limits import find_groups
from support.runtimes import Started, a_spec

STOPPED = EndReason("user_deleted", "The runtime was ended by its user.")


@dataclass
class Runtime(Started):
    """A started runtime."""

    phases: list[Phase]
    folder: Path

    def path(self, below_content: str) -> str:
        """Return where code inside finds a file of its working folder."""
        return below_content

    def processes(self) -> list[int]:
        """Return every process of the machine that belongs to this runtime: supervisor, sandbox and all inside."""
        return processes_of(self.id)


@dataclass
class Bench:
    """A backend to test."""

    backend: LocalBackend
    folder: Path
    rung: str
    env: RuntimeEnvironment
    started: list[Runtime] = field(default_factory=list)

    def spec(self, user: str = "ada", **changes: object) -> RuntimeSpec:
        return a_spec(user, **changes)

    async def start(self, user: str = "ada", **changes: object) -> Runtime:
        spec = self.spec(user, **changes)
        phases: list[Phase] = []
        endpoint = await self.backend.start(spec, phases.append)
        runtime = Runtime(spec, endpoint, phases, self.folder / spec.id)
        self.started.append(runtime)
        return runtime

    def another(self) -> LocalBackend:
        """Return a backend as another process, or the hub after a restart, would make it."""
        return LocalBackend(
            self.folder, self.env.env, self.env.code, isolation=self.rung, allow_plain_multiuser=True
        )


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
        for runtime in bench.started:
            await backend.stop(runtime.id, reason=STOPPED, grace_seconds=0.0)
    assert leftovers(bench) == []


def leftovers(bench: Bench) -> list[str]:
    """Return what the runtimes of a bench left on the machine: processes, mounts, control groups, folders."""
    mounts = Path("/proc/self/mountinfo").read_text()
    found = [f"mount below {bench.folder}"] if str(bench.folder) in mounts else []
    for runtime in bench.started:
        found += [f"process {pid}" for pid in runtime.processes()]
        found += [f"group {folder}" for folder in find_groups(runtime.id).folders]
        found += [f"folder {runtime.folder}"] if runtime.folder.exists() else []
        short = Path(f"/tmp/minicolab-{runtime.id}")
        found += [f"link {short}"] if short.is_symlink() else []
        found += [f"log of {runtime.id}"] if (bench.folder / f"{runtime.id}.log").exists() else []
    return found


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
