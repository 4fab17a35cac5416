"""Limits as a person meets them: announced, kept, ended with a reason, refused with an offer; usage; the administrator's page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from support.browser import sign_in
from support.patience import until
from support.service import Running, running

pytestmark = pytest.mark.browser

CONTROL = "/services/control/api/v1"
CONFIG = """
runtimes: {environment: minimal}
quota:
  idle_limit: 20s
  warn_before: [15s]
  max_runtimes: 1
  extensions: 1
  snapshot_max: 4KiB
  rules:
    - {users: [grace], idle_limit: 1h, max_lifetime: 1h, warn_before: [3599s]}
    - {users: [mallory], allow: false}
  budgets:
    - {name: processor, unit: cpu_hours, hours: 50, window: week}
    - {name: taste, unit: cpu_hours, hours: 0.0001, window: week, groups: [visitors]}
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("limited") / "state", CONFIG) as service:
        for user in ("ada", "grace", "mallory", "victor"):
            service.add_user(user)
        service.add_user("boss", admin=True)
        assert service.command("group", "add", "visitors", "victor").returncode == 0
        yield service


@pytest.fixture(scope="module")
def contexts(browser: Browser, limited: Running) -> Iterator[dict[str, BrowserContext]]:
    made: dict[str, BrowserContext] = {}
    for user in ("ada", "grace", "boss", "mallory", "victor"):
        made[user], page = sign_in(browser, limited, user)
        page.close()
    yield made
    for context in made.values():
        context.close()


def _tab(contexts: dict[str, BrowserContext], user: str, service: Running, picture: Path) -> Iterator[Page]:
    page = contexts[user].new_page()
    yield page
    page.screenshot(path=picture)
    page.close()
    service.end_runtimes(user)


@pytest.fixture
def hasty(
    contexts: dict[str, BrowserContext], limited: Running, request: pytest.FixtureRequest, shots: Path
) -> Iterator[Page]:
    """A tab of ada, whose runtimes end after 20 seconds unused."""
    yield from _tab(contexts, "ada", limited, shots / f"{request.node.name}.png")


@pytest.fixture
def page(
    contexts: dict[str, BrowserContext], limited: Running, request: pytest.FixtureRequest, shots: Path
) -> Iterator[Page]:
    """A tab of grace, whose runtimes live long enough for a slow machine."""
    yield from _tab(contexts, "grace", limited, shots / f"{request.node.name}.png")


def open_notebook(page: Page, service: Running, user: str = "grace", source: str = "print('here')") -> str:
    cell = {"cell_type": "code", "id": "c1", "metadata": {}, "source": source, "outputs": []}
    content = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": [{**cell, "execution_count": None}],
    }
    file = service.make_file(user, content=content)
    page.goto(f"{service.app}/d/{file['id']}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    return str(file["id"])


def connect(page: Page) -> None:
    page.click(".mc-connect-button")
    expect(page.locator(".mc-meter")).to_be_visible()


def test_an_idle_end_is_announced_kept_away_and_then_explained(
    hasty: Page, limited: Running, shots: Path
) -> None:
    open_notebook(hasty, limited, "ada")
    connect(hasty)
    banner = hasty.locator(".mc-line-warning")
    expect(banner).to_contain_text(re.compile(r"This runtime will be reset in 0:\d\d because it is idle\."))
    hasty.screenshot(path=shots / "idle-banner.png")
    banner.get_by_role("button", name="Keep").click()
    expect(banner).to_have_count(0)
    expect(banner).to_be_visible()  # nobody came: it is announced anew
    ended = hasty.locator(".mc-line-ended")
    expect(ended).to_contain_text(
        re.compile(r"Stopped at \d\d:\d\d: idle for 20 seconds \(limit 20 seconds\)")
    )
    expect(banner).to_have_count(0)
    assert hasty.locator(".jp-Dialog").count() == 0
    hasty.screenshot(path=shots / "idle-ended.png")
    ended.get_by_role("button", name="Reconnect").click()
    expect(hasty.locator(".mc-meter")).to_be_visible()
    expect(ended).to_have_count(0)


def test_typing_is_use_and_a_page_that_only_stays_open_is_not(hasty: Page, limited: Running) -> None:
    open_notebook(hasty, limited, "ada")
    connect(hasty)
    banner = hasty.locator(".mc-line-warning")
    expect(banner).to_be_visible()
    hasty.locator(".jp-CodeCell .cm-content").click()
    expect(hasty.locator(".jp-CodeCell .cm-content")).to_be_focused()
    hasty.keyboard.type(" # still working")
    expect(banner).to_have_count(0)
    expect(hasty.locator(".mc-line-ended")).to_be_visible()  # and then nobody did anything


def test_who_comes_after_the_end_reads_why(hasty: Page, limited: Running) -> None:
    file_id = open_notebook(hasty, limited, "ada")
    connect(hasty)
    expect(hasty.locator(".mc-line-ended")).to_be_visible()
    hasty.goto(f"{limited.app}/d/{file_id}")
    expect(hasty.locator(".mc-line-ended")).to_contain_text("idle for 20 seconds")


@pytest.mark.parametrize("hours", [13, pytest.param(-13, marks=pytest.mark.slow)])
def test_a_computer_whose_clock_is_wrong_is_told_and_nothing_else_goes_wrong(
    hasty: Page, limited: Running, shots: Path, hours: int
) -> None:
    hasty.add_init_script(
        f"""const Right = Date, off = {hours} * 3600e3;
        window.Date = class extends Right {{
            constructor(...given) {{ given.length ? super(...given) : super(Right.now() + off); }}
            static now() {{ return Right.now() + off; }}
        }};"""
    )
    renewed: list[str] = []
    hasty.on("request", lambda r: renewed.append(r.url) if r.url.endswith("/token") else None)
    file_id = open_notebook(hasty, limited, "ada")
    told = hasty.locator(".mc-line-quiet", has_text="This computer's clock is 1")
    expect(told).to_contain_text(f"{'ahead of' if hours > 0 else 'behind'} the service's")
    connect(hasty)
    hasty.screenshot(path=shots / f"clock-{hours}.png")
    told.get_by_role("button", name="Dismiss").click()
    expect(hasty.locator(".mc-line-ended")).to_contain_text("idle for 20 seconds")
    expect(told).to_have_count(0)
    assert len(renewed) < 5, (
        "the ticket was renewed again and again"
    )  # at the start, and when its runtime has gone
    hasty.goto(f"{limited.app}/d/{file_id}")
    expect(hasty.locator(".mc-line-ended")).to_contain_text("idle for 20 seconds")


def test_a_refusal_says_its_numbers_and_what_to_do(page: Page, limited: Running, shots: Path) -> None:
    open_notebook(page, limited)
    connect(page)
    open_notebook(page, limited)
    page.click(".mc-connect-button")
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("You have 1 of 1 runtime already.")
    expect(dialog).to_contain_text("1 of 1")
    page.screenshot(path=shots / "refusal.png")
    dialog.get_by_role("button", name="Manage sessions").click()
    expect(page.locator(".jp-Dialog .mc-session").first).to_contain_text("Reset if idle in")
    page.screenshot(path=shots / "sessions.png")
    page.locator(".jp-Dialog .mc-session button").first.click()
    expect(page.locator(".jp-Dialog")).to_contain_text("No active sessions.")
    expect(page.locator(".jp-Dialog .mc-past").first).to_contain_text("Stopped at")
    page.click(".jp-Dialog button:has-text('Close')")
    connect(page)


def test_who_may_not_have_a_runtime_is_told_so(
    contexts: dict[str, BrowserContext], limited: Running, shots: Path
) -> None:
    page = contexts["mallory"].new_page()
    open_notebook(page, limited, "mallory")
    page.click(".mc-connect-button")
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Not available to you")
    expect(dialog).to_contain_text("Ask an administrator, or choose another runtime type.")
    page.screenshot(path=shots / "not-eligible.png")
    page.close()


def test_a_budget_that_is_used_up_is_told_with_its_numbers_and_when_there_is_more(
    contexts: dict[str, BrowserContext], limited: Running, shots: Path
) -> None:
    page = contexts["victor"].new_page()
    file_id = open_notebook(page, limited, "victor")
    reply = limited.api("victor", "POST", f"{CONTROL}/runtimes", json={"file_id": file_id})
    assert reply.status_code == 202, reply.text
    runtime = f"{CONTROL}/runtimes/{reply.json()['id']}"
    until(lambda: limited.api("victor", "GET", runtime).json()["state"] == "ended", "the budget ends it")
    assert limited.api("victor", "GET", runtime).json()["reason"]["code"] == "budget_used_up"
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.click(".mc-connect-button")
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Usage limit reached")
    expect(dialog).to_contain_text("All 0.0001 CPU-hours of your budget 'taste' are used up.")
    expect(dialog).to_contain_text("Resets at")
    page.screenshot(path=shots / "budget-used-up.png")
    page.close()


def test_who_looks_elsewhere_gets_a_notification(browser: Browser, limited: Running, shots: Path) -> None:
    context, page = sign_in(browser, limited, "ada")
    context.grant_permissions(["notifications"], origin=limited.app)
    page.add_init_script(
        """window.notes = [];
        window.Notification = class extends window.Notification {
          constructor(title, options) { super(title, options); window.notes.push([title, options.body]); }
        };
        document.hasFocus = () => false;"""
    )
    open_notebook(page, limited, "ada")
    connect(page)
    page.wait_for_function("window.notes.length > 0")
    title, body = page.evaluate("window.notes[0]")
    assert title.endswith(".ipynb")
    assert re.fullmatch(r"This runtime will be reset in 0:\d\d because it is idle\.", body)
    limited.end_runtimes("ada")
    context.close()


def test_files_of_content_are_kept_and_offered_again(page: Page, limited: Running, shots: Path) -> None:
    file_id = open_notebook(page, limited)
    connect(page)
    page.click("#mc-menu .lm-MenuBar-item:has-text('Tools')")
    page.click(".lm-Menu-itemLabel:text-is('Settings')")
    box = page.get_by_label(re.compile("Keep /content when a runtime ends"))
    box.check()
    expect(box).to_be_checked()
    page.screenshot(path=shots / "settings.png")
    page.click(".jp-Dialog button:has-text('Close')")
    runtime = limited.api("grace", "GET", f"{CONTROL}/runtimes?file_id={file_id}").json()["items"][0]["id"]
    limited.execute("grace", runtime, "open('/content/result.txt', 'w').write('precious')")
    limited.api("boss", "DELETE", f"{CONTROL}/admin/runtimes/{runtime}", json={"reason": "noon"})
    expect(page.locator(".mc-line-ended")).to_contain_text("noon")
    until(lambda: limited.api("grace", "GET", f"{CONTROL}/snapshots").json()["items"], "the files are kept")
    page.locator(".mc-line-ended").get_by_role("button", name="Reconnect").click()
    offer = page.locator(".mc-line-quiet")
    expect(offer).to_contain_text("Files of your last runtime were kept.")
    page.screenshot(path=shots / "restore.png")
    offer.get_by_role("button", name="Restore").click()
    expect(offer).to_contain_text("1 file is back in /content.")
    runtime = limited.api("grace", "GET", f"{CONTROL}/runtimes?file_id={file_id}").json()["items"][0]["id"]
    assert limited.execute("grace", runtime, "print(open('/content/result.txt').read())") == "precious\n"

    # Too much to keep: the next runtime says so, and does not call the older files those of the last one.
    limited.execute("grace", runtime, "open('/content/result.txt', 'w').write('precious' * 1000)")
    limited.api("boss", "DELETE", f"{CONTROL}/admin/runtimes/{runtime}", json={"reason": "noon"})
    until(lambda: limited.api("grace", "GET", f"{CONTROL}/runtimes/{runtime}").json()["content"])
    page.locator(".mc-line-ended").get_by_role("button", name="Reconnect").click()
    loss = page.locator(
        ".mc-line-quiet", has_text="Files of your last runtime were not kept: /content holds more than"
    )
    expect(loss).to_be_visible()
    expect(page.locator(".mc-line-quiet")).to_have_count(2)
    expect(page.locator(".mc-line-quiet").nth(1)).to_contain_text("Files of an earlier runtime were kept.")
    page.screenshot(path=shots / "not-kept.png")
    loss.get_by_role("button", name="Dismiss").click()
    expect(loss).to_have_count(0)
    limited.api("grace", "PUT", f"{CONTROL}/quota/keep_content", json={"keep": False})


def test_a_life_can_be_extended_as_often_as_is_allowed(page: Page, limited: Running, shots: Path) -> None:
    open_notebook(page, limited)
    connect(page)
    banner = page.locator(".mc-line-warning")
    expect(banner).to_contain_text("This runtime")
    page.locator(".jp-CodeCell .cm-content").click()
    expect(page.locator(".jp-CodeCell .cm-content")).to_be_focused()
    page.keyboard.type("#")
    expect(banner).to_contain_text("reaches its longest life of 1 hour")
    page.screenshot(path=shots / "extend.png")
    banner.get_by_role("button", name="Extend by 1 hour").click()
    expect(banner.get_by_role("button", name="Extend by 1 hour")).to_have_count(0)


def test_the_usage_page_shows_the_balance_and_the_sessions(page: Page, limited: Running, shots: Path) -> None:
    file_id = open_notebook(page, limited)
    connect(page)
    page.goto(f"{limited.app}/services/control/usage")
    expect(page.locator("h1")).to_have_text("Usage")
    expect(page.locator(".card")).to_contain_text("processor")
    expect(page.locator(".card")).to_contain_text("of 50 used")
    expect(page.locator(".card")).to_contain_text("2 an hour now")
    expect(page.get_by_role("link", name=re.compile(r"\.ipynb$")).first).to_have_attribute(
        "href", f"/d/{file_id}"
    )
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    assert download.value.suggested_filename == "usage-by-day.csv"
    page.set_viewport_size({"width": 480, "height": 860})
    page.screenshot(path=shots / "usage-narrow.png", full_page=True)
    page.goto(f"{limited.app}/services/control/admin")
    expect(page.locator("body")).to_contain_text("Only administrators may do this.")


def test_an_administrator_sees_ends_extends_and_grants(
    page: Page, contexts: dict[str, BrowserContext], limited: Running, shots: Path
) -> None:
    open_notebook(page, limited)
    connect(page)
    admin = contexts["boss"].new_page()
    admin.goto(f"{limited.app}/services/control/admin")
    row = admin.locator("tr", has_text="grace").first
    expect(row).to_contain_text("ready")
    expect(row).to_contain_text(re.compile(r"in (\d+ min|1 h) \(longest life\)"))
    row.get_by_label("Extend the runtime of grace by").fill("2h")
    row.get_by_role("button", name="Extend").click()
    admin.get_by_label("Hours").fill("7.5")
    admin.get_by_label("User or team").fill("grace")
    admin.get_by_label("Note").fill("for the thesis")
    admin.get_by_role("button", name="Grant").click()
    expect(admin.locator("body")).to_contain_text("for the thesis")
    admin.screenshot(path=shots / "admin.png", full_page=True)
    row = admin.locator("tr", has_text="grace").first
    row.get_by_label("Reason for grace").fill("maintenance at noon")
    row.get_by_role("button", name="End", exact=True).click()
    expect(page.locator(".mc-line-ended")).to_contain_text("maintenance at noon")
    admin.close()
