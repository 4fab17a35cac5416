"""How much memory this runtime has, uses, and whether the kernel's out-of-memory killer struck: cgroup v2, v1, or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number of about this size


@dataclass(frozen=True)
class Memory:
    """`limit` and `used` in bytes; `limited` tells whether `limit` is this runtime's own or the whole machine's."""

    limit: int
    used: int
    limited: bool


class MemoryGauge:
    """Reads the memory of this runtime. `root` is where cgroup file systems are mounted; `fallback_limit` is in bytes."""

    def __init__(
        self,
        root: Path = Path("/sys/fs/cgroup"),
        own: Path = Path("/proc/self/cgroup"),
        fallback_limit: int | None = None,
    ) -> None:
        self._fallback_limit = fallback_limit
        self._folders = _own_folders(root, own)

    def read(self) -> Memory:
        """Return the tightest limit that holds here and what counts against it."""
        found: Memory | None = None
        for folder, version in self._folders:
            memory = _read_v2(folder) if version == 2 else _read_v1(folder)
            if memory is not None and (found is None or memory.limit < found.limit):
                found = memory
        if found is not None:
            return found
        machine = psutil.virtual_memory()
        if self._fallback_limit:
            return Memory(limit=self._fallback_limit, used=_resident_of_all(), limited=True)
        return Memory(limit=machine.total, used=machine.total - machine.available, limited=False)

    def oom_kills(self) -> int:
        """Return how often the out-of-memory killer struck in this runtime's cgroup (0 where that cannot be known)."""
        counts = []
        for folder, version in self._folders:
            name, key = ("memory.events", "oom_kill") if version == 2 else ("memory.oom_control", "oom_kill")
            counts.append(_keyed(folder / name, key) or 0)
        return max(counts, default=0)


def _own_folders(root: Path, own: Path) -> list[tuple[Path, int]]:
    """Return this process's memory cgroup folder and those above it, innermost first, with the cgroup version."""
    folders: list[tuple[Path, int]] = []
    for line in _lines(own):
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        hierarchy, controllers, path = parts
        if hierarchy == "0" and not controllers:
            base, version = root, 2
        elif "memory" in controllers.split(","):
            base, version = root / "memory", 1
        else:
            continue
        inner = base / path.lstrip("/")
        # Inside a container the path names the host's tree while the mount shows only our part of it.
        folder = inner if inner.is_dir() else base
        while True:
            folders.append((folder, version))
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent
    return folders


def _read_v2(folder: Path) -> Memory | None:
    limit = _number(folder / "memory.max")
    used = _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    cache = _keyed(folder / "memory.stat", "inactive_file") or 0
    return Memory(limit=limit, used=max(0, used - cache), limited=True)


def _read_v1(folder: Path) -> Memory | None:
    limit = _number(folder / "memory.limit_in_bytes")
    used = _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None or limit >= _UNLIMITED:
        return None
    cache = _keyed(folder / "memory.stat", "total_inactive_file") or 0
    return Memory(limit=limit, used=max(0, used - cache), limited=True)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _keyed(path: Path, key: str) -> int | None:
    for line in _lines(path):
        name, _, value = line.partition(" ")
        if name == key and value.strip().isdigit():
            return int(value)
    return None


def _resident_of_all() -> int:
    """Return the resident bytes of every process visible here: in a sandbox that is the runtime and nothing else."""
    total = 0
    for process in psutil.process_iter():
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total
