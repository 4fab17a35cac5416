"""A supervisor's life over a machine that is one process: what it does at the very end of the idle time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from spawner.model import Shape
from spawner.supervisor import linux
from spawner.supervisor.life import Life
from spawner.supervisor.limits import Groups
from spawner.supervisor.machine import Serve
from support.patience import PATIENCE

IDLE_SECONDS = 0.5


class OneProcess:
    """A spawner.supervisor.machine.Machine whose server is ready from the beginning."""

    def __init__(self, folder: Path, main: int) -> None:
        (folder / "ready.json").write_text('{"port": 1}')
        self.spec: dict[str, Any] = {
            "id": "r-test",
            "max_lifetime_seconds": 600.0,
            "idle_limit_seconds": IDLE_SECONDS,
        }
        self.shape, self.groups = Shape("TEST", 1 << 30, 1.0, 16), Groups((), frozenset({"memory"}), None)
        self.key, self.rung, self.main, self.run, self.folder = b"", "test", main, folder, folder
        self.ready_watch = linux.new_timer()
        self.written: Sequence[Path] = ()
        self.drives: Any = None
        self.watchdog = None
        self.left: list[dict[str, Any]] = []

    async def listen(self, serve: Serve) -> asyncio.Server:
        return await asyncio.start_unix_server(serve, str(self.folder / "socket"))

    async def may_ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return True

    def server_pid(self) -> int | None:
        return None

    def log_tail(self) -> str:
        return ""

    async def end(self, main_fd: int, grace_seconds: float) -> None:
        signal.pidfd_send_signal(main_fd, signal.SIGKILL)

    def to_hand_over(self, snapshot_bytes: int) -> None:
        return None

    async def receive(self, reader: asyncio.StreamReader) -> int:
        return 0

    def leave(self, reason: dict[str, Any], snapshot_bytes: int, was_ready: bool) -> None:
        self.left.append(reason)


class Kernels:
    """What is heard from kernels: a cell that ran just before the look number `returns`, and none else."""

    busy = False

    def __init__(self, returns: int) -> None:
        self.looks, self.returned_at, self._returns = 0, -1.0, returns

    async def follow(self) -> None:
        await asyncio.Event().wait()

    async def look(self) -> None:
        self.looks += 1
        if self.looks == self._returns:
            self.returned_at = linux.boottime()

    def used_at(self) -> float:
        return self.returned_at


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OneProcess]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield OneProcess(tmp_path, process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("returns", [0, 1])
async def test_who_came_back_in_the_last_second_is_not_ended(
    machine: OneProcess, monkeypatch: pytest.MonkeyPatch, returns: int
) -> None:
    async def never(_: Life) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Life, "_follow_use", never)  # so that only the look right before the end is left
    life = Life(machine, lambda _: None)
    kernels = life._kernels = Kernels(returns)  # type: ignore[assignment]
    async with asyncio.timeout(PATIENCE):
        await life.run()
    (reason,) = machine.left
    assert reason["code"] == "idle"
    assert life.ready_at is not None
    assert kernels.looks == 1 + returns, "one look before each end that was due"
    last_use = max(life.ready_at, kernels.returned_at)
    assert reason["boottime"] - last_use >= IDLE_SECONDS
