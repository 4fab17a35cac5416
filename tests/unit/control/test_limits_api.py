"""Limits, budgets, usage and refusals, as a client of control sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_support import World, world

from quota.metering import recomputed
from support.patience import PATIENCE

A_GPU_BUDGET = {"name": "gpu", "unit": "accelerator_hours", "hours": 10}
CPU = {"name": "cpu", "unit": "cpu_hours", "hours": 100, "window": "7d"}
TEAM = {"name": "shared", "per": "team", "groups": ["vision"], "unit": "cpu_hours", "hours": 50}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    quota = {"budgets": [A_GPU_BUDGET, CPU, TEAM], "extensions": 1, "extend_by": "30m"}
    async with world(tmp_path / "state", quota=quota) as running:
        yield running


async def until_event(here: World, runtime: str, name: str, seconds: float = PATIENCE) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        async for fields, model in here.events("ada", runtime):
            if fields["event"] == name:
                return model
    raise AssertionError("the events ended")


async def test_a_session_says_its_ends(here: World) -> None:
    ready = await here.ready()
    assert ready["limits"] == {"max_lifetime_seconds": 43_200, "idle_limit_seconds": 5_400}
    assert ready["extension"] == {"left": 1, "by_seconds": 1800}
    assert ready["end"]["kind"] == "idle"
    assert ready["end"]["seconds_left"] == pytest.approx(5400, abs=30)


async def test_a_life_is_extended_as_often_as_is_allowed(here: World) -> None:
    ready = await here.ready()
    status, longer = await here.call("ada", "POST", f"runtimes/{ready['id']}/extend", {})
    assert (status, longer["limits"]["max_lifetime_seconds"], longer["extension"]["left"]) == (200, 45_000, 0)
    assert here.backend.carried(ready["id"])["limits"] == [45_000, 5_400]
    status, refused = await here.call("ada", "POST", f"runtimes/{ready['id']}/extend", {})
    assert (status, refused["code"], refused["limit"], refused["used"]) == (409, "no_extensions_left", 1, 1)
    status, _ = await here.call("bob", "POST", f"runtimes/{ready['id']}/extend", {})
    assert status == 404
    path = f"admin/runtimes/{ready['id']}/extend"
    assert (await here.call("ada", "POST", path, {"seconds": 60}))[0] == 403
    status, longest = await here.call("root", "POST", path, {"seconds": 60})
    assert (status, longest["limits"]["max_lifetime_seconds"]) == (200, 45_060)
    for bad in (0, -1, "60", True, 1e12):
        assert (await here.call("root", "POST", path, {"seconds": bad}))[0] == 400


async def test_extending_may_be_off(tmp_path: Path) -> None:
    async with world(tmp_path / "state") as here:
        ready = await here.ready()
        status, refused = await here.call("ada", "POST", f"runtimes/{ready['id']}/extend", {})
        assert (status, refused["code"]) == (403, "extend_not_allowed")


async def test_my_quota_shows_my_budgets_and_those_of_my_teams(here: World) -> None:
    await here.ready()
    status, quota = await here.call("ada", "GET", "quota")
    assert status == 200
    assert quota["groups"] == ["vision"]
    assert quota["live"] == 1
    assert quota["rate_per_hour"] == {"accelerator_hours": 0, "cpu_hours": 2.0}
    assert [(b["name"], b["holder"], b["limit"], b["window"]) for b in quota["budgets"]] == [
        ("gpu", "ada", 10, "month"),
        ("cpu", "ada", 100, "rolling 7 days"),
        ("shared", "vision", 50, "month"),
    ]
    assert quota["budgets"][2]["rate_per_hour"] == 2.0
    assert [b["name"] for b in (await here.call("bob", "GET", "quota"))[1]["budgets"]] == ["gpu", "cpu"]
    assert (await here.call("ada", "GET", "admin/quota?user=bob"))[0] == 403
    assert (await here.call("root", "GET", "admin/quota?user=ada"))[1]["groups"] == ["vision"]


async def test_a_budget_ends_a_runtime_and_then_refuses_with_its_numbers(tmp_path: Path) -> None:
    tiny = {"name": "cpu", "unit": "cpu_hours", "hours": 2 * 6 / 3600, "window": "month"}
    async with world(tmp_path / "state", quota={"budgets": [tiny], "warn_before": ["1s"]}) as here:
        runtime = (await here.ready())["id"]
        asked = here.hub.options[runtime]["budget"]
        assert asked["seconds"] == pytest.approx(6, abs=0.01)
        assert asked["code"] == "budget_used_up"
        warned = await until_event(here, runtime, "warning")
        assert (warned["ends"], warned["threshold_seconds"], warned["end"]["kind"]) == ("budget", 1, "budget")
        ended = await here.until("ada", runtime, lambda m: m["state"] == "ended")
        assert ended["reason"] == {
            "code": "budget_used_up",
            "message": "The budget 'cpu' is used up.",
        }
        status, refused = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
        assert (status, refused["code"], refused["unit"]) == (409, "budget_used_up", "cpu_hours")
        assert refused["used"] >= refused["limit"] > 0
        assert refused["resets_at"].endswith("-01T00:00:00Z")
        assert refused["offer"]["kind"] == "wait"
        grant = {"budget": "cpu", "holder": "ada", "hours": 1, "note": "thesis"}
        assert (await here.call("ada", "POST", "admin/grants", grant))[0] == 403
        status, made = await here.call("root", "POST", "admin/grants", grant)
        assert (status, made["by"]) == (201, "root")
        assert (await here.call("root", "GET", "admin/grants"))[1]["items"] == [made]
        await here.ready()


async def test_a_runtime_that_shares_a_budget_is_told_that_it_ends_earlier(here: World) -> None:
    one = await here.ready("ada", "nb-ada")
    first = here.hub.options[one["id"]]["budget"]["seconds"]
    assert first == pytest.approx(25 * 3600, abs=60)
    two = await here.ready("ada", "nb-two")
    async with asyncio.timeout(PATIENCE):
        while (here.backend.carried(one["id"]).get("budget") or first) > 20 * 3600:
            await asyncio.sleep(0.02)
    assert here.backend.carried(one["id"])["budget"] == pytest.approx(12.5 * 3600, abs=60)
    await here.call("ada", "DELETE", f"runtimes/{two['id']}")
    async with asyncio.timeout(PATIENCE):
        while here.backend.carried(one["id"])["budget"] < 20 * 3600:
            await asyncio.sleep(0.02)


async def test_what_may_not_be_used_is_refused_and_something_else_offered(tmp_path: Path) -> None:
    rules = [{"groups": ["vision"], "shapes": ["STANDARD"], "allow": False}]
    async with world(tmp_path / "state", quota={"rules": rules}) as here:
        status, refused = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
        assert (status, refused["code"], refused["offer"]) == (403, "not_eligible", None)
        await here.ready("bob", "nb-bob")


async def test_too_many_runtimes_names_the_one_that_was_not_used_for_longest(tmp_path: Path) -> None:
    async with world(tmp_path / "state", quota={"max_runtimes": 1}) as here:
        first = await here.ready()
        status, refused = await here.call("ada", "POST", "runtimes", {"file_id": "nb-two"})
        assert (status, refused["code"], refused["limit"], refused["used"]) == (
            409,
            "too_many_runtimes",
            1,
            1,
        )
        assert refused["offer"]["kind"] == "stop"
        assert refused["offer"]["runtime_id"] == first["id"]


async def test_usage_is_told_as_json_csv_and_metrics_and_agrees_with_the_record(here: World) -> None:
    runtime = (await here.ready())["id"]
    status, ended = await here.call("ada", "DELETE", f"runtimes/{runtime}")
    assert status == 200
    seconds, _, cpu_hours = recomputed(runtime, here.control.sessions.ledger.events(runtime))
    assert ended["used_seconds"] == pytest.approx(seconds, abs=0.001)
    for by in ("day", "user", "team", "accelerator"):
        status, usage = await here.call("ada", "GET", f"usage?by={by}")
        assert status == 200
        assert usage["total"]["sessions"] == 1
        assert usage["total"]["cpu_hours"] == pytest.approx(cpu_hours, abs=1e-5)
        assert len(usage["items"]) == 1
    status, text = await here.call("ada", "GET", "usage?by=team&format=csv")
    assert status == 200
    assert text.splitlines()[0] == "team,sessions,seconds,accelerator_hours,cpu_hours"
    assert text.splitlines()[1].startswith("vision,1,")
    assert (await here.call("bob", "GET", "usage"))[1]["items"] == []
    assert (await here.call("bob", "GET", "usage?user=ada"))[0] == 403
    assert [u["user"] for u in (await here.call("root", "GET", "usage?by=user&user=*"))[1]["items"]] == [
        "ada"
    ]
    for bad in (
        "by=hour",
        "format=xml",
        "since=yesterday",
        "since=2026-13-01",
        "since=2030-01-01&until=2029-01-01",
    ):
        assert (await here.call("ada", "GET", f"usage?{bad}"))[0] == 400, bad
    status, metrics = await here.call("root", "GET", "/services/control/metrics")
    assert status == 200
    assert 'minicolab_runtime_seconds_total{accelerator="NONE",user="ada"}' in metrics
    assert (await here.call("ada", "GET", "/services/control/metrics"))[0] == 403


async def test_new_limits_reach_running_sessions_and_shorter_ones_only_with_notice(here: World) -> None:
    runtime = (await here.ready())["id"]
    assert (await here.call("ada", "POST", "admin/reload", {"quota": {}}))[0] == 403
    status, bad = await here.call("root", "POST", "admin/reload", {"quota": {"max_lifetime": "1 day"}})
    assert (status, bad["field"]) == (400, "quota.max_lifetime")
    longer = {"max_lifetime": "20h", "idle_limit": "3h"}
    assert (await here.call("root", "POST", "admin/reload", {"quota": longer}))[1] == {"changed": 1}
    assert here.backend.carried(runtime)["limits"] == [72_000, 10_800]
    shorter = {**longer, "max_lifetime": "1s", "warn_before": ["10m", "1m"]}
    assert (await here.call("root", "POST", "admin/reload", {"quota": shorter}))[1] == {"changed": 1}
    model = (await here.call("ada", "GET", f"runtimes/{runtime}"))[1]
    assert model["end"]["seconds_left"] == pytest.approx(600, abs=30)
    # It was announced then; a still shorter limit does not bring the end nearer.
    await until_told(here, runtime)
    again = {**shorter, "warn_before": []}
    await here.call("root", "POST", "admin/reload", {"quota": again})
    after = (await here.call("ada", "GET", f"runtimes/{runtime}"))[1]
    assert after["end"]["seconds_left"] == pytest.approx(600, abs=30)


async def until_told(here: World, runtime: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while "warned" not in {event for event, _, _ in here.control.sessions.ledger.events(runtime)}:
            await asyncio.sleep(0.02)


async def test_where_the_machine_of_runtimes_can_keep_no_content_none_is_promised(here: World) -> None:
    await here.call("ada", "PUT", "quota/keep_content", {"keep": True})
    here.backend.keeps_content = False
    assert (await here.call("ada", "GET", "quota"))[1]["snapshot_max_bytes"] == 0
    status, refusal = await here.call("ada", "PUT", "quota/keep_content", {"keep": True})
    assert (status, refusal["code"]) == (409, "snapshots_off")
    runtime = await here.ready()
    assert here.hub.options[runtime["id"]]["snapshot_bytes"] == 0


async def test_content_is_kept_for_who_wants_it_and_offered_to_the_next_runtime(here: World) -> None:
    runtime = (await here.ready())["id"]
    assert here.hub.options[runtime]["snapshot_bytes"] == 0
    assert (await here.call("ada", "PUT", "quota/keep_content", {"keep": "yes"}))[0] == 400
    assert (await here.call("ada", "PUT", "quota/keep_content", {"keep": True}))[1] == {"keep_content": True}
    assert here.backend.carried(runtime)["snapshot_bytes"] == 1 << 30
    assert (await here.call("ada", "GET", "snapshots"))[1] == {"items": []}
    here.backend.leave(runtime, "the files")
    await here.call("ada", "DELETE", f"runtimes/{runtime}")
    async with asyncio.timeout(PATIENCE):
        while not (items := (await here.call("ada", "GET", "snapshots"))[1]["items"]):
            await asyncio.sleep(0.02)
    assert [(s["id"], s["file_id"], s["name"]) for s in items] == [
        (runtime, "nb-ada", f"nb-ada ({runtime}).tar.gz")
    ]
    assert (await here.call("bob", "GET", "snapshots"))[1] == {"items": []}
    following = (await here.ready())["id"]
    assert here.hub.options[following]["snapshot_bytes"] == 1 << 30
    path = f"runtimes/{following}/restore"
    assert (await here.call("bob", "POST", path, {"snapshot_id": runtime}))[0] == 404
    assert (await here.call("ada", "POST", path, {"snapshot_id": "r-aaaaaaaaaaaa"}))[0] == 404
    assert (await here.call("ada", "POST", path, {"snapshot_id": runtime}))[1] == {"files": 1}
    assert here.backend.carried(following)["restored"] == "the files"


@pytest.mark.parametrize(
    ("content", "why_not", "told"),
    [
        ("the files", "", {"kept": True, "message": ""}),
        (None, "/content holds more than the 1 GiB that are kept", {"kept": False}),
        (None, "/content was empty", None),  # nothing is missing
    ],
)
async def test_an_ended_runtime_says_what_became_of_its_content(
    here: World, content: str | None, why_not: str, told: dict[str, object] | None
) -> None:
    await here.call("ada", "PUT", "quota/keep_content", {"keep": True})
    runtime = (await here.ready())["id"]
    assert (await here.call("ada", "GET", f"runtimes/{runtime}"))[1]["content"] is None
    here.backend.leave(runtime, content, why_not=why_not)
    await here.call("ada", "DELETE", f"runtimes/{runtime}")
    async with asyncio.timeout(PATIENCE):
        while not any(e == "snapshot" for e, _, _ in here.control.sessions.ledger.events(runtime)):
            await asyncio.sleep(0.02)
    found = (await here.call("ada", "GET", f"runtimes/{runtime}"))[1]["content"]
    assert found == ({"message": why_not, **told} if told is not None else None)
    assert (await here.call("bob", "GET", f"runtimes/{runtime}"))[0] == 404


async def test_announcements_are_not_repeated_by_the_next_instance(tmp_path: Path) -> None:
    quota = {"idle_limit": "1h", "warn_before": ["3599s"], "max_lifetime": "12h"}
    async with world(tmp_path / "state", quota=quota) as here:
        runtime = (await here.ready())["id"]
        await until_told(here, runtime)
        ends = here.control.orchestrator.ends
        ends._told.clear()  # what a restart forgets
        await ends.look()
        told = [e for e, _, _ in here.control.sessions.ledger.events(runtime) if e == "warned"]
        assert told == ["warned"]
