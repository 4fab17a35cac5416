"""The Usage and the Admin page as HTML; tests/browser/test_limits_page.py looks at them in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from control_support import World, world

from hub.control.limit_pages import length

PAGES = "/services/control"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    quota = {"budgets": [{"name": "cpu", "unit": "cpu_hours", "hours": 5}]}
    async with world(tmp_path / "state", quota=quota) as running:
        yield running


async def post(here: World, user: str, **form: str) -> tuple[int, str]:
    return await here.call(user, "POST", f"{PAGES}/admin", data=form, allow_redirects=False)


async def test_the_usage_page_of_somebody_new_and_of_somebody_who_works(here: World) -> None:
    status, empty = await here.call("bob", "GET", f"{PAGES}/usage")
    assert status == 200
    assert "No sessions yet." in empty
    runtime = await here.ready()
    status, page = await here.call("ada", "GET", f"{PAGES}/usage")
    assert status == 200
    assert "2 an hour now" in page
    assert runtime["file_name"] in page
    assert "Admin" not in page


async def test_only_administrators_see_and_use_the_admin_page(here: World) -> None:
    runtime = (await here.ready())["id"]
    for answer in (
        await here.call("ada", "GET", f"{PAGES}/admin"),
        await post(here, "ada", action="stop", runtime=runtime),
    ):
        assert answer[0] == 403
        assert "Only administrators may do this." in answer[1]
    assert (await here.call("ada", "GET", f"runtimes/{runtime}"))[1]["state"] == "ready"


async def test_the_admin_page_extends_grants_and_ends(here: World) -> None:
    runtime = (await here.ready())["id"]
    status, page = await here.call("root", "GET", f"{PAGES}/admin")
    assert status == 200
    assert "in 1 h 30 min (unused)" in page or "in 1 h 29 min (unused)" in page
    assert (await post(here, "root", action="extend", runtime=runtime, by="2h"))[0] == 302
    assert (await here.call("ada", "GET", f"runtimes/{runtime}"))[1]["limits"][
        "max_lifetime_seconds"
    ] == 50_400
    assert (await post(here, "root", action="grant", budget="cpu", holder="ada", hours="3", note="<i>"))[
        0
    ] == 302
    assert (await here.call("ada", "GET", "quota"))[1]["budgets"][0]["granted"] == 3
    assert "&lt;i&gt;" in (await here.call("root", "GET", f"{PAGES}/admin"))[1]
    for bad in (
        {"action": "extend", "runtime": runtime, "by": "soon"},
        {"action": "grant", "budget": "none", "holder": "ada", "hours": "1"},
        {"action": "grant", "budget": "cpu", "holder": "ada", "hours": "nan"},
        {"action": "burn"},
    ):
        assert (await post(here, "root", **bad))[0] == 400, bad
    assert (await post(here, "root", action="stop", runtime=runtime, reason="noon"))[0] == 302
    ended = (await here.call("ada", "GET", f"runtimes/{runtime}"))[1]
    assert ended["reason"] == {"code": "admin", "message": "An administrator ended the runtime: noon"}
    assert "An administrator ended the runtime: noon" in (await here.call("ada", "GET", f"{PAGES}/usage"))[1]
    assert (await post(here, "root", action="stop", runtime=runtime))[0] == 404


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3600, "1 h"), (5400, "1 h 30 min"), (43_200, "12 h")],
)
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert length(seconds) == text
