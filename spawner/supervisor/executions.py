"""Which cells of a kernel run, by what it says on its iopub channel. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

DELIMITER = b"<IDS|MSG>"
# Requests that are a person's doing: a cell, a widget. Completions, inspections and infos of a page that is merely open are not.
ACTIONS = frozenset({"execute_request", "comm_open", "comm_msg"})
MOST_RUNNING = 64


def read(parts: Sequence[bytes | None], key: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return header, parent header and content of a message signed with `key`. Raise ValueError for anything else.

    `parts` are its frames, None for one too long to be held. A kernel without a key (an empty one) signs nothing.
    """
    start = parts.index(DELIMITER)
    signed = parts[start + 1 : start + 6]
    if len(signed) < 5:
        raise ValueError("too few parts")
    frames = [part for part in signed if part is not None]
    if len(frames) < 5:
        raise ValueError("too long")
    if key:
        expected = hmac.new(key, b"".join(frames[1:]), hashlib.sha256).hexdigest().encode()
        if not hmac.compare_digest(expected, frames[0]):
            raise ValueError("not signed with the kernel's key")
    try:
        header, parent, content = (json.loads(frames[i]) for i in (1, 2, 4))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not (isinstance(header, dict) and isinstance(parent, dict) and isinstance(content, dict)):
        raise ValueError("not objects")
    return header, parent, content


def question(msg_id: str, key: bytes) -> list[bytes]:
    """Return the frames of a request that a kernel answers once it has done all that came before: what it is."""
    header = {
        "msg_id": msg_id,
        "msg_type": "kernel_info_request",
        "session": msg_id,
        "username": "minicolab",
        "date": "1970-01-01T00:00:00Z",
        "version": "5.3",
    }
    parts = [json.dumps(part).encode() for part in (header, {}, {}, {})]
    mac = hmac.new(key, b"".join(parts), hashlib.sha256).hexdigest().encode() if key else b""
    return [DELIMITER, mac, *parts]


class Executions:
    """What one kernel runs. A new cell ends the one before on the same subshell, so a lost word is made good by the next."""

    def __init__(self) -> None:
        self._running: dict[str, str] = {}

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def heard(self, header: dict[str, Any], parent: dict[str, Any], content: dict[str, Any]) -> bool:
        """Take in a message; return whether it is evidence of use: a cell began or ended."""
        if header.get("msg_type") != "status" or parent.get("msg_type") not in ACTIONS:
            return False
        cell, shell = str(parent.get("msg_id"))[:200], str(parent.get("subshell_id"))[:200]
        match content.get("execution_state"):
            case "busy":
                if shell in self._running or len(self._running) < MOST_RUNNING:
                    self._running[shell] = cell
                return True
            case "idle" if self._running.get(shell) == cell:
                del self._running[shell]
                return True
        return False
