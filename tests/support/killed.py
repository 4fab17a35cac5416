"""A plugin that stops at its steps: `python -m support.killed FOLDER ARGUMENTS…` is the drive plugin that freezes pods.

A step is whatever it does to mounts and folders below kubelet's folder of pods; one step done is the next not begun, so that
stopping before each covers every moment.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage_mount.plugin import __main__ as plugin
from storage_mount.plugin import system

STEPS: tuple[tuple[Any, str, int], ...] = (  # of what, which, and which argument says where
    (system, "mount_tmpfs", 1),
    (system, "make_shared", 0),
    (system, "bind", 1),
    (system, "detach", 0),
    (Path, "mkdir", 0),
    (Path, "rmdir", 0),
)
_POD = re.compile(r"/pods/([^/]+)/volumes/")


def kill_before(number: int) -> None:
    """Let this process kill itself before its step `number`, counted from 0."""
    left = [number]

    def step(_pod: str) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    _before_every(step)


def freeze(folder: Path) -> None:
    """Let the first pod that is met get no further than before its first step, the second than before its second, and so on.

    What a pod may not is an error, as of a file system that does not do its work. `<n> <uid of the pod>` appears in the folder then.
    """
    rows: dict[str, int] = {}
    taken: Counter[str] = Counter()

    def step(pod: str) -> None:
        row = rows.setdefault(pod, len(rows))
        if taken[pod] == row:
            (folder / f"{row} {pod}").touch()
            raise OSError(errno.EIO, "frozen")
        taken[pod] += 1

    _before_every(step)


def _before_every(step: Callable[[str], None]) -> None:
    for owner, name, where in STEPS:
        setattr(owner, name, _stepped(name, getattr(owner, name), where, step))


def _stepped(
    name: str, do: Callable[..., Any], where: int, step: Callable[[str], None]
) -> Callable[..., Any]:
    def stepped(*arguments: Any, **named: Any) -> Any:
        place = arguments[where]
        text = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else str(place)
        pod = _POD.search(text)
        if pod is not None and not (name == "rmdir" and os.path.ismount(text)):  # that does nothing
            step(pod[1])
        return do(*arguments, **named)

    return stepped


if __name__ == "__main__":
    freeze(Path(sys.argv.pop(1)))
    raise SystemExit(plugin.main())
