"""A plugin that dies at any of its steps: `python -m support.killed N ARGUMENTS…` is the drive plugin, killed before step N.

A step is whatever it does to mounts and folders below kubelet's folder of pods; one step done is the next not begun, so that
killing before each covers every moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage_mount.plugin import __main__ as plugin
from storage_mount.plugin import system

STEPS: tuple[tuple[Any, str], ...] = (
    (system, "mount_tmpfs"),
    (system, "make_shared"),
    (system, "bind"),
    (system, "detach"),
    (Path, "mkdir"),
    (Path, "rmdir"),
)


def kill_before(number: int) -> None:
    """Let this process kill itself before its step `number`, counted from 0."""
    left = [number]

    def tick() -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    for owner, name in STEPS:
        setattr(owner, name, _counted(getattr(owner, name), tick))


def _counted(step: Callable[..., Any], tick: Callable[[], None]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        if not isinstance(arguments[0], Path) or "/pods/" in str(arguments[0]):
            tick()
        return step(*arguments, **named)

    return counted


if __name__ == "__main__":
    kill_before(int(sys.argv.pop(1)))
    raise SystemExit(plugin.main())
