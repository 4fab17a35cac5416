"""Pages that are not there while their cells run: closed, frozen, or beside another. Outputs are in the document once, whoever wrote them."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pycrdt import Doc, Map

from hub.documents.rooms.outputs import FROZEN_SECONDS
from support.browser import click_into, sign_in
from support.patience import PATIENCE, until
from support.service import Running

pytestmark = pytest.mark.browser

SOURCE = (
    "import os, time\nprint('begin')\n"
    "while not os.path.exists('/content/go'): time.sleep(0.05)\n"
    "for n in range(3): print('line', n)\n"
    "print('finished')"
)
WHOLE = "begin\nline 0\nline 1\nline 2\nfinished\n"


@pytest.fixture(scope="module")
def context(browser: Browser, service: Running) -> Iterator[BrowserContext]:
    context, page = sign_in(browser, service, "ada")
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(
    context: BrowserContext, service: Running, request: pytest.FixtureRequest, shots: Path
) -> Iterator[Page]:
    page = context.new_page()
    yield page
    if not page.is_closed():
        page.screenshot(path=shots / f"{request.node.name}.png")
        page.close()
    service.end_runtimes("ada")


def begin(page: Page, service: Running) -> str:
    """Open a notebook, run its cell, return the file's id once the first output is shown."""
    cell = {
        "cell_type": "code",
        "id": "c1",
        "metadata": {},
        "source": SOURCE,
        "outputs": [],
        "execution_count": None,
    }
    document = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    file = service.make_file("ada", content=document)
    show(page, service, str(file["id"]))
    click_into(page.locator(".jp-CodeCell .cm-content").first)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-OutputArea-output")).to_contain_text("begin")
    return str(file["id"])


def show(page: Page, service: Running, file_id: str) -> None:
    page.goto(f"{service.app}/d/{file_id}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")


def go_on(service: Running, file_id: str) -> None:
    """Let the cell run to its end."""
    items = service.api("ada", "GET", f"/services/control/api/v1/runtimes?file_id={file_id}").json()["items"]
    service.execute("ada", items[0]["id"], "open('/content/go', 'w').close()")


def cell_of(service: Running, file_id: str) -> dict[str, Any]:
    reply = service.api("ada", "GET", f"/services/documents/api/v1/files/{file_id}/content")
    cell: dict[str, Any] = reply.json()["cells"][0]
    return cell


def text_of(service: Running, file_id: str) -> str:
    return "".join("".join(o.get("text", "")) for o in cell_of(service, file_id)["outputs"])


def expect_whole(page: Page) -> None:
    """The cell has ended, and shows all its output once."""
    expect(page.locator(".jp-CodeCell .jp-InputPrompt").first).to_have_attribute("data-running", "false")
    expect(page.locator(".jp-CodeCell .jp-OutputArea").first).to_have_text(
        re.compile(r"^\s*" + r"\s+".join(WHOLE.split()) + r"\s*$")
    )


def test_the_page_is_closed_while_its_cell_runs_and_all_is_there_when_it_comes_back(
    page: Page, service: Running, context: BrowserContext
) -> None:
    file_id = begin(page, service)
    page.close()
    go_on(service, file_id)
    until(lambda: cell_of(service, file_id)["execution_count"] == 1, "the end was never written")
    assert text_of(service, file_id) == WHOLE
    again = context.new_page()
    show(again, service, file_id)
    expect_whole(again)
    assert text_of(service, file_id) == WHOLE
    again.close()


def test_a_page_that_comes_back_while_the_service_writes_leaves_it_to_the_service(
    page: Page, service: Running, context: BrowserContext
) -> None:
    file_id = begin(page, service)
    page.close()
    until(lambda: mark_is_ours(service, file_id), "documents never took over")
    again = context.new_page()
    show(again, service, file_id)
    prompt = again.locator(".jp-CodeCell .jp-InputPrompt").first
    expect(prompt).to_have_attribute("data-running", "true")
    go_on(service, file_id)
    expect_whole(again)
    until(lambda: text_of(service, file_id) == WHOLE)
    again.close()


def mark_is_ours(service: Running, file_id: str) -> bool:
    """Whether documents has taken the cell over: the shared state is not in the file, so the merge history is asked."""
    history = sqlite3.connect(f"file:{service.state}/databases/rooms.sqlite?mode=ro", uri=True)
    try:
        updates = history.execute("SELECT data FROM updates WHERE file_id = ? ORDER BY seq", (file_id,))
        document: Doc[Any] = Doc()
        state = document.get("state", type=Map)
        for (data,) in updates.fetchall():
            document.apply_update(data)
        mark: Any = state.get("ran:c1")
        return isinstance(mark, dict) and mark["client"] == 0
    finally:
        history.close()


@pytest.mark.slow
def test_a_page_that_was_frozen_adds_nothing_twice_when_it_wakes_up(page: Page, service: Running) -> None:
    file_id = begin(page, service)
    devtools = page.context.new_cdp_session(page)
    # As a frozen tab: its code does not run, its connection lives. (setWebLifecycleState does not stop a page that is shown.)
    devtools.send("Debugger.enable")
    devtools.send("Debugger.pause")
    go_on(service, file_id)
    deadline = time.monotonic() + FROZEN_SECONDS + PATIENCE
    while not mark_is_ours(service, file_id):
        assert time.monotonic() < deadline, "documents never took over"
        time.sleep(0.5)
    until(lambda: text_of(service, file_id) == WHOLE, "documents did not write what the page could not")
    devtools.send("Debugger.resume")
    expect_whole(page)
    assert text_of(service, file_id) == WHOLE
    click_into(page.locator(".jp-CodeCell .cm-content").first)  # it is a page like any other again
    page.keyboard.press("Control+Enter")
    until(lambda: cell_of(service, file_id)["execution_count"] == 2)
    assert text_of(service, file_id) == WHOLE


def test_a_second_tab_on_a_running_cell_doubles_nothing(
    page: Page, service: Running, context: BrowserContext
) -> None:
    file_id = begin(page, service)
    second = context.new_page()
    show(second, service, file_id)
    expect(second.locator(".jp-CodeCell .jp-InputPrompt").first).to_have_attribute("data-running", "true")
    go_on(service, file_id)
    for tab in (page, second):
        expect_whole(tab)
    until(lambda: text_of(service, file_id) == WHOLE)
    second.close()


def test_the_tab_that_ran_a_cell_is_closed_and_the_other_sees_it_end(
    page: Page, service: Running, context: BrowserContext
) -> None:
    file_id = begin(page, service)
    second = context.new_page()
    show(second, service, file_id)
    expect(second.locator(".jp-CodeCell .jp-InputPrompt").first).to_have_attribute("data-running", "true")
    page.close()
    go_on(service, file_id)
    expect_whole(second)
    until(lambda: text_of(service, file_id) == WHOLE)
    second.close()
