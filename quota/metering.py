"""What sessions used. Pure; recomputable: from the sessions, and from the append-only record alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from typing import Any

from quota.budgets import overlap
from quota.model import LIVE, Charge, Moment, Session
from quota.windows import days_of

BY = ("day", "user", "team", "accelerator")


@dataclass(frozen=True)
class Usage:
    """One line of a usage report; `key` is a day, a user, a team or an accelerator."""

    key: str
    sessions: int
    seconds: float
    accelerator_hours: float
    cpu_hours: float


def used_seconds(session: Session, now: Moment) -> float:
    """Return how long the session was ready, until its end or until now. Waiting and starting are not charged."""
    if session.used_seconds is not None:
        return session.used_seconds
    if session.ready is None:
        return 0.0
    if session.ready_boottime is not None and session.boot_id == now.boot_id:
        return max(0.0, now.boottime - session.ready_boottime)
    return max(0.0, ((session.ended or now.wall) - session.ready).total_seconds())


def charge_of(session: Session, now: Moment) -> Charge | None:
    """Return what the session has used so far, None when it never was ready."""
    if session.ready is None:
        return None
    seconds, live = used_seconds(session, now), session.state in LIVE
    # Of a live session the charge ends now, whatever was done to the wall clock since it began.
    start = now.wall - timedelta(seconds=seconds) if live else session.ready
    return Charge(
        session.id,
        session.user,
        session.teams,
        session.accelerator,
        start,
        seconds,
        session.cpus,
        session.price,
        live,
    )


def charges_of(sessions: Iterable[Session], now: Moment) -> list[Charge]:
    """Return the charges of those sessions that were ready."""
    return [charge for session in sessions if (charge := charge_of(session, now)) is not None]


def recomputed(
    session_id: str, events: Sequence[tuple[str, Mapping[str, Any], datetime]]
) -> tuple[float, float, float]:
    """Return (seconds, accelerator-hours, CPU-hours) of an ended session, out of its record alone."""
    created: Mapping[str, Any] = {}
    seconds = 0.0
    for event, detail, _ in events:
        if event == "created":
            created = detail
        elif event in ("ended", "failed"):
            seconds = float(detail.get("used_seconds", 0.0))
    hours = seconds / 3600
    return seconds, hours * float(created.get("price", 0.0)), hours * float(created.get("cpus", 0.0))


def report(
    charges: Iterable[Charge], by: str, since: datetime, until: datetime, zone: tzinfo
) -> tuple[list[Usage], Usage]:
    """Return usage between two instants, a line per day, user, team or accelerator in order, and the total.

    A session of several teams is in the line of each of them, and in the total once.
    """
    lines: dict[str, Usage] = {}
    total = Usage("", 0, 0.0, 0.0, 0.0)
    for charge in charges:
        inside = overlap(charge, since, until)
        if inside <= 0:
            continue
        total = _more(total, charge, inside)
        if by == "day":
            parts = days_of(max(charge.start, since), inside, zone)
        else:
            keys = {"user": [charge.user], "team": sorted(charge.teams), "accelerator": [charge.accelerator]}[
                by
            ]
            parts = [(key, inside) for key in keys]
        for key, seconds in parts:
            lines[key] = _more(lines.get(key, Usage(key, 0, 0.0, 0.0, 0.0)), charge, seconds)
    return [lines[key] for key in sorted(lines)], total


def _more(line: Usage, charge: Charge, seconds: float) -> Usage:
    return replace(
        line,
        sessions=line.sessions + 1,
        seconds=line.seconds + seconds,
        accelerator_hours=line.accelerator_hours + seconds / 3600 * charge.price,
        cpu_hours=line.cpu_hours + seconds / 3600 * charge.cpus,
    )
