"""Fixtures: a shared runtime server, servers of one's own, and pages with a kernel."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.runtime.harness import Runtime, Socket, start_runtime, stop


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    """One server for all tests of the session; each test takes a kernel of its own."""
    folder = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
    running = start_runtime(folder)
    yield running
    stop(running)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(short_folder: Path) -> Iterator[Callable[..., Runtime]]:
    """Start a server with an environment of one's own."""
    started: list[Runtime] = []

    def begin(**environment: str) -> Runtime:
        started.append(start_runtime(short_folder, **environment))
        return started[-1]

    yield begin
    for running in started:
        stop(running)


@pytest.fixture
async def page(runtime: Runtime) -> AsyncIterator[Socket]:
    """A page with a fresh kernel on the shared server."""
    kernel_id = await runtime.start_session(f"{uuid.uuid4().hex}/a.ipynb")
    async with runtime.http() as http:
        socket = await runtime.connect(http, kernel_id)
        yield socket
        await socket.close()
    await runtime.json(f"api/kernels/{kernel_id}", "DELETE")
