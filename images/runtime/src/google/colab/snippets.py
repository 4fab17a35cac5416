"""Code snippets."""

from __future__ import annotations

from minicolab_runtime import page


def register(url: str) -> None:
    """Add the snippets of the notebook at `url` to the snippets panel. Raises MessageError where the page has none."""
    page.require("register_snippets", "snippets.register()")
    page.ask("register_snippets", {"url": url}, timeout_sec=5)
