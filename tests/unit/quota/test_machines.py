"""Whatever happens in whatever order: the rules of sessions hold (DESIGN R1 to R6), on virtual time.

The machine stands for an installation: control that decides and may crash or lose its place, and runtimes whose supervisors carry
limits of their own. Time moves only when a step moves it; the wall clock may be set at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from quota import metering, policy
from quota.clock import FakeClock
from quota.memory import MemoryLedger
from quota.model import LIVE, Limits, Reason, Session, State
from quota.ports import Fenced
from quota.service import Refused, Request, Sessions

LIMITS = Limits(100.0, 30.0, (10.0, 5.0), 2, extensions=1, extend_by_seconds=50.0)
LOOK = 1.0  # how often control looks, seconds
BOUND = 2.0  # R2 with services up
GRACE = 0.5
USERS, FILES = ("ada", "bob"), ("f1", "f2", "f3")


@dataclass
class Runtime:
    """What a supervisor knows; it lives without control."""

    ready: float
    used: float
    lifetime: float
    idle: float
    busy: bool = False
    stuck: bool = False  # its supervisor does not end it: control must
    ended: Reason | None = None
    ended_at: float = 0.0

    def tick(self, now: float) -> None:
        """End at the first of its limits, as the supervisor's timer does."""
        if self.ended is not None:
            return
        if self.busy:
            self.used = now
        due = min(self.ready + self.lifetime, self.used + self.idle)
        if now >= due and not self.stuck:
            code = policy.LIFETIME if due == self.ready + self.lifetime else policy.IDLE
            self.ended, self.ended_at = Reason(code, "."), due


class Service(RuleBasedStateMachine):
    runtimes = Bundle("runtimes")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store = MemoryLedger()
        self.machines: dict[str, Runtime] = {}
        self.told: dict[str, frozenset[tuple[str, float]]] = {}
        self.warned: dict[str, list[tuple[str, float, float]]] = {}
        self.down = False
        self.old: Sessions | None = None
        self._take_over()

    def _take_over(self) -> None:
        ledger = MemoryLedger(self.store)
        ledger.take_over("control", self.clock.now())
        self.sessions = Sessions(ledger, self.clock, "boot")
        self.told = {}

    # -- what people do ------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.down)
    @rule(target=runtimes, user=st.sampled_from(USERS), file=st.sampled_from(FILES), stuck=st.booleans())
    def start(self, user: str, file: str, stuck: bool) -> str:
        before = {s.id for s in self.sessions.ledger.live(user)}
        try:
            session, new = self.sessions.begin(
                Request(user, file, "n.ipynb", "NONE", "STANDARD", "local", None, cpus=2.0), LIMITS
            )
        except Refused as refused:
            assert refused.denied.code == "too_many_runtimes"
            assert len(before) >= LIMITS.max_runtimes
            return ""
        assert new == (session.id not in before)
        if new:
            now = self.clock.boottime()
            self.machines[session.id] = Runtime(
                now, now, session.max_lifetime_seconds, session.idle_limit_seconds, stuck=stuck
            )
        return session.id

    @precondition(lambda self: not self.down)
    @rule(runtime=runtimes)
    def ready(self, runtime: str) -> None:
        if runtime and self._get(runtime).state is State.STARTING and self.machines[runtime].ended is None:
            self.sessions.ready(runtime, self.machines[runtime].ready)
            self._look()  # as control does at once: it may have been ready for long

    @rule(runtime=runtimes, busy=st.booleans())
    def execute(self, runtime: str, busy: bool) -> None:
        machine = self.machines.get(runtime)
        if machine is not None and machine.ended is None:
            machine.busy = busy
            machine.used = self.clock.boottime()

    @precondition(lambda self: not self.down)
    @rule(runtime=runtimes)
    def keep(self, runtime: str) -> None:
        machine = self.machines.get(runtime)
        if machine is not None and machine.ended is None and self._get(runtime).state is State.READY:
            machine.used = self.clock.boottime()
            self.sessions.used({runtime: 0.0})

    @precondition(lambda self: not self.down)
    @rule(runtime=runtimes)
    def extend(self, runtime: str) -> None:
        machine = self.machines.get(runtime)
        if machine is None or machine.ended is not None or self._get(runtime).state is not State.READY:
            return
        session = self._get(runtime)
        if isinstance(policy.may_extend(LIMITS, session), policy.Allowed):
            machine.lifetime = session.max_lifetime_seconds + LIMITS.extend_by_seconds
            self.sessions.extended(session, LIMITS.extend_by_seconds, session.user)
        else:
            assert session.extensions_used == LIMITS.extensions

    @precondition(lambda self: not self.down)
    @rule(runtime=runtimes)
    def stop(self, runtime: str) -> None:
        if runtime and self._get(runtime).state in LIVE:
            self.sessions.stopping(runtime, Reason("user_deleted", "."))
            self._kill(runtime, "user_deleted")
            self.sessions.end(runtime, Reason("user_deleted", "."))

    # -- what happens to the machine --------------------------------------------------------------------------------

    @rule(seconds=st.floats(0.1, 40.0))
    def tick(self, seconds: float) -> None:
        """Let time pass, with control looking as it does unless it is down."""
        left = seconds
        while left > 0:
            step = min(LOOK, left)
            self.clock.advance(step)
            left -= step
            for machine in self.machines.values():
                machine.tick(self.clock.boottime())
            if not self.down:
                self._look()

    @rule(hours=st.integers(-13, 13))
    def set_the_wall_clock(self, hours: int) -> None:
        self.clock.wall += timedelta(hours=hours)

    @rule(runtime=runtimes)
    def crash(self, runtime: str) -> None:
        self._kill(runtime, "crashed")

    @precondition(lambda self: not self.down)
    @rule()
    def kill_control(self) -> None:
        self.down = True

    @precondition(lambda self: self.down)
    @rule()
    def restart_control(self) -> None:
        self.down = False
        self._take_over()
        self._look()

    @precondition(lambda self: not self.down)
    @rule()
    def another_control_takes_over(self) -> None:
        self.old = self.sessions
        self._take_over()
        with pytest.raises(Fenced):
            self.old.used({"r-anything": 0.0})

    # -- control's look: what hub.control does, without its I/O -------------------------------------------------------

    def _look(self) -> None:
        for session in self.sessions.ledger.live():
            machine = self.machines[session.id]
            if machine.ended is not None:
                if session.state is State.STARTING and machine.ended.code != "crashed":
                    self.sessions.ready(session.id, machine.ready)
                self.sessions.end(session.id, machine.ended)
                continue
            if session.state is not State.READY:
                continue
            self.sessions.used({session.id: self.clock.boottime() - machine.used})
            session, now = self._get(session.id), self.sessions.moment()
            reason = policy.overdue(session, now, grace_seconds=GRACE, evidence=True)
            if reason is not None:
                self._kill(session.id, reason.code)
                self.sessions.end(session.id, reason)
                continue
            told = policy.still_told(session, now, self.told.get(session.id, frozenset()))
            due = policy.warning_due(LIMITS, session, now, told)
            self.told[session.id] = told if due is None else told | {(due.ends, due.threshold)}
            if due is not None:
                assert 0 < due.seconds_left <= due.threshold
                self.warned.setdefault(session.id, []).append((due.ends, due.threshold, now.boottime))

    def _kill(self, runtime: str, code: str) -> None:
        machine = self.machines.get(runtime)
        if machine is not None and machine.ended is None:
            machine.ended, machine.ended_at = Reason(code, "."), self.clock.boottime()

    def _get(self, runtime: str) -> Session:
        session = self.sessions.ledger.get(runtime)
        assert session is not None
        return session

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def one_live_runtime_per_user_and_notebook(self) -> None:
        live = [(s.user, s.file_id) for s in self.store.live()]
        assert len(live) == len(set(live))

    @invariant()
    def no_runtime_outlives_its_limits(self) -> None:
        now = self.clock.boottime()
        for runtime, machine in self.machines.items():
            if machine.ended is not None or (machine.stuck and (self.down or self._not_ready(runtime))):
                continue
            assert now <= machine.ready + machine.lifetime + BOUND
            assert machine.busy or now <= machine.used + machine.idle + BOUND

    def _not_ready(self, runtime: str) -> bool:
        session = self.store.get(runtime)
        return session is None or session.state is not State.READY

    @invariant()
    def an_idle_end_never_comes_early(self) -> None:
        for machine in self.machines.values():
            if machine.ended is not None and machine.ended.code == policy.IDLE:
                assert machine.ended_at >= machine.used + machine.idle - 1e-6
                assert not machine.busy

    @invariant()
    def every_end_has_a_reason_and_what_it_used(self) -> None:
        for runtime in self.machines:
            session = self.store.get(runtime)
            assert session is not None
            if session.state in (State.ENDED, State.FAILED):
                assert session.reason is not None
                assert session.used_seconds is not None
                events = self.store.events(runtime)
                assert [name for name, _, _ in events].count("created") == 1
                assert metering.recomputed(runtime, events)[0] == session.used_seconds

    @invariant()
    def usage_is_what_the_boot_clock_says(self) -> None:
        now = self.sessions.moment()
        for session in self.store.live():
            if session.ready is not None and session.ready_boottime is not None:
                used = metering.used_seconds(session, now)
                assert used == pytest.approx(now.boottime - session.ready_boottime)


TestService = Service.TestCase
TestService.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
