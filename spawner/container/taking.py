"""What a runtime hands over at its end, taken into the folder of what ended ones left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, Any

from spawner.ended import Ended
from spawner.supervisor.handover import part_of

log = logging.getLogger(__name__)

# An archive holds the names and sizes of its files besides, and hardly shrinks what is packed already.
ROOM_BYTES, ROOM_PART = 16 << 20, 8
NOT_WHOLE = "/content could not be fetched whole before the machine ended"


class Taking:
    """What is taken of one runtime. `most_content` tells how much of /content its user may keep: who is asked there may lie."""

    def __init__(self, left: Ended, runtime_id: str, most_content: Callable[[], Awaitable[int]]) -> None:
        self._left, self._id, self._most_content = left, runtime_id, most_content
        self._draft: tuple[Path, IO[bytes]] | None = None
        self._room = 0
        self._failed = ""

    async def executions(self, parts: list[bytes]) -> None:
        """Take what the cells printed last. Raise OSError, ValueError."""
        if parts:
            await asyncio.to_thread(self._left.put_executions, self._id, parts)

    async def wants_content(self) -> bool:
        """Return whether /content is to be asked for, and make ready for it."""
        most = await self._most_content()
        self._room = most + most // ROOM_PART + ROOM_BYTES
        if most <= 0:
            return False
        try:
            self._draft = await asyncio.to_thread(self._left.new_archive, self._id)
        except OSError as error:
            self._give_up(f"/content could not be kept: {error.strerror}")
        return self._draft is not None

    async def content(self, event: Mapping[str, Any]) -> bool:
        """Take a part of the archive; return whether it was the last. Raise ValueError, KeyError."""
        if self._draft is None and not self._failed:
            raise ValueError("nobody has asked for that")
        part = part_of(event)
        self._room -= len(part)
        if self._room < 0:
            self._give_up("/content came with more than may be kept")
        if self._draft is not None:
            try:
                await asyncio.to_thread(self._draft[1].write, part)
            except OSError as error:
                self._give_up(f"/content could not be kept: {error.strerror}")
        if not event["last"]:
            return False
        if "note" in event:
            self._drop()
            if event["note"]:
                await asyncio.to_thread(self._left.put_note, self._id, str(event["note"])[:200])
        elif self._draft is not None:
            await asyncio.to_thread(self._keep, *self._draft)
            self._draft = None
        return True

    def close(self) -> None:
        """The connection has ended: what has not come whole is not kept."""
        if self._draft is not None:
            self._give_up(NOT_WHOLE)

    def _keep(self, draft: Path, file: IO[bytes]) -> None:
        with file:
            file.flush()
        self._left.put_archive(self._id, draft)

    def _give_up(self, why: str) -> None:
        log.warning("runtime %s: %s", self._id, why)
        self._failed = why
        self._drop()
        with contextlib.suppress(OSError):
            self._left.put_note(self._id, why)

    def _drop(self) -> None:
        if self._draft is not None:
            path, file = self._draft
            self._draft = None
            with contextlib.suppress(OSError):
                file.close()
            path.unlink(missing_ok=True)
