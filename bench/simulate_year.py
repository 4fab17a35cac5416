"""A year of a service of 1,000 people on virtual time: how long it takes, and that every rule held.

.venv/bin/python bench/simulate_year.py --seed 1
"""

from __future__ import annotations

import argparse
import time

from quota.model import Budget, Limits, Per, Rules, Unit, Window
from quota.simulator import People, simulate

RULES = Rules(
    Limits(12 * 3600.0, 5400.0, (600.0, 300.0, 60.0), 3, extensions=1),
    (),
    (
        Budget("gpu", Per.USER, Unit.ACCELERATOR_HOURS, 20.0, Window("week")),
        Budget("lab", Per.TEAM, Unit.ACCELERATOR_HOURS, 300.0, Window("month"), frozenset({"lab"})),
    ),
    {"A100": 3.0},
    "Europe/Berlin",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--days", type=float, default=365.0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    people = People(users=arguments.users, teams={"lab": 0.05})
    report = simulate(RULES, people, days=arguments.days, seed=arguments.seed)
    seconds = time.perf_counter() - began
    print(f"{report.starts} sessions, {report.events} events in {seconds:.0f} s: every rule held")
    print(f"ends {dict(report.ends)}, refusals {dict(report.refusals)}, digest {report.digest[:16]}")


if __name__ == "__main__":
    main()
