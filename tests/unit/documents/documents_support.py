"""A shelf in memory that can fail and change, and a page that speaks the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hub.documents.rooms import wire
from hub.documents.rooms.form import dump
from hub.documents.rooms.room import Room
from hub.documents.rooms.shelf import ChangedOutside, Gone, ShelfError, Version
from hub.documents.rooms.store import HistoryStore
from hub.documents.rooms.ydoc import SharedNotebook
from quota.clock import SystemClock
from support.patience import until_async


@dataclass
class MemoryShelf:
    """One notebook. `full`: writing fails as on a full disk; `gone`: as for a file in the trash. Counts writes."""

    raw: bytes
    version_number: int = 1
    name: str = "nb.ipynb"
    full: bool = False
    gone: bool = False
    writes: int = 0
    aside: dict[str, bytes] = field(default_factory=dict)

    async def version(self) -> Version:
        return Version(self.name, f"v{self.version_number}")

    async def load(self) -> tuple[bytes, Version]:
        return self.raw, await self.version()

    async def store(self, raw: bytes, replaces: str) -> Version:
        if self.gone:
            raise Gone("No such file.")
        if self.full:
            raise ShelfError("The Drive's disk is full.")
        if replaces != f"v{self.version_number}":
            raise ChangedOutside("changed")
        self.write_outside(raw)
        self.writes += 1
        return await self.version()

    async def put_aside(self, raw: bytes, note: str) -> str:
        name = f"nb ({note}).ipynb"
        self.aside[name] = raw
        return name

    def write_outside(self, raw: bytes) -> None:
        """Change the file as a kernel does that has the folder mounted."""
        self.raw = raw
        self.version_number += 1


class Page:
    """A page with a copy of the notebook. Messages arrive at once unless it is `away`."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.received: list[bytes] = []
        self.away = False
        self.shared = SharedNotebook(self._typed)
        self._merging = False
        self._unsent: list[bytes] = []

    async def check(self) -> None:
        """Nobody loses a right here."""

    def enter(self) -> None:
        self.away = False
        self.room.enter(self)
        self._receive(self.room.answer(self.shared.state_vector()))
        self._unsent.clear()
        self.room.merge(self.shared.updates_since(), self)

    def leave(self) -> None:
        self.away = True
        self.room.leave(self)

    def send(self, message: bytes) -> None:
        self.received.append(message)
        self._receive(message)

    def _receive(self, message: bytes) -> None:
        reader = wire.Reader(message)
        if reader.number() == wire.SYNC and reader.number() in (wire.STEP2, wire.UPDATE):
            self._merging = True
            try:
                self.shared.merge(reader.bytes())
            finally:
                self._merging = False

    def _typed(self, update: bytes) -> None:
        if not self._merging and not self.away:
            self.room.merge(update, self)

    def type(self, cell: int, text: str) -> None:
        """Replace the source of a cell."""
        now = self.shared.read()
        now["cells"][cell]["source"] = text  # type: ignore[index,call-overload]
        self.shared.replace(now)

    def sources(self) -> list[Any]:
        return [c["source"] for c in self.shared.read()["cells"]]  # type: ignore[index,call-overload,union-attr]


def notebook(*sources: str) -> bytes:
    """Return a notebook file with one code cell a source."""
    cells: list[Any] = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"c{i}",
            "metadata": {},
            "outputs": [],
            "source": [s],
        }
        for i, s in enumerate(sources)
    ]
    return dump({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def make_room(
    shelf: MemoryShelf, history: HistoryStore, *, readonly: bool = False, max_bytes: int = 1 << 20
) -> Room:
    return Room("f1", shelf, history, SystemClock(), readonly=readonly, max_bytes=max_bytes)


async def until(condition: Any) -> None:
    """Wait until something is true."""
    await until_async(condition)
