"""Events of runtimes, for pages and clients that listen (server-sent events)."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

KEPT = 50  # a listener that was away longer starts from the current state instead


@dataclass(frozen=True)
class Event:
    """One event: `number` grows without gaps per runtime; `name` is phase, ready, warning or ended."""

    number: int
    name: str
    data: dict[str, Any]


class Channel:
    """The events of one runtime. `epoch` is this instance's: numbers of another instance mean nothing here."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._next = 1
        self._changed = asyncio.Condition()

    async def publish(self, name: str, data: dict[str, Any]) -> None:
        async with self._changed:
            self._events.append(Event(self._next, name, data))
            self._next += 1
            self._changed.notify_all()

    @property
    def last_number(self) -> int:
        return self._next - 1

    def id_of(self, number: int) -> str:
        """Return what a listener sends back as Last-Event-ID."""
        return f"{self._epoch}-{number}"

    def number_of(self, event_id: str) -> int | None:
        """Return the number in a Last-Event-ID when everything after it is still here, else None."""
        epoch, dash, number = event_id.partition("-")
        if (
            not dash
            or epoch != str(self._epoch)
            or not (number.isascii() and number.isdigit())
            or len(number) > 9
        ):
            return None
        oldest = self._events[0].number if self._events else self._next
        return int(number) if oldest - 1 <= int(number) <= self.last_number else None

    async def after(self, number: int, seconds: float) -> list[Event]:
        """Return the events after `number`, waiting up to `seconds` for the first."""
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: self._next - 1 > number)
            except TimeoutError:
                return []
            return [e for e in self._events if e.number > number]


class Channels:
    """The channels of the runtimes that live. A listener of an ended one has its channel in hand still."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._open: dict[str, Channel] = {}

    def of(self, runtime_id: str) -> Channel:
        """Return the channel of a live runtime."""
        return self._open.setdefault(runtime_id, Channel(self._epoch))

    def close(self, runtime_id: str) -> None:
        """Forget the channel: nothing more will be told of this runtime."""
        self._open.pop(runtime_id, None)

    def __len__(self) -> int:
        return len(self._open)
