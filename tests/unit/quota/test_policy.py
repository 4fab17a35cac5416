"""Limits of a session, its ends and what is announced of them: decisions on values."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota import policy
from quota.model import (
    Allowed,
    Announcement,
    Denied,
    Moment,
    State,
)
from tests.unit.quota.session_support import LIMITS, NOW, READY_AT, a_session, at


@pytest.mark.parametrize(
    ("live", "allowed"),
    [
        pytest.param(0, True, id="none"),
        pytest.param(1, True, id="one-below"),
        pytest.param(2, False, id="exactly-at"),
        pytest.param(3, False, id="over"),
    ],
)
def test_a_user_may_have_so_many_runtimes(live: int, allowed: bool) -> None:
    decision = policy.may_start(LIMITS, [a_session() for _ in range(live)])
    assert isinstance(decision, Allowed) is allowed
    if isinstance(decision, Denied):
        assert (decision.code, decision.limit, decision.used) == ("too_many_runtimes", 2, live)


def test_life_counts_from_ready_and_idle_from_the_last_use() -> None:
    session = a_session(
        ready=NOW + timedelta(minutes=5),
        ready_boottime=READY_AT + 300,
        last_activity=NOW + timedelta(hours=1),
        active_boottime=READY_AT + 3600,
    )
    assert policy.deadline(session, at(4000)) == NOW + timedelta(hours=12, minutes=5)
    assert policy.idle_deadline(session, at(4000)) == NOW + timedelta(hours=2, minutes=30)
    starting = a_session(state=State.STARTING, ready=None, last_activity=None)
    assert policy.deadline(starting, at(0)) is None
    assert policy.idle_deadline(starting, at(0)) is None


@given(st.floats(0, 50_000), st.floats(-50_000_000, 50_000_000))
def test_setting_the_wall_clock_changes_no_duration(elapsed: float, step: float) -> None:
    session = a_session()
    as_it_was, after = at(elapsed), at(elapsed, wall_step=step)
    assert policy.life_left(session, after) == policy.life_left(session, as_it_was)
    assert policy.idle_left(session, after) == policy.idle_left(session, as_it_was)
    told: frozenset[tuple[str, float]] = frozenset()
    assert policy.warning_due(LIMITS, session, after, told) == policy.warning_due(
        LIMITS, session, as_it_was, told
    )
    late = {"grace_seconds": 3.0, "evidence": True}
    assert policy.overdue(session, after, **late) == policy.overdue(session, as_it_was, **late)  # type: ignore[arg-type]


def test_after_the_wall_clock_was_set_people_see_when_the_end_really_comes() -> None:
    seen = policy.deadline(a_session(), at(3600, wall_step=13 * 3600))
    assert seen == NOW + timedelta(hours=13 + 12)


def test_times_of_another_boot_are_not_compared() -> None:
    session = a_session()
    again = Moment(NOW + timedelta(hours=1), 12.0, "boot-2")
    assert policy.outlived_by_boot(session, again)
    assert not policy.outlived_by_boot(session, at(0))
    assert policy.life_left(session, again) == 43_200 - 3600


@pytest.mark.parametrize(
    ("minutes", "told", "expected"),
    [
        pytest.param(79, [], None, id="early"),
        pytest.param(80, [], ("idle", 600), id="ten-minutes-before"),
        pytest.param(81, [("idle", 600)], None, id="told-once"),
        pytest.param(86, [("idle", 600)], ("idle", 300), id="five-minutes-before"),
        pytest.param(89.5, [], ("idle", 60), id="only-the-nearest"),
        pytest.param(90, [], None, id="at-the-end"),
    ],
)
def test_an_end_is_announced_once_at_each_threshold(
    minutes: float, told: list[tuple[str, float]], expected: tuple[str, float] | None
) -> None:
    due = policy.warning_due(LIMITS, a_session(), at(minutes * 60), frozenset(told))
    assert ((due.ends, due.threshold) if due is not None else None) == expected


def test_an_end_that_moved_away_is_announced_anew() -> None:
    told = frozenset({("idle", 600.0), ("idle", 300.0)})
    assert policy.still_told(a_session(), at(86 * 60), told) == told
    used = a_session(active_boottime=READY_AT + 86 * 60)
    assert policy.still_told(used, at(86 * 60), told) == frozenset()


def test_a_threshold_longer_than_the_limit_is_left_out() -> None:
    session = a_session(idle_limit_seconds=120, max_lifetime_seconds=1e6)
    assert policy.warning_due(LIMITS, session, at(1), frozenset()) is None
    assert policy.warning_due(LIMITS, session, at(70), frozenset()) == Announcement("idle", 60, 50)


@given(st.floats(0, 100_000), st.floats(0, 100_000))
def test_a_warning_never_comes_after_the_end(elapsed: float, used_at: float) -> None:
    session = a_session(active_boottime=READY_AT + min(used_at, elapsed))
    due = policy.warning_due(LIMITS, session, at(elapsed), frozenset())
    if due is not None:
        assert 0 < due.seconds_left <= due.threshold


@pytest.mark.parametrize(
    ("elapsed", "used", "evidence", "code"),
    [
        pytest.param(5_400, 0, True, None, id="idle-at-the-limit"),
        pytest.param(5_402, 0, True, None, id="idle-within-the-grace"),
        pytest.param(5_404, 0, True, "idle", id="idle-beyond"),
        pytest.param(5_404, 0, False, None, id="idle-but-nobody-could-look"),
        pytest.param(9_000, 8_999, True, None, id="in-use"),
        pytest.param(43_202, 43_201, True, None, id="old-within-the-grace"),
        pytest.param(43_204, 43_203, True, "max_lifetime", id="old"),
        pytest.param(43_204, 0, False, "max_lifetime", id="old-and-silent"),
    ],
)
def test_what_is_overdue(elapsed: float, used: float, evidence: bool, code: str | None) -> None:
    session = a_session(active_boottime=READY_AT + used)
    reason = policy.overdue(session, at(elapsed), grace_seconds=3, evidence=evidence)
    assert (reason.code if reason is not None else None) == code


@pytest.mark.parametrize(
    ("seconds", "evidence", "expected"),
    [
        pytest.param(0, True, 4800, id="idle-is-announced-first"),
        pytest.param(5_400, True, 1, id="the-grace"),
        pytest.param(5_401, True, 0, id="idle-and-overdue"),
        pytest.param(5_500, True, 0, id="idle-for-longer"),
        pytest.param(5_500, False, 37_100, id="nobody-knows-whether-it-is-idle"),
        pytest.param(43_300, False, 0, id="its-life-is-over-whatever-it-did"),
    ],
)
def test_when_something_is_to_be_told_or_done_next(seconds: float, evidence: bool, expected: float) -> None:
    found = policy.seconds_to_next(LIMITS, a_session(), at(seconds), 1.0, evidence=evidence)
    assert found == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 second"),
        (4, "4 seconds"),
        (90, "90 seconds"),
        (5400, "90 minutes"),
        (43200, "12 hours"),
        (0.5, "0.5 seconds"),
    ],
)
def test_durations_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert policy.duration(seconds) == text
