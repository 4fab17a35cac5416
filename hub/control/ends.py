"""When living runtimes end: announced before, moved by use, extensions, budgets and settings, and made to happen.

Each runtime carries its limits itself (its supervisor ends it); what is decided here is told to it first and written down then.
Every few seconds all of them are looked at; in between, whichever has something to announce next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hub.control.views import session_model
from hub.quota_settings import QuotaSettings
from hub.wiring import quota_rules
from quota import budgets, metering, policy
from quota.model import Balance, Charge, Denied, Kind, Limits, Moment, Reason, Rules, Session, State, Who
from quota.ports import Fenced
from quota.service import Refused, Sessions
from quota.together import Together
from spawner.model import Budget as CarriedBudget
from spawner.model import EndReason
from spawner.ports import BackendError, RuntimeBackend

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
SHORTEST_WAIT_SECONDS = 0.1  # ends closer together than this are looked at together
OVERDUE_GRACE_SECONDS = 1.0  # the supervisor ends its runtime by itself; this is for one that does not
LATEST_USE_SECONDS = 1.0  # uses closer together than this are one
BUDGET_DRIFT_SECONDS = 1.0

Publish = Callable[..., Awaitable[None]]
Stop = Callable[[Session, Reason], None]


class Ends:
    """The ends of the runtimes of one installation.

    `publish(name, session, **more)` tells listeners; `stop(session, reason)` ends a runtime unless that is under way.
    """

    def __init__(
        self,
        quota: QuotaSettings,
        sessions: Sessions,
        together: Together,
        backend: RuntimeBackend,
        publish: Publish,
        stop: Stop,
    ) -> None:
        self.quota = quota
        self.rules: Rules = quota_rules(quota)
        self._sessions, self._together = sessions, together
        self._backend = backend
        self._publish, self._stop = publish, stop
        self._told: dict[str, frozenset[tuple[str, float]]] = {}
        self._silent: set[str] = set()  # runtimes whose use could not be told when they were looked at last
        self._changed = asyncio.Event()
        self._budgets_stale = False

    # -- what is asked -------------------------------------------------------------------------------------------

    def limits(self, who: Who, kind: Kind) -> Limits:
        """Return the limits of a runtime of `kind` for `who`."""
        return policy.limits_for(self.rules, who, kind)

    def limits_of(self, session: Session) -> Limits:
        """Return the limits the settings give a session now; the session itself says which of them it has."""
        return self.limits(Who(session.user, session.teams), Kind(session.accelerator, session.shape))

    def balances(self, who: Who, kind: Kind, cpus: float) -> list[Balance]:
        """Return what is left of the budgets that would pay for a runtime of `kind`."""
        return self._sessions.balances_of(self.rules, who, kind, cpus)

    def first_budget(self, session: Session) -> CarriedBudget | None:
        """Return the budget that ends a runtime that is about to start, None when none does."""
        now = self._sessions.moment()
        pairs = budgets.binding(self.rules, *_payer(session))
        if not pairs:
            return None
        since = budgets.earliest(self.rules, now.wall)
        own = Charge(
            session.id,
            session.user,
            session.teams,
            session.accelerator,
            now.wall,
            0.0,
            session.cpus,
            session.price,
            live=True,
        )
        charges = [*self._sessions.charges(since), own]
        found = budgets.balances(self.rules, pairs, charges, self._sessions.ledger.grants(since), now.wall)
        ends = [
            ((b.lasts_until - now.wall).total_seconds(), b.budget.name)
            for b in found
            if b.lasts_until is not None
        ]
        return _carried(min(ends)[1], min(ends)[0]) if ends else None

    def model(self, session: Session) -> dict[str, Any]:
        """Return the session as the API shows it now."""
        return session_model(session, self._sessions.moment(), self.limits_of(session))

    def look_soon(self) -> None:
        """A runtime became ready or ended: others of its budgets end earlier or later now."""
        self._budgets_stale = True
        self._changed.set()

    # -- what moves an end ---------------------------------------------------------------------------------------

    async def used(self, session: Session) -> Session:
        """Note a person's action, first in the runtime, which holds the limit. Raise BackendError."""
        await self._backend.touch(session.id)
        self._sessions.used({session.id: 0.0})
        return await self._moved(self._now_of(session))

    async def extend(self, session: Session) -> Session:
        """Lengthen the life of a runtime once more, for its user. Raise Refused, BackendError."""
        limits = self.limits_of(session)
        decision = policy.may_extend(limits, session)
        if isinstance(decision, Denied):
            raise Refused(decision)
        return await self.extend_by(session, limits.extend_by_seconds, session.user)

    async def extend_by(self, session: Session, seconds: float, by: str) -> Session:
        """Lengthen the life of a runtime. Raise BackendError."""
        longer = session.max_lifetime_seconds + seconds
        await self._carry(session, longer, session.idle_limit_seconds, _budget_of(session))
        return await self._moved(self._sessions.extended(session, seconds, by))

    async def reload(self, quota: QuotaSettings) -> int:
        """Use new settings, for running sessions too; return how many of them changed."""
        self.quota, self.rules = quota, quota_rules(quota)
        changed = 0
        for session in self._ready():
            changed += await self._relimit(session)
        await self.refresh_budgets(notice=True)
        await self._look_at(self._ready())  # announces what came near
        self._changed.set()
        return changed

    async def _relimit(self, session: Session) -> bool:
        """Give a running session the limits of the settings, as far as it was not promised longer ones."""
        wanted, now = self.limits_of(session), self._sessions.moment()
        lifetime, idle = policy.relimited(session, wanted, now, self._told_of(session, now))
        if (
            abs(lifetime - session.max_lifetime_seconds) < 0.5
            and abs(idle - session.idle_limit_seconds) < 0.5
        ):
            return False
        try:
            await self._carry(session, lifetime, idle, _budget_of(session))
        except BackendError as error:
            log.warning("runtime %s did not take its new limits: %s", session.id, error)
            return False
        await self._moved(self._sessions.relimited(session, lifetime, idle))
        return True

    async def refresh_budgets(self, *, notice: bool = False) -> None:
        """Work out anew when budgets end running sessions, and tell them.

        An end that was announced does not come nearer. `notice`: the settings changed, so what ends earlier now is told in time.
        """
        self._budgets_stale = False
        ready = self._ready()
        now = self._sessions.moment()
        paying = [(session, budgets.binding(self.rules, *_payer(session))) for session in ready]
        pairs = [pair for _, found in paying for pair in found]
        known: dict[tuple[str, str], Balance] = {}
        if pairs:
            unique = list({(b.name, holder): (b, holder) for b, holder in pairs}.values())
            known = {(b.budget.name, b.holder): b for b in self._sessions.balances(self.rules, unique)}
        for session, found in paying:
            end = budgets.nearest_end(session, [known[b.name, holder] for b, holder in found], now)
            await self._rebudget(session, self._promised(session, end, now, notice=notice))

    def _promised(
        self, session: Session, end: tuple[str, float] | None, now: Moment, *, notice: bool
    ) -> tuple[str, float] | None:
        """Return the end of a budget, no earlier than its user was told or has a right to be told."""
        if end is None:
            return None
        old, left = session.budget_seconds, policy.budget_left(session, now)
        if any(kind == policy.BUDGET for kind, _ in self._told_of(session, now)):
            return (end[0], max(end[1], old)) if old is not None else end
        age = metering.used_seconds(session, now)
        if notice and (old is None or end[1] < old):
            first = max(self.limits_of(session).warn_before_seconds, default=0.0)
            return end[0], max(end[1], age + (first if left is None else min(first, left)))
        return end

    async def _rebudget(self, session: Session, end: tuple[str, float] | None) -> None:
        name, seconds = end if end is not None else (None, None)
        old = session.budget_seconds
        same = seconds is not None and old is not None and abs(seconds - old) < BUDGET_DRIFT_SECONDS
        if name == session.budget_name and (same or seconds == old):
            return
        carried = _carried(name, seconds) if name is not None and seconds is not None else None
        try:
            await self._carry(session, session.max_lifetime_seconds, session.idle_limit_seconds, carried)
        except BackendError as error:
            log.warning("runtime %s did not take its budget: %s", session.id, error)
            return
        await self._moved(self._sessions.budgeted(session, name, seconds))

    async def _carry(
        self, session: Session, max_lifetime: float, idle_limit: float, budget: CarriedBudget | None
    ) -> None:
        await self._backend.set_limits(
            session.id, max_lifetime_seconds=max_lifetime, idle_limit_seconds=idle_limit, budget=budget
        )

    async def _moved(self, session: Session) -> Session:
        """Tell listeners when an announced end moved away; announce it anew when it comes near again."""
        now = self._sessions.moment()
        told = self._told_of(session, now)
        still = policy.still_told(session, now, told)
        self._told[session.id] = still
        if still != told:
            await self._publish("changed", session)
        self._changed.set()
        return session

    # -- looking -------------------------------------------------------------------------------------------------

    async def watch_for_ever(self) -> None:
        """Look whenever something is due. A look that fails is logged, and the next one tries again. Raise Fenced."""
        looked = -LOOK_SECONDS
        while True:
            self._changed.clear()
            try:
                now = self._sessions.moment()
                if now.boottime - looked >= LOOK_SECONDS:
                    looked = now.boottime
                    await self.look()
                else:
                    if self._budgets_stale and self.rules.budgets:
                        await self.refresh_budgets()
                    await self._look_at(self._due(now))
                wait = min(looked + LOOK_SECONDS - self._sessions.moment().boottime, self._next())
            except Fenced:
                raise
            except Exception:
                log.exception("looking at the runtimes failed; the next look is in %.0f s", LOOK_SECONDS)
                wait = LOOK_SECONDS
            await asyncio.sleep(SHORTEST_WAIT_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait - SHORTEST_WAIT_SECONDS)):
                    await self._changed.wait()

    async def look(self) -> None:
        """Look at every ready runtime: its use, its limits, its budgets, what is to be announced, what is overdue."""
        ready = self._ready()
        for gone in self._told.keys() - {session.id for session in ready}:
            del self._told[gone]
        self._silent &= {session.id for session in ready}
        for session in ready:
            await self._relimit(session)
        if self.rules.budgets or any(session.budget_name is not None for session in ready):
            await self.refresh_budgets()
        await self._look_at(ready)

    async def _look_at(self, some: Sequence[Session]) -> None:
        found = await asyncio.gather(*(self._activity(session) for session in some))
        uses: dict[str, float] = {}
        now = self._sessions.moment()
        for session, ago in zip(some, found, strict=True):
            if ago is None:
                continue
            known = session.active_boottime if session.boot_id == now.boot_id else None
            if known is None or now.boottime - ago > known + LATEST_USE_SECONDS:
                uses[session.id] = ago
        self._sessions.used(uses)
        wanted = {session.id for session in some}
        evidence = {s.id for s, ago in zip(some, found, strict=True) if ago is not None}
        self._silent = (self._silent - evidence) | (wanted - evidence)
        judged = (session for session in self._ready() if session.id in wanted)
        await asyncio.gather(*(self._judge(session, evidence=session.id in evidence) for session in judged))

    async def _activity(self, session: Session) -> float | None:
        """Return how many seconds ago the runtime was used, None when it can not be told now."""
        try:
            return (await self._backend.activity(session.id)).seconds_ago
        except BackendError:
            return None  # its watcher will tell

    async def _judge(self, session: Session, *, evidence: bool) -> None:
        now = self._sessions.moment()
        reason = policy.overdue(session, now, grace_seconds=OVERDUE_GRACE_SECONDS, evidence=evidence)
        if reason is not None:
            self._stop(session, reason)
            return
        before = self._told_of(session, now)
        told = policy.still_told(session, now, before)
        due = policy.warning_due(self.limits_of(session), session, now, told)
        self._told[session.id] = told if due is None else told | {(due.ends, due.threshold)}
        if due is not None:
            detail = {"ends": due.ends, "threshold_seconds": due.threshold}
            record = self._sessions.ledger.record
            await self._together.write(lambda: record(session.id, "warned", detail, now.wall))
            await self._publish("warning", session, **detail, seconds_left=round(due.seconds_left, 1))
        elif told != before:
            await self._publish("changed", session)

    def _told_of(self, session: Session, now: Moment) -> frozenset[tuple[str, float]]:
        """Return what was announced to a session, also by an instance before this one."""
        if session.id not in self._told:
            said = frozenset(
                (str(detail["ends"]), float(str(detail["threshold_seconds"])))
                for event, detail, _ in self._sessions.ledger.events(session.id)
                if event == "warned"
            )
            self._told[session.id] = policy.still_told(session, now, said)
        return self._told[session.id]

    def _ready(self) -> list[Session]:
        return [s for s in self._sessions.ledger.live() if s.state is State.READY]

    def _due(self, now: Moment) -> list[Session]:
        return [s for s in self._ready() if self._seconds_to_next(s, now) <= SHORTEST_WAIT_SECONDS]

    def _next(self) -> float:
        now = self._sessions.moment()
        return min((self._seconds_to_next(s, now) for s in self._ready()), default=LOOK_SECONDS)

    def _seconds_to_next(self, session: Session, now: Moment) -> float:
        """Return in how many seconds something is to be told or done about a session that was not yet."""
        limits = self.limits_of(session)
        told = policy.still_told(session, now, self._told_of(session, now))
        if policy.warning_due(limits, session, now, told) is not None:
            return 0.0
        evidence = session.id not in self._silent
        seconds = policy.seconds_to_next(limits, session, now, OVERDUE_GRACE_SECONDS, evidence=evidence)
        return LOOK_SECONDS if seconds is None else max(seconds, SHORTEST_WAIT_SECONDS / 2)

    def _now_of(self, session: Session) -> Session:
        return self._sessions.ledger.get(session.id) or session


def _payer(session: Session) -> tuple[Who, Kind, float]:
    return Who(session.user, session.teams), Kind(session.accelerator, session.shape), session.cpus


def _budget_of(session: Session) -> CarriedBudget | None:
    if session.budget_name is None or session.budget_seconds is None:
        return None
    return _carried(session.budget_name, session.budget_seconds)


def _carried(name: str, seconds: float) -> CarriedBudget:
    reason = policy.budget_reason(name)
    return CarriedBudget(max(0.0, seconds), EndReason(reason.code, reason.message))
