"""Months of a service in seconds, by seed; and that a broken rule is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quota import metering, policy
from quota.model import Budget, Limits, Moment, Per, Rule, Rules, Session, Unit, Window
from quota.simulator import BrokenRule, Mishaps, People, Report, simulate

BASE = Limits(12 * 3600.0, 5400.0, (600.0, 300.0, 60.0), 3, extensions=1)
RULES = Rules(
    BASE,
    (
        Rule(accelerators=frozenset({"A100"}), allow=False),
        Rule(accelerators=frozenset({"A100"}), groups=frozenset({"lab"}), allow=True),
    ),
    (
        Budget("gpu", Per.USER, Unit.ACCELERATOR_HOURS, 12.0, Window("week")),
        Budget("lab", Per.TEAM, Unit.ACCELERATOR_HOURS, 200.0, Window("month"), frozenset({"lab"})),
    ),
    {"A100": 3.0},
    "Europe/Berlin",
)
PEOPLE = People(users=40, teams={"lab": 0.2}, starts_a_day=2.0)


def a_month(seed: int, people: People = PEOPLE) -> Report:
    return simulate(RULES, people, days=30, seed=seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_month_keeps_every_rule_and_meets_every_kind_of_end(seed: int) -> None:
    report = a_month(seed)
    assert {"idle", "max_lifetime", "user_deleted", "budget", "crashed"} <= set(report.ends)
    assert {"budget_used_up", "not_eligible"} <= set(report.refusals)
    assert report.starts == sum(report.ends.values())
    assert report.keeps
    assert report.extensions


def test_the_same_seed_gives_the_same_month_and_another_one_another() -> None:
    assert a_month(7).digest == a_month(7).digest != a_month(8).digest


def test_a_budget_twice_as_large_refuses_less() -> None:
    (gpu, lab) = RULES.budgets
    generous = replace(RULES, budgets=(replace(gpu, hours=2 * gpu.hours), lab))
    tight = a_month(1).refusals["budget_used_up"]
    assert simulate(generous, PEOPLE, days=30, seed=1).refusals["budget_used_up"] < tight


def broken_warning(limits: Limits, session: Session, now: Moment, told: frozenset[tuple[str, float]]) -> None:
    return None


def used_by_the_wall_clock(session: Session, now: Moment) -> float:
    assert session.ready is not None
    return max(0.0, ((session.ended or now.wall) - session.ready).total_seconds())


def test_an_end_that_is_not_announced_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "warning_due", broken_warning)
    with pytest.raises(BrokenRule, match="R5"):
        a_month(1)


def test_usage_by_the_wall_clock_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "used_seconds", used_by_the_wall_clock)
    with pytest.raises(BrokenRule, match="R3"):
        simulate(RULES, PEOPLE, days=30, seed=1, mishaps=Mishaps(clock_steps=365.0))


def test_nobody_comes_and_nothing_happens() -> None:
    report = a_month(1, People(users=0))
    assert report.starts == report.most_at_once == 0
