"""Limits of a runtime: control groups where they can be written; what they can not hold, the supervisor watches."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from spawner.model import Shape
from spawner.supervisor import processes

CGROUP_ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_MICROSECONDS = 100_000


@dataclass(frozen=True)
class Groups:
    """The control groups of one runtime. `limited` are the controllers whose limit holds; `memory` counts its memory."""

    folders: tuple[Path, ...]
    limited: frozenset[str]
    memory: Path | None

    def shown(self) -> tuple[tuple[Path, str], ...]:
        """Return what of /sys/fs/cgroup a sandbox may see, read-only: its own limits, so that programs can keep to them."""
        if any((folder / "cgroup.controllers").exists() for folder in self.folders):
            return tuple((folder, str(CGROUP_ROOT)) for folder in self.folders)
        return tuple((folder, str(CGROUP_ROOT / folder.parts[-3])) for folder in self.folders)

    def memory_used(self) -> int | None:
        """Return the bytes the runtime holds, less what the kernel would give back; None when nothing counts it."""
        if self.memory is None:
            return None
        try:
            if (self.memory / "memory.current").exists():
                used = int((self.memory / "memory.current").read_text())
                cache = _stat(self.memory, "inactive_file")
            else:
                used = int((self.memory / "memory.usage_in_bytes").read_text())
                cache = _stat(self.memory, "total_inactive_file")
        except (OSError, ValueError):
            return None
        return max(0, used - cache)

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used, None when nothing counts it."""
        for folder in self.folders:
            with contextlib.suppress(OSError, ValueError, IndexError):
                for line in (folder / "cpu.stat").read_text().splitlines():
                    if line.startswith("usage_usec "):
                        return int(line.split()[1]) / 1e6
        return None

    def oom_kills(self) -> int:
        """Return how often the kernel killed a process of this runtime for want of memory."""
        if self.memory is None:
            return 0
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                for line in (self.memory / name).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def members(self) -> list[int]:
        """Return the processes in the groups."""
        found: set[int] = set()
        for folder in self.folders:
            with contextlib.suppress(OSError, ValueError):
                found |= {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
        return sorted(found - {os.getpid()})

    def kill(self) -> None:
        """Kill every process in the groups and wait for their end."""
        while pids := self.members():
            processes.kill_and_wait(pids)

    def remove(self) -> bool:
        """Remove the groups; return whether none is left (the kernel needs a moment after the last process)."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in self.folders)


def find_groups(runtime_id: str) -> Groups:
    """Return the groups there are of a runtime, for whoever cleans up after its supervisor."""
    places = [CGROUP_ROOT / name / "minicolab" / runtime_id for name in CONTROLLERS]
    places.append(CGROUP_ROOT / "minicolab" / runtime_id)
    return Groups(tuple(place for place in places if place.is_dir()), frozenset(), None)


def make_groups(runtime_id: str, shape: Shape) -> Groups:
    """Make and limit control groups for a runtime, v2 or v1, as far as this machine lets us."""
    v2 = (CGROUP_ROOT / "cgroup.controllers").exists()
    return _make_v2(runtime_id, shape) if v2 else _make_v1(runtime_id, shape)


def what_can_be_limited() -> frozenset[str]:
    """Try it: return which of memory, pids and cpu control groups can limit on this machine."""
    groups = make_groups(f"probe-{secrets.token_hex(6)}", Shape("probe", 1 << 30, 1.0, 64))
    groups.remove()
    return groups.limited


def _make_v1(runtime_id: str, shape: Shape) -> Groups:
    folders: list[Path] = []
    limited: set[str] = set()
    settings = {
        "memory": {"memory.limit_in_bytes": str(shape.memory_bytes)},
        "pids": {"pids.max": str(shape.processes)},
        "cpu": {
            "cpu.cfs_period_us": str(PERIOD_MICROSECONDS),
            "cpu.cfs_quota_us": str(int(shape.cpus * PERIOD_MICROSECONDS)),
        },
    }
    for controller, values in settings.items():
        folder = CGROUP_ROOT / controller / "minicolab" / runtime_id
        if not (CGROUP_ROOT / controller / "cgroup.procs").exists() or not _make(folder):
            continue
        folders.append(folder)
        if _write(folder, values):
            limited.add(controller)
    memory = CGROUP_ROOT / "memory" / "minicolab" / runtime_id
    if memory in folders:
        # Swap counts too, where the kernel accounts for it; else a runtime could go on there.
        with contextlib.suppress(OSError):
            (memory / "memory.memsw.limit_in_bytes").write_text(str(shape.memory_bytes))
    return Groups(tuple(folders), frozenset(limited), memory if memory in folders else None)


def _make_v2(runtime_id: str, shape: Shape) -> Groups:
    parent = CGROUP_ROOT / "minicolab"
    folder = parent / runtime_id
    with contextlib.suppress(OSError):
        parent.mkdir(exist_ok=True)
    for controller in CONTROLLERS:
        for above in (CGROUP_ROOT, parent):
            with contextlib.suppress(OSError):
                (above / "cgroup.subtree_control").write_text(f"+{controller}")
    if not _make(folder):
        return Groups((), frozenset(), None)
    settings = {
        "memory": {"memory.max": str(shape.memory_bytes)},
        "pids": {"pids.max": str(shape.processes)},
        "cpu": {"cpu.max": f"{int(shape.cpus * PERIOD_MICROSECONDS)} {PERIOD_MICROSECONDS}"},
    }
    limited = frozenset(name for name, values in settings.items() if _write(folder, values))
    with contextlib.suppress(OSError):
        if (folder / "memory.swap.max").exists():
            (folder / "memory.swap.max").write_text("0")
    return Groups((folder,), limited, folder if "memory" in limited else None)


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    if os.access(folder / "cgroup.procs", os.W_OK):
        return True
    with contextlib.suppress(OSError):
        folder.rmdir()
    return False


def _write(folder: Path, values: dict[str, str]) -> bool:
    """Set the limits; return whether all of them were there and taken."""
    try:
        for name, value in values.items():
            # Not write_text: that would make the file where the controller is off.
            fd = os.open(folder / name, os.O_WRONLY)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
    except OSError:
        return False
    return True


def _stat(folder: Path, key: str) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
