"""A service of many users over months, on virtual time: what would these limits and budgets do to them, and do the rules hold?

It runs the same pure core as the service (policy, budgets, metering) and the supervisors' rule, with people drawn by a seed: they come
in working hours, run cells, think, walk away from a tab, press Keep or do not. Control is down at times, runtimes crash, somebody sets
the wall clock. Same seed, same settings: the same year, to the last end (`Report.digest`).

Whatever breaks a rule of DESIGN (R1 to R3, R5) stops the simulation with `BrokenRule`.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from quota import budgets, metering, policy
from quota.model import (
    Balance,
    Budget,
    Charge,
    Denied,
    Kind,
    Limits,
    Moment,
    Rules,
    Session,
    State,
    Who,
)
from quota.windows import zone_of

DAY, HOUR, MINUTE = 86_400.0, 3_600.0, 60.0
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
EPSILON = 1e-6
BOUND_SECONDS = 2.0  # R2 with services up
OVERDUE_GRACE_SECONDS, LOOK_SECONDS = 1.0, 5.0  # as hub.control.ends has them
# How many of a day's starts fall into each hour: few at night, most in the morning and after lunch.
HOURS = (1, 1, 1, 1, 1, 1, 2, 4, 8, 12, 12, 10, 8, 11, 12, 11, 9, 7, 5, 4, 4, 3, 2, 1)
WEEKEND = 0.25


class BrokenRule(Exception):
    """A rule that must always hold did not; the text says which, when and for whom."""


@dataclass(frozen=True)
class People:
    """Who uses the service. `teams`: name → share of the users in it; `kinds`: accelerator → share of the starts."""

    users: int = 1000
    teams: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, float] = field(default_factory=lambda: {"NONE": 0.7, "T4": 0.25, "A100": 0.05})
    starts_a_day: float = 1.0
    cpus: float = 2.0


@dataclass(frozen=True)
class Mishaps:
    """What goes wrong, times a year: `outages` of control (`outage_seconds` each), set clocks; and crashes a start."""

    outages: float = 24.0
    outage_seconds: float = 1800.0
    clock_steps: float = 12.0
    crashes: float = 0.01


@dataclass
class Report:
    """What came of it. Counters are by code; `hours` are accelerator-hours by accelerator, as they are charged."""

    starts: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    keeps: int = 0
    extensions: int = 0
    hours: dict[str, float] = field(default_factory=dict)
    most_at_once: int = 0
    unserved: int = 0
    events: int = 0
    digest: str = ""


@dataclass
class _Runtime:
    """A live runtime: what its supervisor knows, and what control does."""

    session: Session
    limits: Limits
    used: float
    busy_until: float = 0.0
    there: bool = True  # somebody looks at the page
    told: frozenset[tuple[str, float]] = frozenset()
    said: set[tuple[str, float]] = field(default_factory=set)  # since the last use, control seeing everything
    unseen_since: float = 0.0
    next_look: float = 0.0
    next_due: float = 0.0

    def last_use(self, now: float) -> float:
        return max(self.used, min(now, self.busy_until))


class Simulation:
    """One run. `run` may be called once."""

    def __init__(
        self, rules: Rules, people: People, *, days: float, seed: int, mishaps: Mishaps | None = None
    ) -> None:
        self._rules, self._people, self._days = rules, people, days
        self._mishaps = mishaps or Mishaps()
        self._random = random.Random(seed)  # a simulation, not a secret
        self._now, self._step = 0.0, timedelta()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._down_until = 0.0
        self._live: dict[str, _Runtime] = {}
        self._of_user: dict[str, dict[str, str]] = defaultdict(dict)
        self._of_holder: dict[str, set[str]] = defaultdict(set)
        self._charges: dict[str, list[Charge]] = defaultdict(list)
        self._ended_seconds: Counter[str] = Counter()
        self._all_charges: list[Charge] = []
        self._names = itertools.count(1)
        self._hash = hashlib.sha256()
        self.report = Report()
        shares = sorted(people.teams.items())
        self._who = [
            Who(f"u{n}", frozenset(t for t, share in shares if self._random.random() < share))
            for n in range(people.users)
        ]

    def run(self) -> Report:
        """Return what came of it. Raise BrokenRule."""
        end = self._days * DAY
        for who in self._who:
            self._arrives_later(who)
        year = 365 * DAY
        if self._mishaps.outages:
            self._after(self._random.expovariate(self._mishaps.outages / year), self._goes_down)
        if self._mishaps.clock_steps:
            self._after(self._random.expovariate(self._mishaps.clock_steps / year), self._sets_clock)
        while self._queue and self._queue[0][0] <= end:
            self._now, _, happens = heapq.heappop(self._queue)
            self.report.events += 1
            happens()
        self._now = end
        for name in list(self._live):
            self._end(name, "service_stopped")
        self._check_usage()
        self.report.digest = self._hash.hexdigest()
        return self.report

    # -- time -----------------------------------------------------------------------------------------------------

    def _moment(self) -> Moment:
        return Moment(BEGIN + timedelta(seconds=self._now) + self._step, self._now, "boot")

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self._now + max(0.0, seconds), next(self._order), happens))

    @property
    def _down(self) -> bool:
        return self._now < self._down_until

    def _goes_down(self) -> None:
        seconds = self._random.expovariate(1 / self._mishaps.outage_seconds)
        self._down_until = self._now + seconds
        for runtime in self._live.values():
            runtime.unseen_since = self._now
        self._after(seconds, self._comes_up)
        self._after(self._random.expovariate(self._mishaps.outages / (365 * DAY)) + seconds, self._goes_down)

    def _comes_up(self) -> None:
        for name, runtime in list(self._live.items()):
            runtime.unseen_since = self._now
            self._look(name)

    def _sets_clock(self) -> None:
        self._step = timedelta(hours=self._random.randint(-13, 13))
        self._after(self._random.expovariate(self._mishaps.clock_steps / (365 * DAY)), self._sets_clock)

    # -- people ---------------------------------------------------------------------------------------------------

    def _arrives_later(self, who: Who) -> None:
        """Draw when a user starts something next: so many a day, in working hours (thinning)."""
        at, most = self._now, self._people.starts_a_day * max(HOURS) / sum(HOURS) / HOUR
        while True:
            at += self._random.expovariate(most)
            when = BEGIN + timedelta(seconds=at)
            share = HOURS[when.hour] / max(HOURS) * (WEEKEND if when.weekday() >= 5 else 1.0)
            if self._random.random() < share:
                break
        self._after(at - self._now, lambda: self._arrives(who))

    def _arrives(self, who: Who) -> None:
        self._arrives_later(who)
        file = f"f{self._random.randrange(4)}"
        accelerators, shares = zip(*sorted(self._people.kinds.items()), strict=True)
        accelerator = self._random.choices(accelerators, shares)[0]
        if self._down:
            self.report.unserved += 1
            return
        known = self._of_user[who.user].get(file)
        if known is not None:
            self._acts(known)
            return
        kind = Kind(accelerator, "STANDARD")
        limits = policy.limits_for(self._rules, who, kind)
        pairs = budgets.binding(self._rules, who, kind, self._people.cpus)
        live = [self._live[name].session for name in self._of_user[who.user].values()]
        decision = policy.may_start(limits, live, kind, self._balances(pairs))
        if isinstance(decision, Denied):
            self.report.refusals[decision.code] += 1
            return
        self._start(who, file, kind, limits)

    def _start(self, who: Who, file: str, kind: Kind, limits: Limits) -> None:
        moment, name = self._moment(), f"r-{next(self._names)}"
        session = Session(
            id=name,
            user=who.user,
            file_id=file,
            file_name="n.ipynb",
            state=State.READY,
            phase="ready",
            phase_message="Connected",
            accelerator=kind.accelerator,
            shape=kind.shape,
            backend="simulated",
            device=None,
            created=moment.wall,
            ready=moment.wall,
            last_activity=moment.wall,
            ended=None,
            reason=None,
            max_lifetime_seconds=limits.max_lifetime_seconds,
            idle_limit_seconds=limits.idle_limit_seconds,
            boot_id="boot",
            ready_boottime=self._now,
            active_boottime=self._now,
            teams=who.groups,
            cpus=self._people.cpus,
            price=budgets.price_of(self._rules, kind.accelerator),
        )
        if file in self._of_user[who.user]:
            raise BrokenRule(f"R1: {who.user} has two live runtimes for {file} at {self._now:.0f} s")
        self._live[name] = _Runtime(session, limits, self._now, unseen_since=self._now)
        self._of_user[who.user][file] = name
        for _, holder in budgets.binding(self._rules, who, kind, session.cpus):
            self._of_holder[holder].add(name)
        self.report.starts += 1
        self.report.most_at_once = max(self.report.most_at_once, len(self._live))
        if self._random.random() < self._mishaps.crashes:
            self._after(self._random.expovariate(1 / HOUR), lambda: self._end(name, "crashed"))
        self._refresh_budgets(session)
        self._acts(name)
        self._due(name)
        self._look(name)

    def _acts(self, name: str) -> None:
        """Somebody runs a cell: a short one, or one for hours; then thinks, leaves the tab open, or ends the runtime."""
        runtime = self._live.get(name)
        if runtime is None:
            return
        draw = self._random.random()
        busy = (
            self._random.expovariate(1 / (4 * HOUR)) if draw < 0.02 else self._random.expovariate(1 / MINUTE)
        )
        self._uses(runtime, busy)
        if draw < 0.85:
            pause = self._random.lognormvariate(4.5, 1.2)
            self._after(busy + pause, lambda: self._acts(name))
        elif draw < 0.95:
            runtime.there = self._random.random() < 0.5
        else:
            self._after(busy + MINUTE, lambda: self._end(name, "user_deleted"))

    def _uses(self, runtime: _Runtime, busy: float) -> None:
        runtime.used, runtime.there = self._now, True
        runtime.busy_until = max(runtime.busy_until, self._now + busy)
        runtime.said = {(kind, t) for kind, t in runtime.said if kind != policy.IDLE}

    # -- the supervisor -------------------------------------------------------------------------------------------

    def _due(self, name: str) -> None:
        """The supervisor's timer: end at the first of the limits, or wait for it."""
        runtime = self._live.get(name)
        if runtime is None:
            return
        session, last = runtime.session, runtime.last_use(self._now)
        assert session.ready_boottime is not None
        ends = [
            (session.ready_boottime + session.max_lifetime_seconds, policy.LIFETIME),
            (max(last, runtime.busy_until) + session.idle_limit_seconds, policy.IDLE),
        ]
        if session.budget_seconds is not None:
            ends.append((session.ready_boottime + session.budget_seconds, policy.BUDGET))
        at, code = min(ends)
        if self._now >= at - EPSILON:
            self._end(name, code)
        else:
            runtime.next_due = at
            self._after(at - self._now, lambda: self._due(name) if runtime.next_due == at else None)

    # -- control --------------------------------------------------------------------------------------------------

    def _look(self, name: str) -> None:
        """What control does when something is due: note the use, announce, let people answer, and look again."""
        runtime = self._live.get(name)
        if runtime is None or self._down:
            return
        moment, last = self._moment(), runtime.last_use(self._now)
        runtime.session = replace(
            runtime.session,
            active_boottime=last,
            last_activity=moment.wall - timedelta(seconds=self._now - last),
        )
        reason = policy.overdue(runtime.session, moment, grace_seconds=OVERDUE_GRACE_SECONDS, evidence=True)
        if reason is not None:
            raise BrokenRule(f"R2: {name} outlived its {reason.code} at {self._now:.0f} s")
        told = policy.still_told(runtime.session, moment, runtime.told)
        due = policy.warning_due(runtime.limits, runtime.session, moment, told)
        runtime.told = told if due is None else told | {(due.ends, due.threshold)}
        if due is not None:
            self.report.warnings[due.ends] += 1
            runtime.said.add((due.ends, due.threshold))
            self._answers(name, runtime, due.ends)
        left = policy.seconds_to_next(runtime.limits, runtime.session, moment, OVERDUE_GRACE_SECONDS)
        if left is not None:
            # Two announcements may be due at once: control looks at everything again after a few seconds anyway.
            left = min(left, LOOK_SECONDS) if due is not None else left
            runtime.next_look = at = self._now + max(0.01, left)
            self._after(at - self._now, lambda: self._look(name) if runtime.next_look == at else None)

    def _answers(self, name: str, runtime: _Runtime, ends: str) -> None:
        if not runtime.there or self._random.random() < 0.5:
            return
        if ends == policy.IDLE:
            self.report.keeps += 1
            self._uses(runtime, 0.0)
        elif ends == policy.LIFETIME and not isinstance(
            policy.may_extend(runtime.limits, runtime.session), Denied
        ):
            self.report.extensions += 1
            longer = runtime.session.max_lifetime_seconds + runtime.limits.extend_by_seconds
            runtime.session = replace(
                runtime.session,
                max_lifetime_seconds=longer,
                extensions_used=runtime.session.extensions_used + 1,
            )
            runtime.said = {(kind, t) for kind, t in runtime.said if kind != policy.LIFETIME}
            self._due(name)

    # -- budgets --------------------------------------------------------------------------------------------------

    def _balances(self, pairs: Sequence[tuple[Budget, str]]) -> list[Balance]:
        moment = self._moment()
        found: list[Balance] = []
        for budget, holder in pairs:
            since = budgets.earliest(self._rules, moment.wall) - timedelta(days=1)
            past = self._charges[holder]
            if past and past[0].start + timedelta(seconds=past[0].seconds) < since - timedelta(days=31):
                past[:] = [c for c in past if c.start + timedelta(seconds=c.seconds) >= since]
            live = [
                charge
                for name in sorted(self._of_holder[holder])
                if (charge := metering.charge_of(self._live[name].session, moment)) is not None
            ]
            found += budgets.balances(self._rules, [(budget, holder)], [*past, *live], (), moment.wall)
        return found

    def _refresh_budgets(self, session: Session) -> None:
        """Work out anew when budgets end the runtimes that share one with `session`; an announced end does not come nearer."""
        if not self._rules.budgets:
            return
        who, kind = Who(session.user, session.teams), Kind(session.accelerator, session.shape)
        moment = self._moment()
        sharing: dict[str, _Runtime] = {}
        for _, holder in budgets.binding(self._rules, who, kind, session.cpus):
            sharing |= {name: self._live[name] for name in sorted(self._of_holder[holder])}
        for name, runtime in sharing.items():
            its = runtime.session
            pairs = budgets.binding(
                self._rules, Who(its.user, its.teams), Kind(its.accelerator, its.shape), its.cpus
            )
            end = budgets.nearest_end(its, self._balances(pairs), moment)
            if end is not None and any(kind == policy.BUDGET for kind, _ in runtime.told):
                end = (end[0], max(end[1], its.budget_seconds or 0.0))
            changed = end is None or its.budget_seconds is None or abs(end[1] - its.budget_seconds) > 1.0
            if changed and end != (its.budget_name, its.budget_seconds):
                budget_name, seconds = end if end is not None else (None, None)
                runtime.session = replace(its, budget_name=budget_name, budget_seconds=seconds)
                self._due(name)
                if name != session.id:
                    self._look(name)

    # -- ends -----------------------------------------------------------------------------------------------------

    def _end(self, name: str, code: str) -> None:
        runtime = self._live.get(name)
        if runtime is None:
            return
        self._check_end(runtime, code)
        session, moment = runtime.session, self._moment()
        used = metering.used_seconds(session, moment)
        session = replace(session, state=State.ENDED, ended=moment.wall, used_seconds=used)
        who, kind = Who(session.user, session.teams), Kind(session.accelerator, session.shape)
        holders = {holder for _, holder in budgets.binding(self._rules, who, kind, session.cpus)}
        del self._live[name], self._of_user[session.user][session.file_id]
        assert session.ready_boottime is not None
        # As the record has it: the wall clock may have been set since it was ready.
        charge = Charge(
            name,
            session.user,
            session.teams,
            session.accelerator,
            moment.wall - timedelta(seconds=used),
            used,
            session.cpus,
            session.price,
        )
        self._all_charges.append(charge)
        for holder in holders:
            self._of_holder[holder].discard(name)
            self._charges[holder].append(charge)
        self._ended_seconds[session.user] += round((self._now - session.ready_boottime) * 1000)
        self.report.ends[code] += 1
        hours = self.report.hours
        hours[session.accelerator] = hours.get(session.accelerator, 0.0) + used / HOUR
        self._hash.update(f"{self._now:.3f} {session.user} {code} {used:.3f}\n".encode())
        if not self._down:
            self._refresh_budgets(session)

    def _check_end(self, runtime: _Runtime, code: str) -> None:
        session, now = runtime.session, self._now
        assert session.ready_boottime is not None
        who = f"{session.id} of {session.user} at {now:.0f} s"
        age, unused = now - session.ready_boottime, now - runtime.last_use(now)
        if age > session.max_lifetime_seconds + BOUND_SECONDS:
            raise BrokenRule(f"R2: {who} lived {age:.1f} s of {session.max_lifetime_seconds:.1f} s")
        if unused > session.idle_limit_seconds + BOUND_SECONDS:
            raise BrokenRule(f"R2: {who} was unused for {unused:.1f} s of {session.idle_limit_seconds:.1f} s")
        if code == policy.IDLE and (
            unused < session.idle_limit_seconds - EPSILON or now < runtime.busy_until
        ):
            raise BrokenRule(f"R2: {who} was ended as idle after {unused:.1f} s, or while a cell ran")
        limit = {policy.IDLE: session.idle_limit_seconds, policy.LIFETIME: session.max_lifetime_seconds}.get(
            code
        )
        if limit is None or self._down:
            return
        for threshold in runtime.limits.warn_before_seconds:
            seen = now - runtime.unseen_since >= threshold + OVERDUE_GRACE_SECONDS
            if threshold < limit and seen and (code, threshold) not in runtime.said:
                raise BrokenRule(
                    f"R5: {who} ended ({code}) without the announcement {threshold:.0f} s before"
                )

    def _check_usage(self) -> None:
        """R3: what is charged is what the boot clock says, whatever was done to the wall clock."""
        zone = zone_of(self._rules.time_zone)
        far = timedelta(days=self._days + 2)
        lines, _ = metering.report(self._all_charges, "user", BEGIN - far, BEGIN + far, zone)
        for line in lines:
            lived = self._ended_seconds[line.key] / 1000
            if abs(line.seconds - lived) > 1.0 + 1e-3 * line.sessions:
                raise BrokenRule(f"R3: {line.key} is charged {line.seconds:.3f} s of {lived:.3f} s")


def simulate(
    rules: Rules, people: People, *, days: float, seed: int, mishaps: Mishaps | None = None
) -> Report:
    """Return what a service of `people` under `rules` would see in `days`. Raise BrokenRule."""
    return Simulation(rules, people, days=days, seed=seed, mishaps=mishaps).run()
