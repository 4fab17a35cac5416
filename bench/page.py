"""A person who opens a notebook in Chromium: seconds from the address to a cell that can be seen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

PASSWORD = "bench password"
PATIENCE_MS = 120_000


@contextmanager
def person(sign_in_page: str, user: str) -> Iterator[Page]:
    """Yield a page of a browser in which `user` is signed in; both sides ask for a name and a password."""
    program = shutil.which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(sign_in_page)
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", PASSWORD)
        page.click("#login_submit, input[type=submit], button[type=submit]")
        page.wait_for_load_state("networkidle")
        yield page
        browser.close()


def open_notebook(page: Page, address: str) -> float:
    """Return the seconds until the notebook's first cell is shown."""
    page.goto("about:blank")
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content", state="visible")
    return time.perf_counter() - started
