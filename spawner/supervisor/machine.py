"""What a supervisor needs to know of the machine around one runtime, and to do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from spawner.model import Shape
from spawner.supervisor.drives import Drives
from spawner.supervisor.handover import HandOver
from spawner.supervisor.limits import Groups
from spawner.supervisor.watchdog import Watchdog

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Machine(Protocol):
    """A machine whose server is starting.

    `main` is the process whose end is the runtime's end; `run` holds the server's files (`ready.json` appears there, and makes
    `ready_watch` readable); `written` are the folders that count as written by the user; `watchdog` watches over the supervisor
    itself, where somebody could stop it.
    """

    spec: dict[str, Any]
    shape: Shape
    key: bytes
    rung: str
    main: int
    ready_watch: int
    run: Path
    folder: Path
    written: Sequence[Path]
    groups: Groups
    drives: Drives
    watchdog: Watchdog | None

    async def listen(self, serve: Serve) -> asyncio.Server:
        """Return the server at which requests come in."""
        ...

    async def may_ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Return whether the other end may ask anything."""
        ...

    def server_pid(self) -> int | None:
        """Return the process of the runtime's server, None when it is not there."""
        ...

    def log_tail(self) -> str:
        """Return the end of what the runtime's server wrote."""
        ...

    async def end(self, main_fd: int, grace_seconds: float) -> None:
        """Ask the server to end, give it the grace, then end every process of the runtime."""
        ...

    def to_hand_over(self, snapshot_bytes: int) -> HandOver | None:
        """Return what the runtime leaves, for who watches: of /content up to `snapshot_bytes`. None: it is found elsewhere."""
        ...

    async def receive(self, reader: asyncio.StreamReader) -> int:
        """Put a snapshot that comes in into /content; return how many files. Raise Refused."""
        ...

    def leave(self, reason: dict[str, Any], snapshot_bytes: int, was_ready: bool) -> None:
        """Leave the reason and, up to `snapshot_bytes`, /content for whoever asks later; remove everything else."""
        ...
