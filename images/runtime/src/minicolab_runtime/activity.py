"""When this runtime was last used: a cell running or a person's action. Polls, pings and open tabs do not count."""

from __future__ import annotations

import time


def boottime() -> float:
    """Return seconds since boot, suspend included: no NTP step, time zone or sleep of the machine bends it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Activity:
    """The last moment something happened (CLOCK_BOOTTIME seconds). A new runtime counts as just used."""

    def __init__(self) -> None:
        self._last = boottime()

    def touch(self) -> None:
        """Note that a person acted, or a cell began, printed or ended, now."""
        self._last = boottime()

    def seconds_ago(self) -> float:
        """Return the seconds since then."""
        return max(0.0, boottime() - self._last)
