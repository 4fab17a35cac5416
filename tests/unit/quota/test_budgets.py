"""Rules, windows, budgets and usage: the pure core."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota import budgets, metering, policy
from quota.model import (
    Allowed,
    Budget,
    Charge,
    Denied,
    Grant,
    Kind,
    Limits,
    Per,
    Rule,
    Rules,
    Unit,
    Who,
    Window,
)
from quota.windows import days_of, end_of, name_of, start_of, zone_of

BASE = Limits(43_200, 5_400, (600, 300, 60), 5)
NOW = datetime(2026, 3, 18, 12, 0, tzinfo=UTC)  # a Wednesday
MONTH, WEEK, DAY = Window("month"), Window("week"), Window("day")
ROLLING_DAY = Window("rolling", 86_400)
ADA = Who("ada", frozenset({"vision"}))
T4, CPU = Kind("T4", "STANDARD"), Kind("NONE", "STANDARD")


def gpu_budget(hours: float = 10, window: Window = MONTH, per: Per = Per.USER) -> Budget:
    return Budget("gpu", per, Unit.ACCELERATOR_HOURS, hours, window)


def charge(
    start: datetime = NOW - timedelta(hours=1),
    hours: float = 1,
    *,
    user: str = "ada",
    accelerator: str = "T4",
    price: float = 1.0,
    live: bool = False,
    teams: Sequence[str] = ("vision",),
) -> Charge:
    return Charge("r-1", user, frozenset(teams), accelerator, start, hours * 3600, 2.0, price, live)


def test_the_last_rule_that_names_a_value_gives_it() -> None:
    rules = Rules(
        BASE,
        (
            Rule(groups=frozenset({"vision"}), max_lifetime_seconds=3600, idle_limit_seconds=600),
            Rule(accelerators=frozenset({"T4"}), idle_limit_seconds=300),
            Rule(users=frozenset({"bob"}), max_runtimes=1),
            Rule(shapes=frozenset({"BIG"}), allow=False),
        ),
    )
    on_gpu = policy.limits_for(rules, ADA, T4)
    assert (on_gpu.max_lifetime_seconds, on_gpu.idle_limit_seconds, on_gpu.max_runtimes) == (3600, 300, 5)
    assert policy.limits_for(rules, ADA, CPU).idle_limit_seconds == 600
    assert policy.limits_for(rules, Who("bob"), CPU).max_runtimes == 1
    assert policy.limits_for(rules, Who("eve"), CPU) == BASE
    assert not policy.limits_for(rules, ADA, Kind("NONE", "BIG")).allow


def test_what_is_not_allowed_is_refused_before_anything_else() -> None:
    denied = policy.may_start(Limits(1, 1, (), 1, allow=False), [], T4)
    assert isinstance(denied, Denied)
    assert denied.code == "not_eligible"
    assert "T4" in denied.message


def test_a_budget_that_is_used_up_is_refused_with_its_numbers() -> None:
    known = budgets.balance(gpu_budget(1), "ada", [charge()], [], NOW, UTC)
    denied = policy.may_start(BASE, [], T4, [known])
    assert isinstance(denied, Denied)
    assert (denied.code, denied.limit, denied.used, denied.unit) == (
        "budget_used_up",
        1,
        1,
        "accelerator_hours",
    )
    assert denied.resets_at == datetime(2026, 4, 1, tzinfo=UTC)
    assert denied.message == "All 1 accelerator-hours of your budget 'gpu' are used up."
    granted = [Grant("gpu", "ada", 2, "", "root", NOW)]
    more = budgets.balance(gpu_budget(1), "ada", [charge()], granted, NOW, UTC)
    assert isinstance(policy.may_start(BASE, [], T4, [more]), Allowed)
    assert (more.limit, more.left) == (3, 2)


def test_windows_begin_at_midnight_of_their_own_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert start_of(DAY, NOW, berlin) == datetime(2026, 3, 17, 23, tzinfo=UTC)
    assert start_of(WEEK, NOW, UTC) == datetime(2026, 3, 16, tzinfo=UTC)
    assert end_of(WEEK, NOW, UTC) == datetime(2026, 3, 23, tzinfo=UTC)
    assert (start_of(MONTH, NOW, UTC), end_of(MONTH, NOW, UTC)) == (
        datetime(2026, 3, 1, tzinfo=UTC),
        datetime(2026, 4, 1, tzinfo=UTC),
    )
    # The day on which clocks go forward has 23 hours.
    change = datetime(2026, 3, 29, 12, tzinfo=UTC)
    after = end_of(DAY, change, berlin)
    assert after is not None
    assert after - start_of(DAY, change, berlin) == timedelta(hours=23)
    assert end_of(MONTH, datetime(2026, 12, 31, tzinfo=UTC), UTC) == datetime(2027, 1, 1, tzinfo=UTC)
    assert [name_of(w) for w in (MONTH, ROLLING_DAY, Window("rolling", 7 * 86_400))] == [
        "month",
        "rolling 1 day",
        "rolling 7 days",
    ]
    with pytest.raises(ValueError, match="Europe/Nowhere"):
        zone_of("Europe/Nowhere")


def test_only_what_is_inside_the_window_counts_and_only_what_the_budget_counts() -> None:
    over_new_year = charge(datetime(2026, 2, 28, 23, tzinfo=UTC), 2)
    charges = [over_new_year, charge(accelerator="NONE", price=0), charge(user="bob"), charge(price=4)]
    assert budgets.balance(gpu_budget(), "ada", charges, [], NOW, UTC).used == pytest.approx(1 + 4)
    team = budgets.balance(gpu_budget(per=Per.TEAM), "vision", charges, [], NOW, UTC)
    assert team.used == pytest.approx(1 + 1 + 4)
    cpu = Budget("cpu", Per.USER, Unit.CPU_HOURS, 10, MONTH, accelerators=frozenset({"NONE"}))
    assert budgets.balance(cpu, "ada", charges, [], NOW, UTC).used == pytest.approx(2)


def test_who_pays() -> None:
    mine, team = gpu_budget(), gpu_budget(per=Per.TEAM)
    rules = Rules(BASE, budgets=(mine, team))
    assert budgets.binding(rules, ADA, T4, 2) == [(mine, "ada"), (team, "vision")]
    assert budgets.binding(rules, ADA, CPU, 2) == []
    assert budgets.binding(Rules(BASE, budgets=(mine,), prices={"T4": 0}), ADA, T4, 2) == []
    others = Budget("gpu", Per.USER, Unit.ACCELERATOR_HOURS, 1, MONTH, groups=frozenset({"staff"}))
    assert budgets.holders(others, ADA) == []


def test_when_a_calendar_budget_is_used_up_at_this_rate() -> None:
    live = [charge(NOW - timedelta(hours=1), 1, live=True), charge(NOW, 0, live=True)]
    known = budgets.balance(gpu_budget(3), "ada", live, [], NOW, UTC)
    assert (known.rate, known.lasts_until) == (2, NOW + timedelta(hours=1))
    at_ten_to = datetime(2026, 3, 31, 23, 30, tzinfo=UTC)
    over = budgets.balance(gpu_budget(3), "ada", [charge(at_ten_to, 0, live=True)], [], at_ten_to, UTC)
    assert over.lasts_until == datetime(2026, 4, 1, 3, tzinfo=UTC)


def test_a_rolling_budget_gives_back_what_leaves_the_window() -> None:
    first = NOW - timedelta(hours=20)
    charges = [charge(first, 2), charge(NOW - timedelta(hours=4), 2)]
    full = budgets.balance(gpu_budget(3, ROLLING_DAY), "ada", charges, [], NOW, UTC)
    assert full.used == pytest.approx(4)
    # It is an hour above its limit; an hour after the first charge begins to leave it is at the limit.
    assert full.resets_at == first + timedelta(days=1, hours=1)


@given(
    hours=st.floats(0.1, 50),
    uses=st.lists(st.tuples(st.floats(0, 60), st.floats(0.01, 5)), min_size=1, max_size=6),
)
def test_a_rolling_budget_is_free_again_when_it_says(hours: float, uses: list[tuple[float, float]]) -> None:
    budget = gpu_budget(hours, ROLLING_DAY)
    charges = [charge(NOW - timedelta(hours=ago + length), length, price=5.0) for ago, length in uses]
    known = budgets.balance(budget, "ada", charges, [], NOW, UTC)
    if known.used >= known.limit:
        assert known.resets_at is not None
        assert known.resets_at >= NOW
        later = budgets.balance(budget, "ada", charges, [], known.resets_at + timedelta(seconds=1), UTC)
        assert later.used < later.limit + 1e-6
        before = known.resets_at - timedelta(seconds=1)
        if before > NOW:
            assert budgets.balance(budget, "ada", charges, [], before, UTC).used >= known.limit - 1e-6


@given(start=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), seconds=st.floats(0.001, 400_000))  # noqa: DTZ001
def test_days_add_up_in_every_zone(start: datetime, seconds: float) -> None:
    for name in ("UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"):
        parts = days_of(start.replace(tzinfo=UTC), seconds, zone_of(name))
        assert sum(part for _, part in parts) == pytest.approx(seconds)
        assert all(part <= 25 * 3600 for _, part in parts)
        assert [day for day, _ in parts] == sorted({day for day, _ in parts})


def test_usage_is_told_by_day_user_team_and_accelerator() -> None:
    charges = [
        charge(datetime(2026, 3, 17, 23, tzinfo=UTC), 2, price=4),
        charge(user="bob", accelerator="NONE", price=0, teams=()),
    ]
    since, until = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    days, total = metering.report(charges, "day", since, until, UTC)
    assert [(d.key, d.seconds, d.accelerator_hours) for d in days] == [
        ("2026-03-17", 3600, 4),
        ("2026-03-18", 7200, 4),
    ]
    assert (total.sessions, total.seconds, total.accelerator_hours, total.cpu_hours) == (2, 10_800, 8, 6)
    assert [u.key for u in metering.report(charges, "user", since, until, UTC)[0]] == ["ada", "bob"]
    assert [u.key for u in metering.report(charges, "team", since, until, UTC)[0]] == ["vision"]
    assert [u.key for u in metering.report(charges, "accelerator", since, until, UTC)[0]] == ["NONE", "T4"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (30, "30"), (2.5, "2.5"), (0.004, "0.004"), (0.00002, "less than 0.0001"), (100.0, "100")],
)
def test_hours_are_written_as_people_do(value: float, text: str) -> None:
    assert policy.hours(value) == text
