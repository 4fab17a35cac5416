"""When budgets fill up again. Pure.

Calendar windows begin at midnight of their own time zone: of a day, of a Monday, of the first of a month. On the days on which
clocks change they are an hour shorter or longer; durations are never taken from local time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from quota.model import Window

ROLLING = "rolling"
CALENDAR = ("day", "week", "month")


def zone_of(name: str) -> tzinfo:
    """Return the time zone called `name`. Raise ValueError when there is none of that name."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"there is no time zone '{name}'") from error


def start_of(window: Window, now: datetime, zone: tzinfo) -> datetime:
    """Return when (aware UTC) the window that holds `now` began."""
    if window.kind == ROLLING:
        return now - timedelta(seconds=window.seconds)
    return _midnight(_first_day(window, now.astimezone(zone)), zone)


def end_of(window: Window, now: datetime, zone: tzinfo) -> datetime | None:
    """Return when (aware UTC) the calendar window that holds `now` ends; None for a rolling one."""
    if window.kind == ROLLING:
        return None
    first = _first_day(window, now.astimezone(zone))
    if window.kind == "day":
        after = first + timedelta(days=1)
    elif window.kind == "week":
        after = first + timedelta(days=7)
    else:
        after = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
    return _midnight(after, zone)


def name_of(window: Window) -> str:
    """Return what people call it: `month`, `rolling 7 days`."""
    if window.kind != ROLLING:
        return window.kind
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if window.seconds % size == 0:
            count = window.seconds / size
            return f"rolling {count:.0f} {name}{'' if count == 1 else 's'}"
    return f"rolling {window.seconds:g} seconds"


def days_of(start: datetime, seconds: float, zone: tzinfo) -> list[tuple[str, float]]:
    """Split `seconds` from `start` at the midnights of `zone`: (day as YYYY-MM-DD, seconds in it)."""
    found: list[tuple[str, float]] = []
    at, left = start, seconds
    while left > 0:
        local = at.astimezone(zone)
        after = _midnight(local.replace(tzinfo=None) + timedelta(days=1), zone)
        part = min(left, (after - at).total_seconds())
        found.append((local.strftime("%Y-%m-%d"), part))
        at, left = after, left - part
    return found


def _first_day(window: Window, local: datetime) -> datetime:
    day = local.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    if window.kind == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if window.kind == "month" else day


def _midnight(day: datetime, zone: tzinfo) -> datetime:
    start = day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=zone)
    return start.astimezone(UTC)
