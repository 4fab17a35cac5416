"""Sessions: intent, act, observe. Each step is durable before the next one begins."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from quota import budgets, metering, policy
from quota.clock import Clock
from quota.model import (
    Balance,
    Budget,
    Charge,
    Denied,
    Kind,
    Limits,
    Moment,
    Reason,
    Rules,
    Session,
    State,
    Who,
)
from quota.ports import Ledger, LiveExists


class Refused(Exception):
    """The policy says no; `denied` says why, with its numbers."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.message)
        self.denied = denied


@dataclass(frozen=True)
class Request:
    """What a user asks for. `teams`, `cpus` (cores) and `price` (accelerator-hours an hour) are what usage is charged by."""

    user: str
    file_id: str
    file_name: str
    accelerator: str
    shape: str
    backend: str
    device: str | None
    teams: frozenset[str] = frozenset()
    cpus: float = 0.0
    price: float = 0.0


class Sessions:
    """The sessions of one installation. `boot_id` names the boot that the clock's boot time counts from."""

    def __init__(self, ledger: Ledger, clock: Clock, boot_id: str) -> None:
        self.ledger = ledger
        self._clock = clock
        self._boot_id = boot_id

    def moment(self) -> Moment:
        """Return this instant, by both clocks."""
        return Moment(self._clock.now(), self._clock.boottime(), self._boot_id)

    def begin(
        self, request: Request, limits: Limits, balances: Sequence[Balance] = ()
    ) -> tuple[Session, bool]:
        """Return (session, whether it is new). A live one for the same notebook is returned as it is. Raise Refused.

        `balances` are those of the budgets that would pay for it.
        """
        live = self.ledger.live(request.user)
        for session in live:
            if session.file_id == request.file_id:
                return session, False
        decision = policy.may_start(limits, live, Kind(request.accelerator, request.shape), balances)
        if isinstance(decision, Denied):
            raise Refused(decision)
        session = Session(
            id=new_runtime_id(),
            user=request.user,
            file_id=request.file_id,
            file_name=request.file_name[:255],
            state=State.STARTING,
            phase="queued",
            phase_message="Waiting for a machine",
            accelerator=request.accelerator,
            shape=request.shape,
            backend=request.backend,
            device=request.device,
            created=self._clock.now(),
            ready=None,
            last_activity=None,
            ended=None,
            reason=None,
            max_lifetime_seconds=limits.max_lifetime_seconds,
            idle_limit_seconds=limits.idle_limit_seconds,
            boot_id=self._boot_id,
            teams=request.teams,
            cpus=request.cpus,
            price=request.price,
        )
        try:
            self.ledger.begin(session)
        except LiveExists as other:
            return other.session, False
        return session, True

    def phase(self, session_id: str, phase: str, message: str) -> Session:
        """Note how far the start is."""
        return self.ledger.note(session_id, {"phase": phase, "phase_message": message[:500]})

    def ready(self, session_id: str, ready_boottime: float | None) -> Session:
        """Note that the runtime answers: its life and its idle time count from `ready_boottime` (None: from now)."""
        now = self.moment()
        boottime = now.boottime if ready_boottime is None else min(ready_boottime, now.boottime)
        wall = now.wall - timedelta(seconds=now.boottime - boottime)
        fields: dict[str, object] = {
            "ready": wall,
            "last_activity": wall,
            "phase": "ready",
            "phase_message": "Connected",
            "boot_id": now.boot_id,
            "ready_boottime": boottime,
            "active_boottime": boottime,
        }
        return self.ledger.move(session_id, State.READY, now.wall, fields)

    def used(self, seconds_ago: Mapping[str, float]) -> None:
        """Note the last use of sessions: how many seconds ago each was used."""
        now = self.moment()
        uses = {
            session_id: (now.wall - timedelta(seconds=ago), now.boottime - ago)
            for session_id, ago in ((i, max(0.0, a)) for i, a in seconds_ago.items())
        }
        if uses:
            self.ledger.note_use(uses)

    def stopping(self, session_id: str, reason: Reason) -> Session:
        """Note that the runtime is being ended, and why, so that a restart goes on with it."""
        fields = {"phase": "stopping", "phase_message": "Ending the runtime", "reason": reason}
        return self.ledger.move(session_id, State.STOPPING, self._clock.now(), fields)

    def end(
        self,
        session_id: str,
        reason: Reason,
        *,
        failed: bool = False,
        ended_boottime: float | None = None,
    ) -> Session:
        """Note the end and why. `ended_boottime`: when it was, for an end that is noticed later; None: now."""
        now = self.moment()
        if ended_boottime is not None and ended_boottime < now.boottime:
            ago = timedelta(seconds=now.boottime - ended_boottime)
            now = Moment(now.wall - ago, ended_boottime, now.boot_id)
        session = self.ledger.get(session_id)
        used = metering.used_seconds(session, now) if session is not None else 0.0
        return self.ledger.end(session_id, State.FAILED if failed else State.ENDED, reason, now.wall, used)

    def charges(self, since: datetime) -> list[Charge]:
        """Return what sessions used that have not ended before `since`."""
        return metering.charges_of(self.ledger.metered(since), self.moment())

    def balances(self, rules: Rules, pairs: Sequence[tuple[Budget, str]]) -> list[Balance]:
        """Return what is left of each (budget, holder)."""
        if not pairs:
            return []
        now = self._clock.now()
        since = budgets.earliest(rules, now)
        return budgets.balances(rules, pairs, self.charges(since), self.ledger.grants(since), now)

    def balances_of(self, rules: Rules, who: Who, kind: Kind, cpus: float) -> list[Balance]:
        """Return what is left of the budgets that would pay for a runtime of `kind` for `who`."""
        return self.balances(rules, budgets.binding(rules, who, kind, cpus))

    def extended(self, session: Session, seconds: float, by: str) -> Session:
        """Note that the life of a session was lengthened, by its user (then it counts as one of the extensions) or another."""
        detail = {"seconds": seconds, "by": by}
        self.ledger.record(session.id, "extended", detail, self._clock.now())
        return self.ledger.note(
            session.id,
            {
                "max_lifetime_seconds": session.max_lifetime_seconds + seconds,
                "extended_seconds": session.extended_seconds + seconds,
                "extensions_used": session.extensions_used + (1 if by == session.user else 0),
            },
        )

    def relimited(self, session: Session, max_lifetime_seconds: float, idle_limit_seconds: float) -> Session:
        """Note new limits of a running session."""
        fields: dict[str, object] = {
            "max_lifetime_seconds": max_lifetime_seconds,
            "idle_limit_seconds": idle_limit_seconds,
        }
        self.ledger.record(session.id, "limits", fields, self._clock.now())
        return self.ledger.note(session.id, fields)

    def budgeted(self, session: Session, name: str | None, seconds: float | None) -> Session:
        """Note which budget ends a session first, and how long after ready."""
        return self.ledger.note(session.id, {"budget_name": name, "budget_seconds": seconds})


def new_runtime_id() -> str:
    """Return `r-` and 12 lower-case base32 characters: 60 random bits, and a name the hub and DNS accept."""
    return "r-" + base64.b32encode(secrets.token_bytes(8)).decode().lower().rstrip("=")[:12]
