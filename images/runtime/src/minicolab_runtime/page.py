"""Questions a kernel asks the page whose cell is running, over Colab's own two messages.

`colab_request` goes out on iopub; the page answers with an `input_reply` whose value is a dict. Which questions a page can
answer it says in the metadata of its execute_request: `{"colab": {"cell_id": …, "supports": ["request_auth", …]}}`. A client
that sends no `colab` there is not a page, and asking it would hang: that is an error at once.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import zmq

from minicolab_runtime.outputs import Json

# What every minicolab page answers, also one that does not list what it supports.
ALWAYS_SUPPORTED = frozenset({"request_auth", "unmount_drive"})

_POLL_MS = 25
_counter = itertools.count(1)


class MessageError(Exception):
    """The page answered with an error, or nobody is there who could answer."""


def kernel() -> Any:
    """Return the kernel this code runs in, or raise MessageError when it does not run in one."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    found = getattr(shell, "kernel", None)
    if found is None:
        raise MessageError("This only works in a notebook: no kernel is running here.")
    return found


def parent_message() -> Json:
    """Return the request that the running cell came with (empty outside a notebook)."""
    try:
        found = kernel().get_parent("shell")
    except MessageError:
        return {}
    return found if isinstance(found, dict) else {}


def supported() -> frozenset[str]:
    """Return the request types that the page whose cell is running answers; empty without a page."""
    colab = (parent_message().get("metadata") or {}).get("colab")
    if not isinstance(colab, dict):
        return frozenset()
    listed = colab.get("supports")
    return ALWAYS_SUPPORTED | (frozenset(map(str, listed)) if isinstance(listed, list) else frozenset())


def require(request_type: str, what: str) -> None:
    """Raise MessageError unless a page is there that answers `request_type`; `what` names it in the sentence."""
    found = supported()
    if not found:
        raise MessageError(
            f"{what} needs a minicolab notebook page, and this code was not run from one. Run the cell in the page."
        )
    if request_type not in found:
        raise MessageError(f"{what} is not available in this notebook page yet.")


def send(
    request_type: str, request: object = "", *, parent: Json | None = None, expect_reply: bool = False
) -> int | None:
    """Send a request to the page; return the id its reply will carry, or None when none is expected."""
    running = kernel()
    metadata: Json = {"colab_request_type": request_type}
    message_id = None
    if expect_reply:
        # The process id keeps a late reply to an earlier process of this kernel from matching.
        message_id = (os.getpid() << 20) + next(_counter)
        metadata["colab_msg_id"] = message_id
    running.session.send(
        running.iopub_socket,
        "colab_request",
        {"request": request},
        metadata=metadata,
        parent=parent if parent is not None else running.get_parent("shell"),
    )
    return message_id


def read_reply(message_id: int, timeout_sec: float | None = None) -> Any:
    """Return the data the page replied with, or None when `timeout_sec` passed. Raise MessageError when it says error."""
    running = kernel()
    deadline = None if timeout_sec is None else time.monotonic() + timeout_sec
    while deadline is None or time.monotonic() < deadline:
        # Polling keeps the cell interruptible: a blocking receive would not see KeyboardInterrupt.
        if not running.stdin_socket.poll(_POLL_MS, zmq.POLLIN):
            continue
        _, reply = running.session.recv(running.stdin_socket, zmq.NOBLOCK)
        value = ((reply or {}).get("content") or {}).get("value")
        if (
            not isinstance(value, dict)
            or value.get("type") != "colab_reply"
            or value.get("colab_msg_id") != message_id
        ):
            continue
        if "error" in value:
            raise MessageError(str(value["error"]))
        return value.get("data")
    return None


def ask(
    request_type: str, request: object = "", timeout_sec: float | None = 5, parent: Json | None = None
) -> Any:
    """Ask the page and wait for its answer: None when `timeout_sec` passed, MessageError when it refused."""
    message_id = send(request_type, request, parent=parent, expect_reply=True)
    assert message_id is not None
    return read_reply(message_id, timeout_sec)
