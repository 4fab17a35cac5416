"""The control group below which all pods of a cluster live, in every hierarchy the machine has."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from cluster.harness.errors import ClusterError

LONGEST = 20.0
INHERITED = ("cpuset.cpus", "cpuset.mems")  # version 1: a new cpuset is empty, and nothing can run in it
CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def hierarchies() -> list[tuple[Path, bool]]:
    """Return where control groups are mounted, and whether that is version 2."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind in ("cgroup", "cgroup2"):
            found.append((Path(before.split()[4]), kind == "cgroup2"))
    return found


class ControlGroup:
    """A named group in every hierarchy."""

    def __init__(self, name: str) -> None:
        self.name = name

    def make(self) -> None:
        for mount, unified in hierarchies():
            group = mount / self.name
            group.mkdir(exist_ok=True)
            if unified:
                # Where version 2 carries no controllers (beside version 1), there is nothing to hand down.
                offered = set((mount / "cgroup.controllers").read_text().split())
                for controller in CONTROLLERS:
                    if controller in offered:
                        with contextlib.suppress(OSError):
                            (mount / "cgroup.subtree_control").write_text(f"+{controller}")
            for name in INHERITED:
                if (group / name).exists() and not unified:
                    (group / name).write_text((mount / name).read_text())

    def folders(self) -> list[Path]:
        """Return the groups that exist, deepest first."""
        return [
            Path(folder)
            for mount, _ in hierarchies()
            for folder, _, _ in os.walk(mount / self.name, topdown=False)
        ]

    def processes(self) -> set[int]:
        found: set[int] = set()
        for folder in self.folders():
            with contextlib.suppress(OSError):
                found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
        return found - {0}

    def remove(self) -> None:
        """Kill what runs in the group and remove it. Raise ClusterError when something stays."""
        deadline = time.monotonic() + LONGEST
        while True:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for folder in self.folders():
                with contextlib.suppress(OSError):
                    folder.rmdir()
            left = self.folders()
            if not left:
                return
            if time.monotonic() > deadline:
                raise ClusterError(f"control groups stay: {', '.join(map(str, left[:3]))}")
            time.sleep(0.05)
