"""The programs of a cluster as processes: started once, recorded, ended by what was recorded.

A record holds the process id and when that process began, so that a number that the kernel has given to somebody else since is
never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.harness.errors import ClusterError

GRACE = 10.0


def began(pid: int) -> int | None:
    """Return when the process began, in clock ticks after the machine did; None when it is no more (or waits to be reaped)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def end(pid: int, began_at: int, *, grace: float = GRACE) -> None:
    """End this very process: politely, then not. Return when it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if began(pid) != began_at:
            return
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, GRACE)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if poll.poll(patience * 1000):
                return
        raise ClusterError(f"process {pid} does not end")
    finally:
        os.close(handle)


class Processes:
    """The recorded processes of one cluster; `folder` holds a record and a log for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Start a program, unless it runs already."""
        if self.alive(name):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **(environment or {})},
            )
        self._children[name] = child
        self._record(name).write_text(json.dumps({"pid": child.pid, "began": began(child.pid)}), "utf-8")

    def pid(self, name: str) -> int | None:
        """Return the process id of a program that runs."""
        known = self._read(name)
        return known[0] if known and began(known[0]) == known[1] else None

    def alive(self, name: str) -> bool:
        child = self._children.get(name)
        if child is not None and child.poll() is not None:
            return False
        return self.pid(name) is not None

    def check(self, name: str) -> None:
        """Raise ClusterError with the end of its log when the program has ended."""
        if not self.alive(name):
            tail = (
                self.log(name).read_text("utf-8", "replace").splitlines()[-8:]
                if self.log(name).exists()
                else []
            )
            raise ClusterError(f"{name} has ended:\n  " + "\n  ".join(tail))

    def stop(self, name: str, *, grace: float = GRACE) -> None:
        """End a program that was started here, in this process or an earlier one, and forget it."""
        known = self._read(name)
        if known is not None:
            end(*known, grace=grace)
        child = self._children.pop(name, None)
        if child is not None:
            child.wait(GRACE)
        self._record(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the programs that have a record."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> tuple[int, int] | None:
        try:
            known = json.loads(self._record(name).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return None if known["began"] is None else (int(known["pid"]), int(known["began"]))
