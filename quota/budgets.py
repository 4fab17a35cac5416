"""What is left of budgets, and when they are used up. Pure: charges, grants and the time are arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo

from quota.model import Balance, Budget, Charge, Grant, Kind, Moment, Per, Rules, Session, Unit, Who, Window
from quota.windows import ROLLING, end_of, start_of, zone_of

HOUR = 3600.0
NEVER_SECONDS = 1e9


def price_of(rules: Rules, accelerator: str) -> float:
    """Return how many accelerator-hours an hour with this accelerator costs; nothing when there is none."""
    return rules.prices.get(accelerator, 0.0 if accelerator == "NONE" else 1.0)


def weight(budget: Budget, accelerator: str, cpus: float, price: float) -> float:
    """Return what a runtime takes from the budget an hour, 0 when the budget does not count it."""
    if budget.accelerators is not None and accelerator not in budget.accelerators:
        return 0.0
    return price if budget.unit is Unit.ACCELERATOR_HOURS else cpus


def holders(budget: Budget, who: Who) -> list[str]:
    """Return who pays for a runtime of `who`: the user, or each of their teams that has this budget."""
    if budget.per is Per.TEAM:
        return sorted(who.groups if budget.groups is None else who.groups & budget.groups)
    return [who.user] if budget.groups is None or budget.groups & who.groups else []


def binding(rules: Rules, who: Who, kind: Kind, cpus: float) -> list[tuple[Budget, str]]:
    """Return each (budget, holder) that pays for a runtime of `kind`. Every one of them must have something left."""
    price = price_of(rules, kind.accelerator)
    return [
        (budget, holder)
        for budget in rules.budgets
        if weight(budget, kind.accelerator, cpus, price) > 0
        for holder in holders(budget, who)
    ]


def earliest(rules: Rules, now: datetime) -> datetime:
    """Return since when charges matter to some budget."""
    zone = zone_of(rules.time_zone)
    return min((start_of(b.window, now, zone) for b in rules.budgets), default=now)


def balance(
    budget: Budget,
    holder: str,
    charges: Iterable[Charge],
    grants: Iterable[Grant],
    now: datetime,
    zone: tzinfo,
) -> Balance:
    """Return what is left of `budget` for `holder`. `charges` may be more than theirs; of live ones the seconds are until `now`."""
    began = start_of(budget.window, now, zone)
    theirs = [
        (charge, per_hour)
        for charge in charges
        if (charge.user == holder if budget.per is Per.USER else holder in charge.teams)
        and (per_hour := weight(budget, charge.accelerator, charge.cpus, charge.price)) > 0
    ]
    used = sum(overlap(c, began, now) * w for c, w in theirs) / HOUR
    granted = sum(
        g.hours for g in grants if g.budget == budget.name and g.holder == holder and began <= g.at <= now
    )
    rate = sum(w for c, w in theirs if c.live)
    limit = budget.hours + granted
    ends = end_of(budget.window, now, zone)
    resets = ends if ends is not None else _frees(theirs, budget.window, limit, used, now)
    seconds = _seconds_left(budget, limit, used, rate, now, ends)
    lasts = now + timedelta(seconds=seconds) if seconds is not None and seconds < NEVER_SECONDS else None
    return Balance(budget, holder, granted, used, rate, resets, lasts)


def balances(
    rules: Rules,
    pairs: Iterable[tuple[Budget, str]],
    charges: Sequence[Charge],
    grants: Sequence[Grant],
    now: datetime,
) -> list[Balance]:
    """Return the balance of each (budget, holder)."""
    zone = zone_of(rules.time_zone)
    return [balance(budget, holder, charges, grants, now, zone) for budget, holder in pairs]


def of_user(rules: Rules, who: Who) -> list[tuple[Budget, str]]:
    """Return every (budget, holder) that concerns a user, whatever they run."""
    return [(budget, holder) for budget in rules.budgets for holder in holders(budget, who)]


def nearest_end(session: Session, known: Iterable[Balance], now: Moment) -> tuple[str, float] | None:
    """Return (budget, seconds after ready) at which the first of the session's budgets is used up; None when none is.

    `known` are the balances of the budgets that bind it, with its own rate among theirs.
    """
    if session.ready is None:
        return None
    ready_ago = (
        now.boottime - session.ready_boottime
        if session.ready_boottime is not None and session.boot_id == now.boot_id
        else (now.wall - session.ready).total_seconds()
    )
    ends = [
        ((balance.lasts_until - now.wall).total_seconds() + ready_ago, balance.budget.name)
        for balance in known
        if balance.lasts_until is not None
    ]
    return (min(ends)[1], min(ends)[0]) if ends else None


def overlap(charge: Charge, since: datetime, until: datetime) -> float:
    """Return the seconds of a charge between two instants."""
    end = charge.start + timedelta(seconds=charge.seconds)
    return max(0.0, (min(end, until) - max(charge.start, since)).total_seconds())


def _seconds_left(
    budget: Budget, limit: float, used: float, rate: float, now: datetime, ends: datetime | None
) -> float | None:
    """Return in how many seconds the budget is used up at this rate; less than nothing when it was before now.

    A calendar budget that outlasts its window goes on with the next one's hours. Of a rolling one, what leaves the window
    meanwhile is not counted on: looked at again later, the end has moved away.
    """
    if rate <= 0:
        return None
    seconds = (limit - used) / rate * HOUR
    if ends is not None and (until := (ends - now).total_seconds()) < seconds:
        return until + budget.hours / rate * HOUR
    return seconds


def _frees(
    theirs: Sequence[tuple[Charge, float]], window: Window, limit: float, used: float, now: datetime
) -> datetime | None:
    """Return when a rolling budget gives hours back: at once when some are left, else as soon as it is below its limit."""
    assert window.kind == ROLLING
    length = timedelta(seconds=window.seconds)
    leaving = sorted(
        {
            moment + length
            for c, _ in theirs
            for moment in (c.start, c.start + timedelta(seconds=c.seconds))
            if moment + length > now
        }
    )
    if not leaving:
        return None
    if used < limit:
        return max(now, leaving[0])
    before, at_before = now, used
    for moment in leaving:
        at_moment = sum(overlap(c, moment - length, now) * w for c, w in theirs) / HOUR
        if at_moment < limit:
            slope = (at_before - at_moment) / max((moment - before).total_seconds(), 1e-9)
            return before + timedelta(seconds=max(0.0, (at_before - limit) / slope) if slope > 0 else 0.0)
        before, at_before = moment, at_moment
    return leaving[-1]
