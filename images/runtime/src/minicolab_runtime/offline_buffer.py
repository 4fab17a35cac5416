"""Messages kept for a page whose connection broke, until it is back: bounded, and honest about what did not fit.

Jupyter keeps every message for as long as nobody comes, without a limit. A silent night of training would fill the memory of the
server. Here the oldest stream output is dropped first, and the page is told in the cell it belonged to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jupyter_client.session import DELIM, Session

MAX_BYTES = 32 * 1024 * 1024

Buffered = tuple[str, list[Any]]  # channel, and the message's parts as they came from the kernel


class OfflineBuffer:
    """Collects messages; iterating yields what is kept, oldest first, after notes about what was dropped."""

    def __init__(self, session: Session, max_bytes: int = MAX_BYTES) -> None:
        self._session = session
        self._max_bytes = max_bytes
        self._messages: list[Buffered] = []
        self._bytes = 0
        self._dropped: dict[
            str, tuple[Any, int]
        ] = {}  # request id -> its header, how many messages were dropped

    def append(self, message: Buffered) -> None:
        """Keep one more message, at the expense of the oldest ones that others can do without."""
        self._messages.append(message)
        self._bytes += _size(message)
        if self._bytes > self._max_bytes:
            self._make_room()

    def __len__(self) -> int:
        return len(self._messages) + len(self._dropped)

    def __iter__(self) -> Iterator[Buffered]:
        for header, count in self._dropped.values():
            text = f"[{count} messages of output did not fit while this page was away; run the cell again to see them]\n"
            note = self._session.msg("stream", {"name": "stderr", "text": text})
            note["parent_header"] = header
            yield "iopub", self._session.serialize(note)
        yield from self._messages

    def _make_room(self) -> None:
        """Drop output, oldest first, until a quarter of the space is free; replies and states are kept."""
        wanted = self._max_bytes * 3 // 4
        kept: list[Buffered] = []
        for message in self._messages:
            if self._bytes > wanted and self._is_output(message):
                self._bytes -= _size(message)
            else:
                kept.append(message)
        self._messages = kept

    def _is_output(self, message: Buffered) -> bool:
        """Return whether a message is output, and if so note that it is about to be dropped."""
        channel, parts = message
        raw = [bytes(part) for part in parts]
        if channel != "iopub" or DELIM not in raw:
            return False
        start = raw.index(DELIM) + 2  # the delimiter, then the signature
        header, parent = self._session.unpack(raw[start]), self._session.unpack(raw[start + 1])
        if header.get("msg_type") not in ("stream", "display_data", "update_display_data", "execute_result"):
            return False
        request = str(parent.get("msg_id"))
        self._dropped[request] = (parent, self._dropped.get(request, (parent, 0))[1] + 1)
        return True


def _size(message: Buffered) -> int:
    return sum(len(bytes(part)) for part in message[1])
