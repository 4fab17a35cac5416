"""A plugin that is killed at any of its steps: SIGKILL before or after the n-th thing it does to mounts and folders."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage_mount.plugin import system

STEPS: tuple[tuple[Any, str], ...] = (
    (system, "mount_tmpfs"),
    (system, "make_shared"),
    (system, "bind"),
    (system, "detach"),
    (Path, "mkdir"),
    (Path, "rmdir"),
)


def kill_at(number: int) -> None:
    """Let this process kill itself at its step `number`: even ones lie before, odd ones after something was done."""
    left = [number]

    def tick() -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    for owner, name in STEPS:
        setattr(owner, name, _counted(getattr(owner, name), tick))


def _counted(step: Callable[..., Any], tick: Callable[[], None]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        tick()
        try:
            return step(*arguments, **named)
        finally:
            tick()

    return counted
