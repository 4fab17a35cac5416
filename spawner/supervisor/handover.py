"""What the cells of a runtime printed last, on its way out of a machine that nobody can look into once it has ended.

The server leaves it in a file at an orderly end. Where the machine's files outlive the machine, the file is taken; elsewhere the
supervisor tells it, in parts, to those who watch, and waits a while until one of them says that it has it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spawner.supervisor import safe_read

EXECUTIONS = "kernels/executions.json"  # below the folder of the runtime's server
MOST_BYTES = 64 << 20  # what the server leaves is smaller
PART_BYTES = 384 << 10  # as text it fits into a line (spawner.supervisor.wire)


def executions_in(run: Path) -> bytes:
    """Return what a runtime's server left of its cells, nothing when it left nothing or something else lies there."""
    try:
        return safe_read.read(run, EXECUTIONS, MOST_BYTES)
    except (OSError, ValueError):
        return b""


def events(left: bytes) -> Iterator[dict[str, Any]]:
    """Yield what is told of it, part by part; the last one says that it was the last."""
    for start in range(0, len(left), PART_BYTES):
        part = left[start : start + PART_BYTES]
        last = start + PART_BYTES >= len(left)
        yield {"event": "left", "part": base64.b64encode(part).decode(), "last": last}


class Gathered:
    """The parts that have come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, event: Mapping[str, Any]) -> list[bytes] | None:
        """Take in an event; return all parts when it was the last. Raise ValueError when they are too many, or not what they seem."""
        part = base64.b64decode(str(event["part"]), validate=True)
        self._size += len(part)
        if self._size > MOST_BYTES:
            self._parts.clear()
            raise ValueError(f"more than {MOST_BYTES} bytes")
        self._parts.append(part)
        return self._parts if event["last"] else None
