"""What a runtime leaves, on its way out of a machine that nobody can look into once it has ended.

What its cells printed last is left by the server in a file at an orderly end; /content is kept for users who want that. Where the
machine's files outlive the machine, both are taken from there; elsewhere the supervisor tells those who watch, in parts, and waits a
while until one of them says that it has it:

    left       the executions, to everybody who watches. The last part says whether there is `content` for this one: for those who
               keep it, or, when none of them watches, for whoever does.
    content    an archive of /content, to one that asked for it; or a `note` why there is none.
    taken      is the answer: nothing more is owed to this one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Any

from spawner import keep
from spawner.supervisor import safe_read

EXECUTIONS = "kernels/executions.json"  # below the folder of the runtime's server
MOST_BYTES = 64 << 20  # what the server leaves is smaller
PART_BYTES = 384 << 10  # as text it fits into a line (spawner.supervisor.wire)
CONTENT_SECONDS = 60.0  # for one to take /content, from when it asks


def executions_in(run: Path) -> bytes:
    """Return what a runtime's server left of its cells, nothing when it left nothing or something else lies there."""
    try:
        return safe_read.read(run, EXECUTIONS, MOST_BYTES)
    except (OSError, ValueError):
        return b""


class HandOver:
    """What one runtime leaves: `executions`, and of `content` up to `most_bytes`, 0 for nothing. Its processes have ended."""

    def __init__(self, executions: bytes, content: Path, most_bytes: int) -> None:
        self._executions, self._content, self._most_bytes = executions, content, most_bytes
        self._keepers: set[asyncio.StreamWriter] = set()
        self._owed: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._taken, self._sent, self._moved = False, False, asyncio.Event()
        self._sending = asyncio.Lock()
        self._limit: asyncio.Timeout | None = None

    async def until_taken(self, seconds: float) -> None:
        """Return once somebody has it, and everybody who was told; at the latest when nobody has come for `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds) as self._limit:
                while self._owed or not self._taken:
                    self._moved.clear()
                    await self._moved.wait()
        self._limit = None
        for giving in self._owed.values():
            giving.cancel()

    def give(self, writer: asyncio.StreamWriter, *, keeps_content: bool) -> None:
        """Begin to tell one who watches; what was given is owed until it is taken."""
        if keeps_content:
            self._keepers.add(writer)
        offered = self._most_bytes > 0 and (keeps_content or not self._keepers)

        async def tell() -> None:
            with contextlib.suppress(OSError):
                for event in _events(self._executions, content=offered):
                    await _say(writer, event)

        self._owed[writer] = asyncio.create_task(tell())

    async def send_content(self, writer: asyncio.StreamWriter) -> None:
        """Send the archive to one that asked for it; one at a time, and whole only once. Raise OSError when it goes away."""
        async with self._sending:
            if self._limit is not None:
                self._limit.reschedule(asyncio.get_running_loop().time() + CONTENT_SECONDS)
            if self._most_bytes <= 0 or self._sent:
                await _say(writer, _content(note=""))
                return
            if why_not := await asyncio.to_thread(keep.why_not, self._content, self._most_bytes):
                await _say(writer, _content(note=why_not))
                return
            async with contextlib.aclosing(_packed(self._content)) as parts:
                async for part in parts:
                    await _say(writer, _content(part))
            await _say(writer, _content(last=True))
            self._sent = True

    def settle(self, writer: asyncio.StreamWriter, *, taken: bool) -> None:
        """One of them has it, or has gone."""
        self._keepers.discard(writer)
        if (giving := self._owed.pop(writer, None)) is not None:
            giving.cancel()
            self._taken = self._taken or taken
            self._moved.set()


class Gathered:
    """The parts of executions that have come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, event: Mapping[str, Any]) -> list[bytes] | None:
        """Take in an event; return all parts when it was the last. Raise ValueError when they are too many, or not what they seem."""
        part = part_of(event)
        self._size += len(part)
        if self._size > MOST_BYTES:
            self._parts.clear()
            raise ValueError(f"more than {MOST_BYTES} bytes")
        if part:
            self._parts.append(part)
        return self._parts if event["last"] else None


def part_of(event: Mapping[str, Any]) -> bytes:
    """Return what an event carries. Raise ValueError, KeyError."""
    return base64.b64decode(str(event["part"]), validate=True)


def carried(part: bytes) -> str:
    """Return bytes as an event carries them."""
    return base64.b64encode(part).decode()


def _events(executions: bytes, *, content: bool) -> Iterator[dict[str, Any]]:
    parts = [executions[at : at + PART_BYTES] for at in range(0, len(executions), PART_BYTES)] or [b""]
    for part in parts[:-1]:
        yield {"event": "left", "part": carried(part), "last": False}
    yield {"event": "left", "part": carried(parts[-1]), "last": True, "content": content}


def _content(part: bytes = b"", *, last: bool = False, note: str | None = None) -> dict[str, Any]:
    event = {"event": "content", "part": carried(part), "last": last or note is not None}
    return event if note is None else {**event, "note": note}


async def _say(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    writer.write(json.dumps(event).encode() + b"\n")
    await writer.drain()


async def _packed(content: Path) -> AsyncGenerator[bytes]:
    """Yield an archive of a folder, made as fast as it is taken. Raise OSError."""
    out, into = os.pipe()

    def pack() -> None:
        with os.fdopen(into, "wb") as file:
            keep.pack_into(content, file)

    packing = asyncio.create_task(asyncio.to_thread(pack))
    try:
        with os.fdopen(out, "rb", buffering=0) as packed:
            while part := await asyncio.to_thread(_read, packed.fileno()):
                yield part
    finally:
        await asyncio.gather(packing, return_exceptions=True)  # who stops to read, stops it
    packing.result()


def _read(fd: int) -> bytes:
    """Return the next part, nothing at the end."""
    parts, size = [], 0
    while size < PART_BYTES and (piece := os.read(fd, PART_BYTES - size)):
        parts.append(piece)
        size += len(piece)
    return b"".join(parts)
