"""Drives inside a container. Somebody outside binds a folder at /drives/<name>; here its links are put where the user wants it."""

from __future__ import annotations

import asyncio
import os
import re
import select
import time
from pathlib import Path

from spawner.supervisor.drives import Drives, Refused

ARRIVE_SECONDS = 20.0
_NAME = re.compile(r"[0-9a-f]{12}")


class LinkedDrives(Drives):
    """The drives of a container: `source` of a mount is a name below `drives`."""

    def __init__(self, content: Path, drives: Path) -> None:
        super().__init__(content, None)
        self._drives = drives

    async def mount(self, source: str, target: str, *, readonly: bool) -> None:
        if not _NAME.fullmatch(source):
            raise Refused("bad_request", "A drive is named by 12 hexadecimal digits.")
        place = self._drives / source
        if not await asyncio.to_thread(wait_for_mount, place, ARRIVE_SECONDS):
            raise Refused("mount_failed", f"The drive did not appear within {ARRIVE_SECONDS:.0f} seconds.")
        await super().mount(str(place), target, readonly=readonly)


def wait_for_mount(place: Path, seconds: float) -> bool:
    """Return whether `place` is a mount, at once when it becomes one."""
    wanted, until = os.fsencode(place), time.monotonic() + seconds
    with Path("/proc/self/mountinfo").open("rb") as mountinfo:
        changes = select.poll()
        changes.register(mountinfo, select.POLLPRI | select.POLLERR)
        while True:
            mountinfo.seek(0)
            if any(line.split()[4] == wanted for line in mountinfo):
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            changes.poll(left * 1000)
