"""The processes of one runtime, found by looking at /proc: who descends from whom, and what memory they hold."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress

WAIT_MILLISECONDS = 5000


def children() -> dict[int, list[int]]:
    """Return the children of every process there is, eldest first."""
    found: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # The second field, the program's name, may hold anything but ends at the last bracket.
            fields = file.read().rpartition(b")")[2].split()
            found.setdefault(int(fields[1]), []).append((int(fields[19]), int(name)))
    return {parent: [pid for _, pid in sorted(pids)] for parent, pids in found.items()}


def below(root: int) -> list[int]:
    """Return every descendant of `root`, parents before children."""
    family = children()
    out, ask = [], [root]
    while ask:
        pids = family.get(ask.pop(0), [])
        out += pids
        ask += pids
    return out


def memory(pid: int) -> int:
    """Return the bytes only this process holds: anonymous and shared memory, no files. 0 when it is gone."""
    total = 0
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith((b"RssAnon:", b"RssShmem:")):
                total += int(line.split()[1]) * 1024
    return total


def kill_and_wait(pids: Iterable[int]) -> None:
    """Kill the processes and wait until they have ended."""
    handles = []
    for pid in pids:
        with suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    for handle in handles:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        wait(handle, WAIT_MILLISECONDS)
        os.close(handle)


def wait(handle: int, milliseconds: int) -> bool:
    """Return whether the process behind the descriptor ended within the time."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(milliseconds))


def kill_below(root: int) -> None:
    """Kill every descendant of `root`, also those that are born meanwhile."""
    while pids := [pid for pid in below(root) if _lives(pid)]:
        kill_and_wait(pids)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _lives(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return False
