"""The machine of the local backend: a sandbox, its keeper, its control groups, its folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spawner import keep
from spawner.local.launch import Launched
from spawner.local.remove import clean
from spawner.local.sandbox import Rung
from spawner.supervisor import handover, processes, safe_read, wire
from spawner.supervisor.drives import Drives, Refused
from spawner.supervisor.machine import Serve
from spawner.supervisor.watchdog import KILLED_SECONDS, Watchdog

KILL_SECONDS = 10.0
LOG_BYTES = 64 * 1024


class Sandboxed:
    """A launched sandbox."""

    def __init__(self, launched: Launched) -> None:
        self.spec, self.shape, self.key = launched.spec, launched.shape, launched.key
        self.folder, self.groups = launched.folder, launched.groups
        self.main, self.ready_watch = launched.keeper, launched.ready_watch
        self._layout = launched.layout
        self.rung, self.run = str(self._layout.rung), self._layout.run
        self.written: Sequence[Path] = (self.folder,)
        self._plain = self._layout.rung is Rung.PLAIN
        self.drives = Drives(self._layout.content, None if self._plain else self.main)
        self._handle = os.pidfd_open(self.main)
        lock = wire.held_lock(self.folder)
        self.watchdog: Watchdog | None = Watchdog(
            self, (self._handle,) if lock is None else (self._handle, lock)
        )

    async def listen(self, serve: Serve) -> asyncio.Server:
        return await asyncio.start_unix_server(serve, sock=wire.listen(self.folder), limit=wire.MAX_LINE)

    async def may_ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        _, uid = wire.peer(writer.get_extra_info("socket"))
        return uid == os.geteuid()

    def log_tail(self) -> str:
        with (self.folder / "server.log").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            return file.read(LOG_BYTES).decode("utf-8", "replace")

    async def end(self, main_fd: int, grace_seconds: float) -> None:
        """Ask the server to end, give it the grace, end the sandbox and with it everything inside."""
        server = self.server_pid() if grace_seconds > 0 else None
        if server is not None:
            # What its user has stopped has to go on in order to end.
            for pid in processes.below(self.main):
                _send(pid, signal.SIGCONT)
            _send(server, signal.SIGTERM)
            await wire.ended(main_fd, seconds=grace_seconds)
        self._tell_keeper()
        if not await wire.ended(main_fd, seconds=KILL_SECONDS):
            processes.kill_below(self.main)
            os.kill(self.main, signal.SIGKILL)
            await wire.ended(main_fd, seconds=KILL_SECONDS)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.main, os.WNOHANG)  # noqa: ASYNC222  # it has ended: this only takes its status
        await asyncio.to_thread(self.groups.kill)

    def kill(self) -> None:
        """End every process of the runtime at once; called by the watchdog, when the supervisor is gone."""
        if not processes.wait(self._handle, 0):
            self._tell_keeper()
            if not processes.wait(self._handle, int(KILLED_SECONDS * 1000)):
                processes.kill_below(self.main)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        self.groups.kill()

    def _tell_keeper(self) -> None:
        """End the keeper. On the plain rung it has to kill what is below it; elsewhere the kernel does, with the namespaces."""
        for number in (signal.SIGTERM, signal.SIGCONT) if self._plain else (signal.SIGKILL,):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def server_pid(self) -> int | None:
        """Return the process of the runtime's server: the eldest below the keeper, below bubblewrap and its init."""
        pid = self.main
        for _ in range(1 if self._plain else 3):
            below = processes.children_of(pid)
            if not below:
                return None
            pid = below[0]
        return pid

    def to_hand_over(self, snapshot_bytes: int) -> None:
        return None  # what is left lies in files

    async def receive(self, reader: asyncio.StreamReader) -> int:
        raise Refused("bad_request", "Whoever may ask reaches /content itself.")

    def leave(self, reason: dict[str, Any], snapshot_bytes: int, was_ready: bool) -> None:
        if self.watchdog is not None:
            self.watchdog.close()
        ended, name = self.folder.parent / ".ended", self.spec["id"]
        # A full disk: then control hears the reason, or reads that the machine is lost.
        with contextlib.suppress(OSError):
            ended.mkdir(mode=0o700, exist_ok=True)
            draft = ended / f".{name}"
            draft.write_text(json.dumps({"id": name, **reason}), "utf-8")
            draft.replace(ended / f"{name}.json")
        if was_ready:
            # None there, or something else in its place: then it was no orderly end, and nothing more is known.
            with contextlib.suppress(OSError, ValueError):
                kept = ended / f"{name}.executions.json"
                safe_read.copy(self.run, handover.EXECUTIONS, kept, handover.MOST_BYTES)
        if snapshot_bytes > 0:
            self._leave_content(ended / f"{name}.content", snapshot_bytes)
        clean(self.folder, self.groups.remove)
        if was_ready:
            # A start that failed has somebody who reads its last words first.
            self.folder.with_name(f"{self.folder.name}.log").unlink(missing_ok=True)

    def _leave_content(self, place: Path, most_bytes: int) -> None:
        """Set /content aside, or leave word why it was not."""
        with contextlib.suppress(OSError):
            why_not = keep.set_aside(self._layout.content, place, most_bytes)
            if why_not:
                place.with_suffix(".note").write_text(why_not, "utf-8")


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
