"""The processes of one runtime, found by looking at /proc: who descends from whom, and what memory they hold."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable
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


def children_of(pid: int) -> list[int]:
    """Return the children of one process, eldest first, without looking at every process there is where the kernel can tell."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return children().get(pid, []) if os.path.exists(f"/proc/{pid}") else []
    except OSError:
        return []
    return sorted(found, key=_started)


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 when it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def goes_on(pid: int) -> bool:
    """Return whether a process lives and is not stopped."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X", b"T", b"t")
    return False


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended, 0 when it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _started(pid: int) -> tuple[int, int]:
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19]), pid
    return 0, pid


def below(root: int) -> list[int]:
    """Return every descendant of `root`, parents before children."""
    family = children()
    return _descendants(root, lambda pid: family.get(pid, []))


def tree_of(root: int) -> list[int]:
    """Return `root` and every descendant, looking only at them; for a small tree on a large machine."""
    return [root, *_descendants(root, children_of)]


def _descendants(root: int, children_of: Callable[[int], list[int]]) -> list[int]:
    out, ask = [], [root]
    while ask:
        pids = children_of(ask.pop(0))
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
