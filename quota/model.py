"""The values of sessions and limits. Pure.

session     the recorded life of one runtime: created, ready, last activity, deadline, end, reason
activity    a cell running, or a person's action; an open tab, a ping or a poll is not activity
reason      a stable code plus a sentence, for every "no" and every end
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """Where a runtime is in its life."""

    QUEUED = "queued"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    ENDED = "ended"
    FAILED = "failed"


LIVE = frozenset({State.QUEUED, State.STARTING, State.READY, State.STOPPING})

MOVES: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.STARTING, State.STOPPING, State.ENDED, State.FAILED}),
    State.STARTING: frozenset({State.READY, State.STOPPING, State.ENDED, State.FAILED}),
    State.READY: frozenset({State.STOPPING, State.ENDED}),
    State.STOPPING: frozenset({State.ENDED, State.FAILED}),
    State.ENDED: frozenset(),
    State.FAILED: frozenset(),
}


@dataclass(frozen=True)
class Reason:
    """Why: a stable code and one sentence with numbers."""

    code: str
    message: str


@dataclass(frozen=True)
class Limits:
    """Limits of one session, in seconds; `max_runtimes` counts live runtimes of one user.

    `extensions`: how often a user may lengthen the life of one runtime by `extend_by_seconds`. `allow`: whether a runtime of this
    kind may be started at all.
    """

    max_lifetime_seconds: float
    idle_limit_seconds: float
    warn_before_seconds: tuple[float, ...]
    max_runtimes: int
    extensions: int = 0
    extend_by_seconds: float = 3600.0
    allow: bool = True


@dataclass(frozen=True)
class Who:
    """Whom a rule is asked for: a user, and the groups (teams) they are in."""

    user: str
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Kind:
    """What kind of runtime a rule is asked for."""

    accelerator: str
    shape: str


@dataclass(frozen=True)
class Rule:
    """What differs for some: None matches everything, or leaves the value as it is."""

    users: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    accelerators: frozenset[str] | None = None
    shapes: frozenset[str] | None = None
    allow: bool | None = None
    max_lifetime_seconds: float | None = None
    idle_limit_seconds: float | None = None
    warn_before_seconds: tuple[float, ...] | None = None
    max_runtimes: int | None = None
    extensions: int | None = None
    extend_by_seconds: float | None = None


class Unit(StrEnum):
    """What a budget counts. An accelerator-hour is one hour with one accelerator, times its price."""

    ACCELERATOR_HOURS = "accelerator_hours"
    CPU_HOURS = "cpu_hours"


class Per(StrEnum):
    """Who holds a budget: each user alone, or all members of a team together."""

    USER = "user"
    TEAM = "team"


@dataclass(frozen=True)
class Window:
    """When a budget fills up again: `day`, `week` (Monday) or `month` of the calendar, or `rolling` over `seconds`."""

    kind: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Budget:
    """So many hours in a window. None for `groups` is everybody, for `accelerators` every one."""

    name: str
    per: Per
    unit: Unit
    hours: float
    window: Window
    groups: frozenset[str] | None = None
    accelerators: frozenset[str] | None = None


@dataclass(frozen=True)
class Rules:
    """All of the limits of an installation. `prices`: accelerator → accelerator-hours an hour (1 when not named)."""

    base: Limits
    rules: tuple[Rule, ...] = ()
    budgets: tuple[Budget, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict)
    time_zone: str = "UTC"


@dataclass(frozen=True)
class Charge:
    """What one session has used: `seconds` from `start` (aware UTC), with so many cores and accelerator-hours an hour."""

    session_id: str
    user: str
    teams: frozenset[str]
    accelerator: str
    start: datetime
    seconds: float
    cpus: float
    price: float
    live: bool = False


@dataclass(frozen=True)
class Grant:
    """Hours an administrator added to the budget `budget` of `holder` (a user or a team), for the window that `at` is in."""

    budget: str
    holder: str
    hours: float
    note: str
    by: str
    at: datetime


@dataclass(frozen=True)
class Balance:
    """What is left of a budget. Hours in the budget's unit; `rate` is what is used an hour now.

    `resets_at`: when there is more again (None: nothing was used); `lasts_until`: when it is used up at this rate, None when it is not.
    """

    budget: Budget
    holder: str
    granted: float
    used: float
    rate: float
    resets_at: datetime | None
    lasts_until: datetime | None

    @property
    def limit(self) -> float:
        """The budget's hours and what was granted on top."""
        return self.budget.hours + self.granted

    @property
    def left(self) -> float:
        return max(0.0, self.limit - self.used)


@dataclass(frozen=True)
class Session:
    """One runtime's recorded life.

    Times are aware UTC, for people. Durations are taken from `ready_boottime` and `active_boottime`, seconds of CLOCK_BOOTTIME in
    the boot `boot_id`, so that a step of the wall clock changes nothing. A session that is `stopping` has its reason already.

    `teams` (groups of the user), `cpus` (cores) and `price` (accelerator-hours an hour) are as they were at the start: usage is
    charged by them. `budget_seconds`: how long after ready its budget `budget_name` is used up, None when none binds it.
    `used_seconds`: from ready to the end, once it has ended.
    """

    id: str
    user: str
    file_id: str
    file_name: str
    state: State
    phase: str
    phase_message: str
    accelerator: str
    shape: str
    backend: str
    device: str | None
    created: datetime
    ready: datetime | None
    last_activity: datetime | None
    ended: datetime | None
    reason: Reason | None
    max_lifetime_seconds: float
    idle_limit_seconds: float
    boot_id: str | None = None
    ready_boottime: float | None = None
    active_boottime: float | None = None
    teams: frozenset[str] = frozenset()
    cpus: float = 0.0
    price: float = 0.0
    extensions_used: int = 0
    extended_seconds: float = 0.0
    budget_name: str | None = None
    budget_seconds: float | None = None
    used_seconds: float | None = None


@dataclass(frozen=True)
class Moment:
    """One instant, by both clocks: `wall` (aware UTC) for people, `boottime` (CLOCK_BOOTTIME, seconds) for durations.

    `boot_id` names the boot that `boottime` counts from: boot times of different boots can not be compared.
    """

    wall: datetime
    boottime: float
    boot_id: str


@dataclass(frozen=True)
class Announcement:
    """An end that comes near: `ends` is `idle`, `max_lifetime` or `budget`; `threshold` is which announcement this is."""

    ends: str
    threshold: float
    seconds_left: float


@dataclass(frozen=True)
class End:
    """One of the ends a session has before it. `limit_seconds` is how long that end was away when it began to count."""

    kind: str
    seconds_left: float
    limit_seconds: float


@dataclass(frozen=True)
class Filter:
    """Which sessions are asked for; None does not restrict."""

    user: str | None = None
    file_id: str | None = None
    states: frozenset[State] | None = None


@dataclass(frozen=True)
class Allowed:
    """The request may go on."""


@dataclass(frozen=True)
class Denied:
    """The request may not go on: `limit` and `used` are the numbers behind the sentence, counted in `unit`."""

    code: str
    message: str
    limit: float
    used: float
    resets_at: datetime | None = None
    unit: str = ""
