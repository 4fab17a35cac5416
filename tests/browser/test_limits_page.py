"""Limits as a person meets them: announced with a countdown, kept by acting, explained afterwards, refused with an offer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from support.browser import sign_in
from support.service import Running, running

pytestmark = pytest.mark.browser

CONTROL = "/services/control/api/v1"
PAGES = "/services/control"
SLOW = 60_000

# Idle runtimes end after 30 seconds, announced 20 before; those with an accelerator or budget are not needed here.
CONFIG = """
runtimes: {environment: minimal}
quota:
  max_runtimes: 1
  idle_limit: 30s
  warn_before: [20s, 5s]
  budgets:
  - {name: cpu, per: user, unit: cpu_hours, hours: 100, window: week}
  rules:
  - {users: [carol], max_lifetime: 25s, warn_before: [20s], extensions: 1, extend_by: 1h, idle_limit: 1h}
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("limited") / "state", CONFIG) as service:
        service.add_user("ada", admin=True)
        service.add_user("bob")
        service.add_user("carol")
        yield service


@pytest.fixture(scope="module")
def contexts(browser: Browser, limited: Running) -> Iterator[dict[str, BrowserContext]]:
    made: dict[str, BrowserContext] = {}
    for user in ("ada", "bob", "carol"):
        context, page = sign_in(browser, limited, user)
        page.close()
        made[user] = context
    yield made
    for context in made.values():
        context.close()


@pytest.fixture
def tabs(
    contexts: dict[str, BrowserContext], request: pytest.FixtureRequest, shots: Path
) -> Iterator[dict[str, Page]]:
    """A new tab of everybody; what they showed at the end is kept as a picture."""
    pages = {user: context.new_page() for user, context in contexts.items()}
    yield pages
    for user, page in pages.items():
        if page.url != "about:blank":
            page.screenshot(path=shots / f"{request.node.name}-{user}.png")
        page.close()


def open_notebook(page: Page, service: Running, user: str, source: str = "print(6 * 7)") -> str:
    cell = {
        "cell_type": "code",
        "id": "c1",
        "metadata": {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    file = service.make_file(user, content=content)
    page.goto(f"{service.app}/d/{file['id']}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    return str(file["id"])


def run_first_cell(page: Page) -> None:
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text("42", timeout=SLOW)


def runtime_of(service: Running, user: str, file_id: str) -> dict[str, Any]:
    reply = service.api(user, "GET", f"{CONTROL}/runtimes?file_id={file_id}&all=true").json()
    model: dict[str, Any] = reply["items"][0]
    return model


def test_an_idle_runtime_is_announced_kept_and_at_last_explained(
    tabs: dict[str, Page], limited: Running, shots: Path
) -> None:
    page = tabs["ada"]
    file_id = open_notebook(page, limited, "ada")
    run_first_cell(page)
    line = page.locator(".mc-line-warning")
    expect(line).to_contain_text(
        re.compile(r"This runtime will be reset in 0:\d\d because it is idle\."), timeout=SLOW
    )
    page.screenshot(path=shots / "limits-idle-warning.png")
    line.get_by_role("button", name="Keep").click()
    expect(line).to_have_count(0)
    assert runtime_of(limited, "ada", file_id)["state"] == "ready"

    # Nobody acts any more. An open tab, its polls and its meter are no action.
    expect(line).to_be_visible(timeout=SLOW)
    expect(page.locator(".mc-line-ended")).to_contain_text(
        re.compile(r"Stopped at \d\d:\d\d: idle for 30 seconds \(limit 30 seconds\)\."), timeout=SLOW
    )
    expect(page.locator(".mc-line-ended .mc-line-words")).to_have_attribute("title", "idle")
    assert page.locator(".jp-Dialog").count() == 0
    assert runtime_of(limited, "ada", file_id)["reason"]["code"] == "idle"

    # A page that comes later says it too, and the notebook goes on from here.
    page.reload()
    ended = page.locator(".mc-line-ended")
    expect(ended).to_contain_text("idle for 30 seconds", timeout=SLOW)
    ended.get_by_role("button", name="Reconnect").click()
    expect(ended).to_have_count(0, timeout=SLOW)
    expect(page.locator(".mc-connect")).to_have_attribute("data-state", "connected", timeout=SLOW)


def test_typing_keeps_a_runtime_and_what_was_typed_is_there_after_the_end(
    tabs: dict[str, Page], limited: Running
) -> None:
    page = tabs["bob"]
    file_id = open_notebook(page, limited, "bob")
    run_first_cell(page)
    line = page.locator(".mc-line-warning")
    expect(line).to_be_visible(timeout=SLOW)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("End")
    page.keyboard.type("  # typed while it waited")
    expect(line).to_have_count(0, timeout=SLOW)
    expect(page.locator(".mc-line-ended")).to_be_visible(timeout=SLOW)
    expect(page.locator(".jp-CodeCell .cm-content").first).to_contain_text("typed while it waited")
    content = limited.api("bob", "GET", f"/services/documents/api/v1/files/{file_id}/content").json()
    assert "typed while it waited" in "".join(content["cells"][0]["source"])


def test_a_longest_life_is_announced_and_extended_as_often_as_allowed(
    tabs: dict[str, Page], limited: Running, shots: Path
) -> None:
    page = tabs["carol"]
    file_id = open_notebook(page, limited, "carol")
    run_first_cell(page)
    line = page.locator(".mc-line-warning")
    expect(line).to_contain_text("This runtime reaches its longest life of 25 seconds in 0:", timeout=SLOW)
    page.set_viewport_size({"width": 480, "height": 700})
    page.screenshot(path=shots / "limits-lifetime-warning-narrow.png")
    line.get_by_role("button", name="Extend by 1 hour").click()
    expect(line).to_have_count(0)
    model = runtime_of(limited, "carol", file_id)
    assert (model["state"], model["extension"]["left"]) == ("ready", 0)


def test_one_runtime_too_many_is_refused_with_its_numbers_and_sessions_to_end(
    tabs: dict[str, Page], limited: Running, shots: Path
) -> None:
    first = tabs["carol"]
    for item in limited.api("carol", "GET", f"{CONTROL}/runtimes").json()["items"]:
        limited.api("carol", "DELETE", f"{CONTROL}/runtimes/{item['id']}")
    file = limited.make_file("carol")
    limited.start_runtime("carol", file["id"])
    open_notebook(first, limited, "carol")
    first.locator(".mc-connect-button").click()
    dialog = first.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Too many sessions")
    expect(dialog.locator(".mc-facts")).to_contain_text("1 of 1")
    expect(dialog.get_by_role("link", name="View usage")).to_have_attribute("href", f"{PAGES}/usage")
    first.screenshot(path=shots / "limits-refusal.png")
    dialog.get_by_role("button", name="Manage sessions").click()
    expect(dialog).to_contain_text("Active sessions")
    expect(dialog).to_contain_text(file["name"])
    first.screenshot(path=shots / "limits-sessions.png")
    dialog.get_by_role("button", name="Terminate").click()
    expect(dialog).to_contain_text("No active sessions.", timeout=SLOW)
    dialog.get_by_role("button", name="Close").click()
    first.locator(".mc-connect-button").click()
    expect(first.locator(".mc-connect")).to_have_attribute("data-state", "connected", timeout=SLOW)


def test_what_a_runtime_left_is_offered_to_the_next_one(
    tabs: dict[str, Page], limited: Running, shots: Path
) -> None:
    page = tabs["bob"]
    open_notebook(page, limited, "bob", "open('/content/kept.txt', 'w').write('kept'); print(6 * 7)")
    page.locator("#mc-menu .lm-MenuBar-item", has_text="Tools").click()
    page.get_by_role("menuitem", name="Settings").click()
    keep = page.get_by_label("Keep /content when a runtime ends")
    keep.check()
    expect(keep).to_be_checked()
    page.screenshot(path=shots / "limits-settings.png")
    page.locator(".jp-Dialog").get_by_role("button", name="Close").click()
    assert limited.api("bob", "GET", f"{CONTROL}/quota").json()["keep_content"] is True
    run_first_cell(page)
    expect(page.locator(".mc-line-ended")).to_be_visible(timeout=2 * SLOW)
    page.locator(".mc-line-ended").get_by_role("button", name="Reconnect").click()
    offer = page.locator(".mc-line-quiet")
    expect(offer).to_contain_text("Files of your last runtime were kept.", timeout=SLOW)
    page.screenshot(path=shots / "limits-restore.png")
    offer.get_by_role("button", name="Restore").click()
    expect(offer).to_contain_text("back in /content", timeout=SLOW)


def test_usage_and_admin_say_what_was_used_and_by_whom(tabs: dict[str, Page], limited: Running) -> None:
    file = limited.make_file("bob", "busy.ipynb")
    for item in limited.api("bob", "GET", f"{CONTROL}/runtimes").json()["items"]:
        limited.api("bob", "DELETE", f"{CONTROL}/runtimes/{item['id']}")
    runtime = limited.start_runtime("bob", file["id"])
    page = tabs["bob"]
    page.goto(f"{limited.app}{PAGES}/usage")
    expect(page.get_by_role("heading", name="Usage", exact=True)).to_be_visible()
    expect(page.locator("body")).to_contain_text("busy.ipynb")
    page.goto(f"{limited.app}{PAGES}/admin")
    expect(page.locator("body")).to_contain_text("Only administrators")

    admin = tabs["ada"]
    admin.goto(f"{limited.app}{PAGES}/admin")
    row = admin.get_by_role("row").filter(has_text="busy.ipynb").first
    expect(row).to_contain_text("bob")
    row.get_by_label("Reason for bob").fill("the machine is needed")
    row.get_by_role("button", name="End", exact=True).click()
    expect(admin.locator("body")).to_contain_text("the machine is needed")
    ended = limited.api("bob", "GET", f"{CONTROL}/runtimes/{runtime['id']}").json()
    assert ended["reason"] == {
        "code": "admin",
        "message": "An administrator ended the runtime: the machine is needed",
    }
