"""What sessions may do and when they end. Pure: the time is an argument.

The runtime itself carries the same limits (its supervisor ends it), so that they hold while every service is dead; what is
decided here is what may start, what is announced, what people are shown, and what is ended because its supervisor did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from quota.model import (
    Allowed,
    Announcement,
    Balance,
    Denied,
    End,
    Kind,
    Limits,
    Moment,
    Reason,
    Rule,
    Rules,
    Session,
    Unit,
    Who,
)

LIFETIME, IDLE, BUDGET = "max_lifetime", "idle", "budget"
BUDGET_USED_UP = "budget_used_up"
UNITS = {Unit.ACCELERATOR_HOURS: "accelerator-hours", Unit.CPU_HOURS: "CPU-hours"}
CLOCK_STEP = timedelta(seconds=2)  # less than this is drift, not a clock that was set


def limits_for(rules: Rules, who: Who, kind: Kind) -> Limits:
    """Return the limits of a runtime of `kind` for `who`.

    The base counts for everybody. Of the rules that match, the last one that names a value gives it, value by value: so a later,
    narrower rule overrules an earlier, wider one, and what it does not name stays.
    """
    limits = rules.base
    for rule in rules.rules:
        if _matches(rule, who, kind):
            named = {name: getattr(rule, name) for name in _VALUES if getattr(rule, name) is not None}
            limits = replace(limits, **named)
    return limits


_VALUES = (
    "allow",
    "max_lifetime_seconds",
    "idle_limit_seconds",
    "warn_before_seconds",
    "max_runtimes",
    "extensions",
    "extend_by_seconds",
)


def _matches(rule: Rule, who: Who, kind: Kind) -> bool:
    people = rule.users is None and rule.groups is None
    named = who.user in (rule.users or ()) or bool((rule.groups or frozenset()) & who.groups)
    return (
        (people or named)
        and (rule.accelerators is None or kind.accelerator in rule.accelerators)
        and (rule.shapes is None or kind.shape in rule.shapes)
    )


def may_start(
    limits: Limits, live: Sequence[Session], kind: Kind | None = None, balances: Sequence[Balance] = ()
) -> Allowed | Denied:
    """Return whether a user with these live sessions may start one more of `kind`, which the budgets of `balances` would pay."""
    if not limits.allow:
        what = "this kind of runtime"
        if kind is not None:
            what = kind.accelerator if kind.accelerator != "NONE" else f"the size {kind.shape}"
        message = f"You may not use {what} here. Ask an administrator, or choose another runtime type."
        return Denied("not_eligible", message, 0, 0)
    used = len(live)
    if used >= limits.max_runtimes:
        noun = "runtime" if limits.max_runtimes == 1 else "runtimes"
        message = f"You have {used} of {limits.max_runtimes} {noun} already. End one under Runtime > Manage sessions, and try again."
        return Denied("too_many_runtimes", message, limits.max_runtimes, used, unit="runtimes")
    for balance in balances:
        if balance.used >= balance.limit:
            return Denied(
                BUDGET_USED_UP,
                used_up(balance),
                balance.limit,
                balance.used,
                balance.resets_at,
                unit=balance.budget.unit,
            )
    return Allowed()


def used_up(balance: Balance) -> str:
    """Return the sentence that a budget is used up."""
    whose = "your" if balance.budget.per == "user" else f"the team {balance.holder}'s"
    return f"All {hours(balance.limit)} {UNITS[balance.budget.unit]} of {whose} budget '{balance.budget.name}' are used up."


def hours(value: float) -> str:
    """Return a number of hours as people write it: `30`, `2.5`, `0.004`."""
    if 0 < value < 0.0001:
        return "less than 0.0001"
    text = f"{value:.2f}" if value >= 0.01 else f"{value:.4f}"
    return text.rstrip("0").rstrip(".")


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


def budget_left(session: Session, now: Moment) -> float | None:
    """Return the seconds until the session's budget is used up; None when none binds it."""
    age = _since(session, session.ready, session.ready_boottime, now)
    return session.budget_seconds - age if age is not None and session.budget_seconds is not None else None


def ends_of(session: Session, now: Moment) -> list[End]:
    """Return the ends a session has before it, the nearest first; none before it is ready."""
    age = _since(session, session.ready, session.ready_boottime, now)
    known = (
        (LIFETIME, life_left(session, now), session.max_lifetime_seconds),
        (IDLE, idle_left(session, now), session.idle_limit_seconds),
        (BUDGET, budget_left(session, now), session.budget_seconds or 0.0),
    )
    if age is None:
        return []
    ends = [End(kind, left, limit) for kind, left, limit in known if left is not None]
    return sorted(ends, key=lambda end: end.seconds_left)


def deadline(session: Session, now: Moment) -> datetime | None:
    """Return when, by the wall clock as it is now, the session reaches its longest life; None until it is ready."""
    return _wall(session.ready, session.max_lifetime_seconds, life_left(session, now), now)


def idle_deadline(session: Session, now: Moment) -> datetime | None:
    """Return when, by the wall clock as it is now, the session ends unless it is used; None until it is ready."""
    last = session.last_activity or session.ready
    return _wall(last, session.idle_limit_seconds, idle_left(session, now), now)


def budget_deadline(session: Session, now: Moment) -> datetime | None:
    """Return when, by the wall clock as it is now, the session's budget is used up; None when none binds it."""
    if session.budget_seconds is None:
        return None
    return _wall(session.ready, session.budget_seconds, budget_left(session, now), now)


def warning_due(
    limits: Limits, session: Session, now: Moment, told: frozenset[tuple[str, float]]
) -> Announcement | None:
    """Return the announcement that is due, None when none is.

    `told` are (which end, threshold) pairs announced since the last activity. Thresholds not shorter than the limit are left out,
    and of several that are due only the nearest is told.
    """
    for end in ends_of(session, now):
        if end.seconds_left <= 0:
            continue
        due = [t for t in limits.warn_before_seconds if end.seconds_left <= t < end.limit_seconds]
        if due and (end.kind, min(due)) not in told:
            return Announcement(end.kind, min(due), end.seconds_left)
    return None


def still_told(
    session: Session, now: Moment, told: frozenset[tuple[str, float]]
) -> frozenset[tuple[str, float]]:
    """Return what of `told` still holds: an end that moved away is announced anew when it comes near again."""
    left = {end.kind: end.seconds_left for end in ends_of(session, now)}
    return frozenset((kind, t) for kind, t in told if kind in left and left[kind] <= t)


def seconds_to_next(
    limits: Limits, session: Session, now: Moment, grace_seconds: float, *, evidence: bool = True
) -> float | None:
    """Return in how many seconds there is something to announce or to end next; None when the session is not ready.

    0 for one that is overdue. `evidence` False: it can not be told whether it was used, so being idle is nothing to end it for.
    """
    found: list[float] = []
    for end in ends_of(session, now):
        overdue_in = end.seconds_left + grace_seconds
        if overdue_in <= 0 and (evidence or end.kind != IDLE):
            return 0.0
        found += [end.seconds_left - t for t in limits.warn_before_seconds if t < end.limit_seconds]
        found.append(overdue_in)
    ahead = [seconds for seconds in found if seconds > 0]
    return min(ahead) if ahead else (0.0 if found else None)


def relimited(
    session: Session, wanted: Limits, now: Moment, told: frozenset[tuple[str, float]]
) -> tuple[float, float]:
    """Return (max_lifetime_seconds, idle_limit_seconds) of a running session once the limits are `wanted`.

    Longer limits count at once. Shorter ones never end it without the first announcement's notice, and never earlier than was
    announced already.
    """
    notice = max(wanted.warn_before_seconds, default=0.0)
    announced = {kind for kind, _ in told}

    def new(kind: str, limit: float, old: float, left: float | None) -> float:
        if left is None or limit >= old:
            return limit
        age = old - left
        least = left if kind in announced else min(left, notice)
        return age + max(limit - age, least)

    lifetime = wanted.max_lifetime_seconds + session.extended_seconds
    return (
        new(LIFETIME, lifetime, session.max_lifetime_seconds, life_left(session, now)),
        new(IDLE, wanted.idle_limit_seconds, session.idle_limit_seconds, idle_left(session, now)),
    )


def may_extend(limits: Limits, session: Session) -> Allowed | Denied:
    """Return whether the user may lengthen the life of this session once more."""
    if limits.extensions == 0:
        message = "The life of a runtime can not be extended here. Ask an administrator."
        return Denied("extend_not_allowed", message, 0, 0)
    if session.extensions_used >= limits.extensions:
        times = "once" if limits.extensions == 1 else f"{limits.extensions} times"
        message = f"This runtime was extended {times} already, which is as often as is allowed."
        return Denied("no_extensions_left", message, limits.extensions, session.extensions_used)
    return Allowed()


def overdue(session: Session, now: Moment, *, grace_seconds: float, evidence: bool) -> Reason | None:
    """Return why the session should have ended `grace_seconds` ago, None when it should not.

    `evidence`: whether its activity was just looked at. Without it nobody can say that a runtime was not used, so only its
    longest life counts.
    """
    life, idle, budget = life_left(session, now), idle_left(session, now), budget_left(session, now)
    if life is not None and life < -grace_seconds:
        return Reason(
            LIFETIME, f"The runtime reached its longest life of {duration(session.max_lifetime_seconds)}."
        )
    if budget is not None and budget < -grace_seconds:
        return budget_reason(session.budget_name or "")
    if evidence and idle is not None and idle < -grace_seconds:
        limit = duration(session.idle_limit_seconds)
        return Reason(IDLE, f"Idle for {limit} (limit {limit}).")
    return None


def budget_reason(name: str) -> Reason:
    """Return why a runtime ends whose budget is used up."""
    return Reason(BUDGET_USED_UP, f"The budget '{name}' is used up.")


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
