"""Messages of the y-websocket protocol, as the collaboration plug-in of the page speaks it.

Every message begins with its kind: 0 synchronise (then 0 state, 1 missing updates, 2 update), 1 awareness (who is here, where
is their cursor), 2 text (a request to save and its answer). Numbers are LEB128, byte strings carry their length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

SYNC, AWARENESS, TEXT = 0, 1, 2
STEP1, STEP2, UPDATE = 0, 1, 2
MAX_NUMBER_BYTES = 9


class BadMessage(ValueError):
    """The bytes are not a message of the protocol."""


class Reader:
    """Reads one message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """Return the next number; raise BadMessage."""
        value = 0
        for shift in range(MAX_NUMBER_BYTES):
            if self._at >= len(self._data):
                raise BadMessage("the message ends too early")
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return value
        raise BadMessage("a number is too long")

    def bytes(self) -> bytes:
        """Return the next byte string; raise BadMessage."""
        size = self.number()
        end = self._at + size
        if end > len(self._data):
            raise BadMessage("the message ends too early")
        value = self._data[self._at : end]
        self._at = end
        return value

    def text(self) -> str:
        """Return the next UTF-8 text; raise BadMessage."""
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise BadMessage("a text is not UTF-8") from None

    def done(self) -> bool:
        """Return whether everything was read."""
        return self._at >= len(self._data)


def number(value: int) -> bytes:
    """Return `value` as the protocol writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    out.append(value)
    return bytes(out)


def sized(data: bytes) -> bytes:
    """Return `data` with its length before it."""
    return number(len(data)) + data


def sync(step: int, data: bytes) -> bytes:
    """Return a synchronise message."""
    return bytes([SYNC, step]) + sized(data)


def text(value: dict[str, object]) -> bytes:
    """Return a text message that carries JSON."""
    return bytes([TEXT]) + sized(json.dumps(value).encode())


@dataclass(frozen=True)
class Presence:
    """What one page says about itself: `state` is its JSON, None when it left; `clock` orders the messages of one page."""

    client: int
    clock: int
    state: dict[str, object] | None


def read_presence(data: bytes) -> list[Presence]:
    """Return the entries of an awareness message; raise BadMessage."""
    reader = Reader(data)
    out: list[Presence] = []
    for _ in range(reader.number()):
        client, clock, raw = reader.number(), reader.number(), reader.text()
        try:
            state = json.loads(raw) if raw else None
        except (ValueError, RecursionError):
            raise BadMessage("an awareness state is not JSON") from None
        if state is not None and not isinstance(state, dict):
            raise BadMessage("an awareness state is not an object")
        out.append(Presence(client, clock, state))
    return out


def presence(entries: list[Presence]) -> bytes:
    """Return an awareness message."""
    body = number(len(entries)) + b"".join(
        number(e.client) + number(e.clock) + sized(json.dumps(e.state, allow_nan=False).encode())
        for e in entries
    )
    return bytes([AWARENESS]) + sized(body)
