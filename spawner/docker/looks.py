"""What the engine's account of a container says. Pure: the answer of an inspect in, our words out."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from spawner.docker import containers
from spawner.model import EndReason

KILLED = 137
JUST_NOW_SECONDS = 10.0
CRASHED = EndReason("crashed", "The machine ended by itself.")
OUT_OF_MEMORY = EndReason("out_of_memory", "The machine ran out of memory.")


def address(found: dict[str, Any]) -> str | None:
    """Return where a container is reached, None while it has no address."""
    networks = found["NetworkSettings"]["Networks"]
    return next((n["IPAddress"] for n in networks.values() if n.get("IPAddress")), None)


def has_ended(found: dict[str, Any], now: datetime) -> bool:
    return found["State"]["Status"] in ("exited", "dead", "removing") or was_never_started(found, now)


def was_never_started(found: dict[str, Any], now: datetime) -> bool:
    """Return whether who made the container is gone: it was made, and not started within what a start may take."""
    made = moment(found["Created"])
    if found["State"]["Status"] != "created" or made is None:
        return False
    return now - made > containers.START_ALLOWANCE


def ended_seconds_ago(found: dict[str, Any], now: datetime) -> float | None:
    finished = moment(found["State"]["FinishedAt"])
    return (now - finished).total_seconds() if finished else None


def last_words(lines: Sequence[str]) -> EndReason | None:
    """Return why its supervisor said it ended, None when it did not come to say."""
    for line in reversed(lines):
        said = event(line)
        if said.get("event") == "end":
            return EndReason(str(said["code"]), str(said["message"]))
    return None


def killed_at_the_end_of(found: dict[str, Any]) -> tuple[float, float] | None:
    """Return the last moments of a container that was killed: the kernel may have done it then for want of memory."""
    finished = moment(found["State"]["FinishedAt"])
    if found["State"]["ExitCode"] == KILLED and finished:
        return finished.timestamp() - JUST_NOW_SECONDS, finished.timestamp()
    return None


def event(line: str) -> dict[str, Any]:
    """Return what the supervisor says in a line, nothing when it is no word of its own."""
    with contextlib.suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}


def moment(text: str) -> datetime | None:
    """Return a time as the engine writes it (nanoseconds), None for "never"."""
    if text.startswith("0001-"):
        return None
    return datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", text))
