"""The machine of a runtime in a container: the container itself, seen from its first process.

Everything inside descends from that process and runs as the same user, so nothing the supervisor must rely on lies in files: what it
was told came in the environment, the log is kept in memory, requests come over TCP with a key.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from spawner.container import link
from spawner.container.drives import LinkedDrives
from spawner.container.server import Places, Started
from spawner.model import Shape
from spawner.supervisor import processes, wire
from spawner.supervisor.drives import Drives
from spawner.supervisor.handover import HandOver, executions_in
from spawner.supervisor.limits import CGROUP_ROOT, Groups
from spawner.supervisor.machine import Serve
from spawner.supervisor.watchdog import Watchdog

LOG_LINES, LOG_LINE_BYTES, LOG_BYTES = 2000, 4096, 64 * 1024
SAMPLE_DATA = Path(__file__).parents[1] / "local" / "sample_data"
TERMINATION_LOG = Path("/dev/termination-log")


class Container:
    """A container whose server is starting."""

    rung = "container"

    def __init__(self, spec: dict[str, Any], places: Places, server: Started) -> None:
        """Take over the `server` that was started with `spec` (spawner.container.spec). Raise OSError."""
        self.spec, self.shape = spec, Shape(**spec["shape"])
        self.key = base64.b64decode(spec["ticket_key"])
        self._supervisor_key = base64.b64decode(spec.pop("supervisor_key"))
        self._supervisor_port = int(spec["supervisor_port"])
        self.run, self.folder = places.run, places.content
        self.main, self.ready_watch = server.pid, server.ready_watch
        home = Path(os.environ.get("HOME", "/root"))
        self.written: Sequence[Path] = tuple(
            path for path in (places.content, home, places.tmp) if path.is_dir()
        )
        self.groups = groups_around_us()
        self._log: deque[bytes] = deque(maxlen=LOG_LINES)
        log = os.fdopen(server.log, "rb")
        threading.Thread(target=self._keep_log, args=(log,), daemon=True, name="log").start()
        if not (self.folder / "sample_data").exists():
            shutil.copytree(SAMPLE_DATA, self.folder / "sample_data", copy_function=shutil.copyfile)
        self.drives: Drives = LinkedDrives(places.content, places.drives)
        self.watchdog: Watchdog | None = (
            None  # nobody inside can stop us, and the container's engine watches from outside
        )

    def _keep_log(self, lines: IO[bytes]) -> None:
        while line := lines.readline(LOG_LINE_BYTES):
            self._log.append(line)

    async def listen(self, serve: Serve) -> asyncio.Server:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, reap)
        return await asyncio.start_server(serve, "0.0.0.0", self._supervisor_port, limit=wire.MAX_LINE)

    async def may_ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return await link.greet(reader, writer, self._supervisor_key)

    def server_pid(self) -> int | None:
        return self.main

    def log_tail(self) -> str:
        return b"".join(list(self._log))[-LOG_BYTES:].decode("utf-8", "replace")

    async def end(self, main_fd: int, grace_seconds: float) -> None:
        if grace_seconds > 0:
            for number in (signal.SIGTERM, signal.SIGCONT):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.main, number)
            await wire.ended(main_fd, seconds=grace_seconds)
        await asyncio.to_thread(processes.kill_below, os.getpid())

    def to_hand_over(self, snapshot_bytes: int) -> HandOver | None:
        if self.spec["hand_over_seconds"] <= 0:
            return None  # whoever owns the container finds it there
        executions = executions_in(self.run)
        return HandOver(executions, self.folder, snapshot_bytes) if executions or snapshot_bytes else None

    async def receive(self, reader: asyncio.StreamReader) -> int:
        from spawner.supervisor import unpack  # few runtimes are given a snapshot

        return await unpack.receive(reader, self.folder)

    def leave(self, reason: dict[str, Any], snapshot_bytes: int, was_ready: bool) -> None:
        """Tell the reason to whoever looks at the container later; its files are kept by others, if they are."""
        line = json.dumps({"event": "end", "code": reason["code"], "message": reason["message"]})
        with contextlib.suppress(OSError):
            os.write(1, line.encode() + b"\n")
        with contextlib.suppress(OSError):
            if TERMINATION_LOG.exists():
                TERMINATION_LOG.write_text(line, "utf-8")


def groups_around_us() -> Groups:
    """Return the control groups this container is in, as they are seen from inside."""
    v2 = (CGROUP_ROOT / "cgroup.controllers").exists()
    memory = CGROUP_ROOT if v2 else CGROUP_ROOT / "memory"
    folders = (CGROUP_ROOT,) if v2 else (memory, CGROUP_ROOT / "cpu,cpuacct", CGROUP_ROOT / "pids")
    known = any((memory / name).exists() for name in ("memory.current", "memory.usage_in_bytes"))
    limited = frozenset({"memory", "pids", "cpu"}) if known else frozenset()
    return Groups(tuple(f for f in folders if f.is_dir()), limited, memory if known else None)


def reap() -> None:
    """Take the status of every child that has ended: the first process of a container inherits all orphans."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
