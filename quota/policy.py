"""What sessions may do and when they end. Pure: the time is an argument.

The runtime itself carries the same limits (its supervisor ends it), so that they hold while every service is dead; what is
decided here is what may start, what is announced, what people are shown, and what is ended because its supervisor did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from quota.model import Allowed, Announcement, Denied, Limits, Moment, Reason, Session

LIFETIME, IDLE = "max_lifetime", "idle"
CLOCK_STEP = timedelta(seconds=2)  # less than this is drift, not a clock that was set


def may_start(limits: Limits, live: Sequence[Session]) -> Allowed | Denied:
    """Return whether a user with these live sessions may start one more."""
    used = len(live)
    if used < limits.max_runtimes:
        return Allowed()
    noun = "runtime" if limits.max_runtimes == 1 else "runtimes"
    message = f"You have {used} of {limits.max_runtimes} {noun} already. End one under Runtime > Manage sessions, and try again."
    return Denied("too_many_runtimes", message, limits.max_runtimes, used)


def life_left(session: Session, now: Moment) -> float | None:
    """Return the seconds until the session reaches its longest life, counted from ready; None until it is ready."""
    age = _since(session, session.ready, session.ready_boottime, now)
    return session.max_lifetime_seconds - age if age is not None else None


def idle_left(session: Session, now: Moment) -> float | None:
    """Return the seconds until the session ends unless it is used; None until it is ready."""
    if session.ready is None:
        return None
    last = session.last_activity or session.ready
    boot = session.active_boottime if session.active_boottime is not None else session.ready_boottime
    age = _since(session, last, boot, now)
    return session.idle_limit_seconds - age if age is not None else None


def deadline(session: Session, now: Moment) -> datetime | None:
    """Return when, by the wall clock as it is now, the session reaches its longest life; None until it is ready."""
    return _wall(session.ready, session.max_lifetime_seconds, life_left(session, now), now)


def idle_deadline(session: Session, now: Moment) -> datetime | None:
    """Return when, by the wall clock as it is now, the session ends unless it is used; None until it is ready."""
    last = session.last_activity or session.ready
    return _wall(last, session.idle_limit_seconds, idle_left(session, now), now)


def warning_due(
    limits: Limits, session: Session, now: Moment, told: frozenset[tuple[str, float]]
) -> Announcement | None:
    """Return the announcement that is due, None when none is.

    `told` are (which end, threshold) pairs announced since the last activity. Thresholds not shorter than the limit are left out,
    and of several that are due only the nearest is told.
    """
    for ends, left, limit in (
        (LIFETIME, life_left(session, now), session.max_lifetime_seconds),
        (IDLE, idle_left(session, now), session.idle_limit_seconds),
    ):
        if left is None or left <= 0:
            continue
        due = [t for t in limits.warn_before_seconds if left <= t < limit]
        if due and (ends, min(due)) not in told:
            return Announcement(ends, min(due), left)
    return None


def still_told(
    session: Session, now: Moment, told: frozenset[tuple[str, float]]
) -> frozenset[tuple[str, float]]:
    """Return what of `told` still holds: an end that moved away is announced anew when it comes near again."""
    left = {LIFETIME: life_left(session, now), IDLE: idle_left(session, now)}
    return frozenset(
        (ends, threshold)
        for ends, threshold in told
        if (rest := left[ends]) is not None and rest <= threshold
    )


def overdue(session: Session, now: Moment, *, grace_seconds: float, evidence: bool) -> Reason | None:
    """Return why the session should have ended `grace_seconds` ago, None when it should not.

    `evidence`: whether its activity was just looked at. Without it nobody can say that a runtime was not used, so only its
    longest life counts.
    """
    life, idle = life_left(session, now), idle_left(session, now)
    if life is not None and life < -grace_seconds:
        return Reason(
            LIFETIME, f"The runtime reached its longest life of {duration(session.max_lifetime_seconds)}."
        )
    if evidence and idle is not None and idle < -grace_seconds:
        limit = duration(session.idle_limit_seconds)
        return Reason(IDLE, f"Idle for {limit} (limit {limit}).")
    return None


def outlived_by_boot(session: Session, now: Moment) -> bool:
    """Return whether the machine was started again since this session began: then nothing of it can be running."""
    return session.boot_id is not None and session.boot_id != now.boot_id


def duration(seconds: float) -> str:
    """Return a duration as people say it: `90 minutes`, `12 hours`, `1 second`."""
    for size, name in ((3600, "hour"), (60, "minute")):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:.0f} {name}s"
    amount = f"{seconds:g}"
    return f"{amount} second{'' if amount == '1' else 's'}"


def _since(session: Session, wall: datetime | None, boottime: float | None, now: Moment) -> float | None:
    """Return the seconds since an instant: by the boot clock when both belong to one boot, else by the wall clock."""
    if wall is None:
        return None
    if boottime is not None and session.boot_id == now.boot_id:
        return now.boottime - boottime
    return (now.wall - wall).total_seconds()


def _wall(since: datetime | None, limit: float, left: float | None, now: Moment) -> datetime | None:
    """Return the end as recorded; when the wall clock was set since, as it is seen from now."""
    if since is None or left is None:
        return None
    recorded, seen = since + timedelta(seconds=limit), now.wall + timedelta(seconds=left)
    return recorded if abs(recorded - seen) < CLOCK_STEP else seen
