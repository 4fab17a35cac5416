"""`minicolab quota simulate`: what would these limits do to so many people in so many days?"""

from __future__ import annotations

import argparse
from pathlib import Path

from hub.cli.common import SETTINGS, USAGE, fail, print_json
from hub.settings import SettingsError, load_settings
from hub.wiring import quota_rules
from quota.simulator import People, Report, simulate


def add_parser(quota: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = quota.add_parser(
        "simulate", help="try the limits of a settings file on made-up people, without a service"
    )
    parser.add_argument("file", type=Path, nargs="?", help="settings (default: all defaults)")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--starts-a-day", type=float, default=1.0, help="of each user")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same people and days")
    parser.add_argument(
        "--team", action="append", default=[], metavar="NAME=SHARE", help="a team and its share of the users"
    )
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="ACCELERATOR=SHARE",
        help="an accelerator and its share of the starts (default: NONE=0.7 T4=0.25 A100=0.05)",
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    try:
        rules = quota_rules(load_settings(arguments.file).quota)
    except SettingsError as error:
        fail(SETTINGS, str(error))
    if arguments.users < 0 or not arguments.days > 0 or not arguments.starts_a_day > 0:
        fail(USAGE, "--users must not be negative; --days and --starts-a-day must be more than 0")
    people = People(users=arguments.users, teams=_shares(arguments.team), starts_a_day=arguments.starts_a_day)
    if arguments.kind:
        people = People(people.users, people.teams, _shares(arguments.kind), people.starts_a_day)
    _print(simulate(rules, people, days=arguments.days, seed=arguments.seed), as_json=arguments.json)
    return 0


def _shares(pairs: list[str]) -> dict[str, float]:
    """Return name → share. Ends the command for what is none."""
    shares: dict[str, float] = {}
    for pair in pairs:
        name, _, share = pair.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            shares[name] = -1.0
        if not name or not 0 <= shares[name] <= 1:
            fail(USAGE, f"'{pair}' must be a name, '=', and a share from 0 to 1, such as lab=0.1")
    return shares


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(vars(report))
        return
    print(f"{report.starts} runtimes were started, at most {report.most_at_once} at once.")
    for title, counts in (
        ("ended", report.ends),
        ("refused", report.refusals),
        ("announced", report.warnings),
    ):
        listed = ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))
        print(f"{title}: {listed or 'none'}")
    print(f"kept {report.keeps} times, extended {report.extensions} times")
    listed = ", ".join(f"{name} {hours:.0f}" for name, hours in sorted(report.hours.items()))
    print(f"hours by accelerator: {listed or 'none'}")
    print(f"digest {report.digest[:16]}")
