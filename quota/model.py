"""The values of sessions and limits. Pure.

session     the recorded life of one runtime: created, ready, last activity, deadline, end, reason
activity    a cell running, or a person's action; an open tab, a ping or a poll is not activity
reason      a stable code plus a sentence, for every "no" and every end
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    """Limits of one session, in seconds; `max_runtimes` counts live runtimes of one user."""

    max_lifetime_seconds: float
    idle_limit_seconds: float
    warn_before_seconds: tuple[float, ...]
    max_runtimes: int


@dataclass(frozen=True)
class Session:
    """One runtime's recorded life.

    Times are aware UTC, for people. Durations are taken from `ready_boottime` and `active_boottime`, seconds of CLOCK_BOOTTIME in
    the boot `boot_id`, so that a step of the wall clock changes nothing. A session that is `stopping` has its reason already.
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
    """An end that comes near: `ends` is `idle` or `max_lifetime`; `threshold` is which announcement this is."""

    ends: str
    threshold: float
    seconds_left: float


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
    """The request may not go on: `limit` and `used` are the numbers behind the sentence."""

    code: str
    message: str
    limit: float
    used: float
    resets_at: datetime | None = None
