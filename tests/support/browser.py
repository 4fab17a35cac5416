"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from support.service import PASSWORD, Running

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the browser, end it afterwards."""
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium", args=FLAGS
        )
        yield browser
        browser.close()


def sign_in(
    browser: Browser, service: Running, user: str, password: str = PASSWORD
) -> tuple[BrowserContext, Page]:
    """Return a browser context in which `user` is signed in, and a page that shows the Drive."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.goto(service.app + "/drive")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("#login_submit, input[type=submit], button[type=submit]")
    page.wait_for_url("**/drive**")
    return context, page
