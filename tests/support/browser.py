"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from support.patience import PATIENCE
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
    """Start the browser, end it afterwards. Every `expect` waits with PATIENCE from here on."""
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium",
            args=FLAGS,
            timeout=PATIENCE * 1000,
        )
        yield browser
        browser.close()


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """Return a context of the browser whose every action waits with PATIENCE."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
    context.set_default_timeout(PATIENCE * 1000)
    return context


def click_into(editor: Locator) -> None:
    """Click into something to type in, and return once it has the keys."""
    editor.click()
    expect(editor).to_be_focused()


def sign_in(
    browser: Browser, service: Running, user: str, password: str = PASSWORD
) -> tuple[BrowserContext, Page]:
    """Return a browser context in which `user` is signed in, and a page that shows the Drive."""
    context = new_context(browser)
    page = context.new_page()
    page.goto(service.app + "/drive")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("#login_submit, input[type=submit], button[type=submit]")
    page.wait_for_url("**/drive**")
    return context, page
