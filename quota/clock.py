"""The one place that reads the time.

Durations come from CLOCK_BOOTTIME, which no NTP step, time zone or suspend can bend; wall-clock time is for display only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where a service gets its time from."""

    def now(self) -> datetime:
        """Return the wall-clock time as an aware UTC datetime. For display and records only."""
        ...

    def boottime(self) -> float:
        """Return seconds since boot, suspend included (CLOCK_BOOTTIME). For every duration and deadline."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(tz=UTC)

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class FakeClock:
    """A clock that tests move by hand."""

    wall: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    boot: float = 1000.0

    def now(self) -> datetime:
        return self.wall

    def boottime(self) -> float:
        return self.boot

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        from datetime import timedelta

        self.wall += timedelta(seconds=seconds)
        self.boot += seconds
