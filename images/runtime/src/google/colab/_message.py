"""Colab's blocking request: a question to the page whose cell is running."""

from __future__ import annotations

from typing import Any

from minicolab_runtime import page
from minicolab_runtime.page import MessageError as MessageError


def blocking_request(
    request_type: str,
    request: object = "",
    timeout_sec: float | None = 5,
    parent: dict[str, Any] | None = None,
) -> Any:
    """Ask the page and return its answer, or None after `timeout_sec` seconds (None waits for ever).

    Raises MessageError when the page answers with an error, or when no page is there that answers `request_type`.
    """
    if parent is None:
        page.require(request_type, f"The request {request_type!r}")
    return page.ask(request_type, request, timeout_sec=timeout_sec, parent=parent)


def send_request(
    request_type: str,
    request_body: object,
    parent: dict[str, Any] | None = None,
    expect_reply: bool = False,
) -> int | None:
    """Send a request to the page; return the id of the reply to wait for, or None when none is expected."""
    return page.send(request_type, request_body, parent=parent, expect_reply=expect_reply)


def read_reply_from_input(message_id: int, timeout_sec: float | None = None) -> Any:
    """Wait for the reply to the request `message_id`; None after `timeout_sec` seconds."""
    return page.read_reply(message_id, timeout_sec)
