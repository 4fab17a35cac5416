"""What the contract asks of the machines it runs on: local rungs, a Docker engine, a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import requests

from spawner.model import EndReason, RuntimeSpec
from spawner.ports import RuntimeBackend
from support.kernel import Kernel
from support.patience import PATIENCE
from support.runtimes import Started

REPOSITORY = Path(__file__).parents[3]
STOPPED = EndReason("user_deleted", "The runtime was ended by its user.")


@dataclass(frozen=True)
class Drive:
    """A drive: `source` is what control asks to mount, `missing` one that does not exist, `folder` where its files lie."""

    source: str
    missing: str
    folder: Path


class Bench(Protocol):
    """A backend to test, and what lies behind it.

    `apart`: it keeps code inside from its own supervisor. `overrun_seconds`: how much later than its limit a runtime may end with
    every service dead.
    """

    kind: str
    backend: RuntimeBackend
    apart: bool
    overrun_seconds: float

    def spec(self, user: str = "ada", **changes: object) -> RuntimeSpec:
        """Return a small runtime with an id of its own."""
        ...

    async def start(self, user: str = "ada", **changes: object) -> Started:
        """Start one; whatever the test leaves of it is ended."""
        ...

    async def start_spec(self, spec: RuntimeSpec) -> Started: ...

    def another(self) -> RuntimeBackend:
        """Return a backend as another process, or the hub after a restart, would make it."""
        ...

    def service(self) -> str:
        """Return Python that makes such a backend and calls it `backend`."""
        ...

    def without_image(self) -> RuntimeBackend:
        """Return a backend whose runtimes' image or environment does not exist."""
        ...

    def without_room(self) -> tuple[RuntimeBackend, dict[str, object]]:
        """Return a backend and what to ask of it that this machine does not have."""
        ...

    def services_die(self) -> None:
        """Let go of everything that leads to the runtimes."""
        ...

    def adopt(self, spec: RuntimeSpec) -> None:
        """Take a runtime that somebody else has started for one of the test's."""
        ...

    def lives(self, runtime_id: str) -> bool:
        """Return whether anything of the runtime runs, as the machine itself sees it."""
        ...

    def signal_supervisor(self, runtime_id: str, number: int) -> None: ...

    def leftovers(self) -> list[str]:
        """Return what is left on the machine of runtimes that have ended, what they left behind for control excepted."""
        ...

    def drives(self, folder: Path) -> AbstractContextManager[Drive]:
        """See to it that drives can be mounted in what is started from now on; what lies in `folder` is a drive's."""
        ...


async def watching(bench: Bench, runtime: Started) -> asyncio.Task[EndReason]:
    """Return a task that waits for the runtime's end, once the supervisor knows of it."""
    watcher = asyncio.create_task(bench.backend.wait_end(runtime.id))
    # What is asked later is answered later: by then the supervisor has read what the watcher sent.
    for _ in range(2):
        assert await bench.backend.observe(runtime.id) is not None
    return watcher


def runs_a_cell(runtime: Started) -> bool:
    """Return whether a kernel of the runtime executes something."""
    headers = {"Authorization": f"token {runtime.ticket()}"}
    reply = requests.get(runtime.url + "minicolab/activity", headers=headers, timeout=PATIENCE).json()
    return any(kernel["executing_seconds"] > 0 for kernel in reply.get("kernels", ()))


def answers(runtime: Started) -> bool:
    """Return whether the runtime's server answers."""
    try:
        requests.get(runtime.url + "api", timeout=PATIENCE)
    except requests.RequestException:
        return False
    return True


async def begins(runtime: Started, code: str, cell: str) -> None:
    """Begin a cell of the document that prints "begun", and return once it has."""

    def begin() -> None:
        kernel = Kernel(runtime.url, runtime.ticket())
        begun = "print('begun', flush=True)\n"
        kernel.send("execute_request", {"code": begun + code, "silent": False}, metadata={"cellId": cell})
        while not (message := kernel.receive())["content"].get("text", "").startswith("begun"):
            assert message["msg_type"] != "error", message
        kernel.close()

    await asyncio.to_thread(begin)


@contextlib.asynccontextmanager
async def process(bench: Bench, code: str) -> AsyncIterator[subprocess.Popen[str]]:
    """Run a service of its own with a `backend`; it is killed in the end."""
    script = f"import asyncio, os, signal, sys\nfrom spawner.model import *\n{bench.service()}\n{code}"
    service = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        start_new_session=True,
    )
    try:
        yield service
    finally:
        service.kill()
        service.wait()
        assert service.stdout is not None
        service.stdout.close()


async def says(service: subprocess.Popen[str]) -> str:
    """Return the next line of a service."""
    assert service.stdout is not None
    return (await asyncio.to_thread(service.stdout.readline)).strip()
