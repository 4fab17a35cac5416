"""Rules, budgets, groups and usage on a running installation, by its command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.patience import PATIENCE, until
from support.service import Running, run_command, running
from tests.integration.test_docs import ROOT, shell_lines

CONTROL = "/services/control/api/v1"
CONFIG = """
runtimes: {environment: minimal}
quota:
  max_runtimes: 3
  rules:
    - {groups: [students], max_runtimes: 1, max_lifetime: 2h}
    - {groups: [guests], allow: false}
  budgets:
    - {name: processor, unit: cpu_hours, hours: 100, window: month}
    - {name: lab, per: team, groups: [students], unit: cpu_hours, hours: 500, window: 7d}
"""


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("ruled") / "state", CONFIG) as service:
        service.add_user("boss", admin=True)
        for user, group in (("ada", "students"), ("eve", "guests")):
            service.add_user(user)
            service.command("group", "add", group, user)
        yield service


def test_groups_decide_what_a_user_may_do(ruled: Running) -> None:
    groups = {g["name"]: g["users"] for g in json.loads(ruled.command("group", "list", "--json").stdout)}
    assert groups == {"students": ["ada"], "guests": ["eve"]}
    runtime = ruled.start_runtime("ada", ruled.make_file("ada")["id"])
    assert runtime["limits"]["max_lifetime_seconds"] == 7200
    refused = ruled.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": ruled.make_file("ada")["id"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_runtimes")
    assert refused.json()["offer"]["runtime_id"] == runtime["id"]
    refused = ruled.api("eve", "POST", f"{CONTROL}/runtimes", json={"file_id": ruled.make_file("eve")["id"]})
    assert (refused.status_code, refused.json()["code"]) == (403, "not_eligible")
    quota = ruled.api("ada", "GET", f"{CONTROL}/quota").json()
    assert [(b["name"], b["holder"], b["rate_per_hour"]) for b in quota["budgets"]] == [
        ("processor", "ada", 2),
        ("lab", "students", 2),
    ]
    ruled.end_runtimes("ada")


def test_the_command_line_shows_extends_grants_and_ends(ruled: Running) -> None:
    runtime = ruled.start_runtime("ada", ruled.make_file("ada", "thesis.ipynb")["id"])
    listed = json.loads(ruled.command("runtimes", "list", "--json").stdout)
    assert [(r["id"], r["user"], r["end"]["kind"]) for r in listed] == [(runtime["id"], "ada", "idle")]
    assert "thesis.ipynb" in ruled.command("runtimes", "list").stdout
    ruled.command("runtimes", "extend", runtime["id"], "--by", "1h")
    now = ruled.api("ada", "GET", f"{CONTROL}/runtimes/{runtime['id']}").json()
    assert now["limits"]["max_lifetime_seconds"] == 3 * 3600
    said = ruled.command("quota", "grant", "processor", "ada", "2.5", "--note", "thesis").stdout
    assert said == "2.5 hours were added to the budget 'processor' of ada.\n"
    assert "102.5" in ruled.command("quota", "show", "ada").stdout
    ended = ruled.command("runtimes", "stop", runtime["id"], "--reason", "maintenance").stdout
    assert "An administrator ended the runtime: maintenance" in ended
    assert "maintenance" in ruled.command("sessions", "--user", "ada").stdout
    usage = json.loads(ruled.command("usage", "--by", "team", "--json").stdout)
    assert [u["team"] for u in usage["items"]] == ["students"]
    assert ruled.command("usage", "--by", "day", "--csv").stdout.startswith("day,sessions,seconds,")
    for words, code in (
        (("runtimes", "stop", "r-aaaaaaaaaaaa"), 4),
        (("runtimes", "extend", "r-aaaaaaaaaaaa", "--by", "long"), 2),
        (("quota", "grant", "nothing", "ada", "1"), 2),
        (("group", "remove", "nobody", "ada"), 4),
    ):
        assert ruled.command(*words, check=False).returncode == code, words


def test_new_limits_reach_running_runtimes_and_stay_after_a_restart(ruled: Running, tmp_path: Path) -> None:
    runtime = ruled.start_runtime("ada", ruled.make_file("ada")["id"])
    file = tmp_path / "minicolab.yaml"
    file.write_text(
        "runtimes: {environment: minimal}\nquota: {max_lifetime: 20h, idle_limit: 6s, warn_before: [3s]}\n"
    )
    said = ruled.command("config", "reload", str(file)).stdout
    assert "1 running runtime changed" in said
    ended = ruled.wait_for_state("ada", runtime["id"], {"ended"})
    assert ended["reason"]["code"] == "idle"
    assert ended["limits"]["max_lifetime_seconds"] == 20 * 3600
    broken = tmp_path / "broken.yaml"
    broken.write_text("quota: {max_lifetime: forever}\n")
    refused = ruled.command("config", "reload", str(broken), check=False)
    assert (refused.returncode, "broken.yaml:1" in refused.stderr) == (78, True)
    saved = json.loads((ruled.state / "run" / "service.json").read_text())
    assert saved["settings"]["quota"]["idle_limit"] == "PT6S"
    back = tmp_path / "back.yaml"
    back.write_text(CONFIG)
    ruled.command("config", "reload", str(back))


def test_a_budget_ends_a_real_runtime_on_time(ruled: Running, tmp_path: Path) -> None:
    file = tmp_path / "minicolab.yaml"
    budget = "{name: drop, unit: cpu_hours, hours: 0.004, window: day}"  # 7.2 s of two cores
    file.write_text(
        f"runtimes: {{environment: minimal}}\nquota: {{warn_before: [2s], budgets: [{budget}]}}\n"
    )
    ruled.command("config", "reload", str(file))
    ruled.add_user("kim")
    runtime = ruled.start_runtime("kim", ruled.make_file("kim")["id"])
    ended = ruled.wait_for_state("kim", runtime["id"], {"ended"})
    assert ended["reason"] == {"code": "budget_used_up", "message": "The budget 'drop' is used up."}
    assert 7.1 < ended["used_seconds"] < 7.2 + PATIENCE  # how late it is seen is the machine's matter
    recorded = ruled.api("kim", "GET", f"{CONTROL}/sessions").json()["items"]
    assert [s["reason"]["code"] for s in recorded] == ["budget_used_up"]
    until(
        lambda: ruled.api("kim", "GET", f"{CONTROL}/quota").json()["budgets"][0]["left"] == 0,
        "the budget is used up",
    )
    back = tmp_path / "back.yaml"
    back.write_text(CONFIG)
    ruled.command("config", "reload", str(back))


def test_the_commands_of_the_page_about_limits_work(ruled: Running) -> None:
    for line in shell_lines(ROOT / "docs" / "quota.md"):
        assert line.startswith(".venv/bin/minicolab ")
        assert ruled.command(*line.split()[1:]).returncode == 0


def test_without_a_service_the_commands_say_so(tmp_path: Path) -> None:
    done = run_command("usage", "--state", str(tmp_path), check=False)
    assert done.returncode == 78
    assert "minicolab up" in done.stderr
