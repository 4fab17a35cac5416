"""The open rooms of this process. A room lives here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager

from hub.documents.rooms.outputs import Told
from hub.documents.rooms.room import Room
from hub.documents.rooms.shape import NotShareable
from hub.documents.rooms.shelf import ChangedOutside, Gone, Shelf, ShelfError
from hub.documents.rooms.store import HistoryStore
from hub.documents.rooms.writer import Answer
from hub.web.errors import ApiError
from hub.web.storage import as_api_errors
from quota.clock import Clock
from storage_mount.errors import StorageError

log = logging.getLogger(__name__)

LINGER_SECONDS = 10.0  # how long a room stays after the last page left: a reload, a lost connection
LOOK_SECONDS = 1.0  # how often a room looks at its file and at who may be here
PATIENCE_SECONDS = 8.0  # how long the end of the process waits for saves; what is left is in the history


class Rooms:
    """Opens, watches and closes rooms. `shelf_of` returns where a notebook lies and whether it is read-only."""

    def __init__(
        self,
        shelf_of: Callable[[str], tuple[Shelf, bool]],
        history: HistoryStore,
        clock: Clock,
        *,
        max_bytes: int,
    ) -> None:
        self._shelf_of = shelf_of
        self._history = history
        self._clock = clock
        self._max_bytes = max_bytes
        self._rooms: dict[str, Room] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._closing: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._unfinished: set[str] = set()  # rooms a killed process left, until they are open again

    async def start(self) -> None:
        """Begin to watch, and finish saves that a killed process left unfinished."""
        await self._history.open()
        self._watch = asyncio.create_task(self._look_around(), name="watch rooms")
        self._unfinished = set(await self._history.unfinished())
        self._begin(self._recover(), "recover rooms")

    async def stop(self) -> None:
        """Save and close every room."""
        if self._watch is not None:
            self._watch.cancel()
        for handle in self._closing.values():
            handle.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*(self._close(file_id, force=True) for file_id in list(self._rooms)))
        except TimeoutError:
            log.warning(
                "rooms %s could not be saved in time; their edits are in the history", sorted(self._rooms)
            )
        await self._history.close()

    def names(self) -> dict[str, int]:
        """Return the open rooms and how many pages each has."""
        return {file_id: len(room.visitors) for file_id, room in self._rooms.items()}

    def _lock(self, file_id: str) -> asyncio.Lock:
        return self._locks.setdefault(file_id, asyncio.Lock())

    def _begin(self, call: Coroutine[None, None, None], name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(call, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())

    async def join(self, file_id: str) -> Room:
        """Return the open room of a notebook; raise ShelfError or NotShareable. It closes by itself when nobody enters."""
        async with self._lock(file_id):
            room = self._rooms.get(file_id)
            if room is None:
                shelf, readonly = self._shelf_of(file_id)
                room = Room(
                    file_id, shelf, self._history, self._clock, readonly=readonly, max_bytes=self._max_bytes
                )
                await room.open()
                self._rooms[file_id] = room
                log.info("opened the room of %s", file_id)
            self.linger(file_id)
            return room

    def linger(self, file_id: str) -> None:
        """Close the room after a while unless somebody is in it then."""
        old = self._closing.pop(file_id, None)
        if old is not None:
            old.cancel()
        self._closing[file_id] = asyncio.get_running_loop().call_later(
            LINGER_SECONDS, lambda: self._begin(self._close(file_id), f"close {file_id}")
        )

    async def _close(self, file_id: str, *, force: bool = False) -> None:
        async with self._lock(file_id):
            room = self._rooms.get(file_id)
            if room is None or (room.visitors and not force):
                return
            if room.awaits_outputs and not force:
                self.linger(file_id)
                return
            self._closing.pop(file_id, None)
            try:
                await room.close()
            except Gone:
                log.info("%s is gone; its unsaved edits stay in the history", file_id)
                await room.abandon()
            except (ShelfError, NotShareable, sqlite3.Error) as error:
                log.warning("%s could not be saved while closing: %s", file_id, error)
                if not force:
                    self.linger(file_id)
                return
            del self._rooms[file_id]
            log.info("closed the room of %s", file_id)
        self._locks.pop(file_id, None)

    async def _recover(self) -> None:
        for file_id in list(self._unfinished):
            await self._take_up(file_id)

    async def _take_up(self, file_id: str) -> None:
        """Open a room that a killed process left; what the file lacks of its edits is then saved."""
        try:
            await self.join(file_id)
        except ShelfError as error:
            log.warning("%s has a history but can not be opened: %s", file_id, error)
        except NotShareable as error:
            log.warning("%s has a history but is no notebook now: %s", file_id, error)
        self._unfinished.discard(file_id)

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.gather(*(self._look_at(room) for room in list(self._rooms.values())))

    async def _look_at(self, room: Room) -> None:
        try:
            await asyncio.gather(*(visitor.check() for visitor in list(room.visitors)))
            room.look_at_outputs()
            await room.look_outside()
        except (ShelfError, NotShareable) as error:
            log.info("%s: %s", room.file_id, error)
        except Exception:
            log.exception("looking at %s failed", room.file_id)

    # -- what REST needs to be coherent with an open room; raises ApiError -----------------------------------------

    def is_open(self, file_id: str) -> bool:
        """Return whether the notebook is open in a page."""
        return file_id in self._rooms

    async def settle(self, file_id: str) -> None:
        """Return when the file holds every edit made in its room, if it has one; raise ApiError."""
        if file_id in self._unfinished:
            await self._take_up(file_id)
        room = self._rooms.get(file_id)
        if room is not None and room.unsaved:
            with as_answers():
                await room.save()

    async def deliver(self, file_id: str, found: Sequence[Told]) -> Answer:
        """Take in what a runtime tells of the cells of a notebook, open or not.

        What is settled is in the file when this returns. Raise ShelfError, NotShareable, or ApiError.
        """
        room = await self.join(file_id)
        answer = room.deliver(found)
        if answer.settled:
            await self.settle(file_id)
        return answer

    async def replace(self, file_id: str, raw: bytes, replaces: str | None) -> bool:
        """Make `raw` the content of an open notebook, in its pages too. Return False when it is not open.

        `replaces` is the etag of the version that is replaced, None for any. Raise ApiError: 412 `changed`, 507, ...
        """
        async with self._lock(file_id):
            room = self._rooms.get(file_id)
            if room is None:
                return False
            with as_answers():
                await room.replace(raw, replaces)
            return True


@contextmanager
def as_answers() -> Iterator[None]:
    """Turn what a room says into HTTP answers."""
    try:
        yield
    except ShelfError as error:
        if isinstance(error.__cause__, StorageError):
            with as_api_errors():
                raise error.__cause__ from error
        if isinstance(error, ChangedOutside):
            raise ApiError(412, "changed", str(error)) from error
        raise ApiError(503, "storage_error", str(error), headers={"Retry-After": "5"}) from error
    except NotShareable as error:
        raise ApiError(400, "bad_notebook", str(error)) from error
    except sqlite3.Error as error:
        message = f"The notebook's history can not be written: {error}."
        raise ApiError(503, "storage_error", message, headers={"Retry-After": "5"}) from error
