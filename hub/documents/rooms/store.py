"""The merge history of every notebook that was opened, in one SQLite file.

A page that was away (a closed laptop, a restart of this service) comes back with edits of its own. They merge only when the
room is the same room: same history, same epoch. So history is written before the notebook file, in groups, durably: what the
file holds is always in the history too, and can never be merged in a second time. And it is written soon after an edit arrived,
long before the file is: when this process is killed, the next one finds the edit here and finishes the save.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FORGET_AFTER = timedelta(days=60)
COMMIT_SECONDS = 0.2  # how long an edit waits for others to be committed with

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rooms (
    file_id TEXT PRIMARY KEY, epoch TEXT NOT NULL, saved TEXT NOT NULL, writing TEXT, used TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS updates (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, file_id TEXT NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS updates_of_file ON updates (file_id, seq);
"""


@dataclass(frozen=True)
class SavedAs:
    """A version of the file that came from this room.

    `digest`: SHA-256 of its bytes; `ids`: the ids its cells have in the room; `content`: digest of the co-edited form.
    """

    digest: str
    ids: tuple[str, ...]
    content: str

    def dump(self) -> str:
        return json.dumps({"digest": self.digest, "ids": self.ids, "content": self.content})

    @staticmethod
    def load(text: str) -> SavedAs:
        data = json.loads(text)
        return SavedAs(data["digest"], tuple(data["ids"]), data["content"])


@dataclass(frozen=True)
class History:
    """What is known about a notebook. `writing` is a version that was being written when we last knew."""

    epoch: str
    saved: SavedAs
    writing: SavedAs | None
    updates: tuple[bytes, ...]


class HistoryStore:
    """One writer thread; appended updates are committed together (`flush` waits for what was appended before it)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")
        self._pending: list[tuple[str, bytes]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._commit: asyncio.Task[None] | None = None
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the database, making it when needed."""
        await self._run(self._open)

    async def close(self) -> None:
        """Commit what is left and close."""
        if self._due is not None:
            self._due.cancel()
        if self._commit is not None:
            await asyncio.gather(self._commit, return_exceptions=True)
        await self.flush()
        await self._run(self._close)
        self._thread.shutdown()

    async def load(self, file_id: str) -> History | None:
        """Return the history of a notebook, or None."""
        await self.flush()
        return await self._run(self._load, file_id)

    async def unfinished(self) -> list[str]:
        """Return the notebooks whose room was not closed in order."""
        return await self._run(self._unfinished)

    async def begin(self, file_id: str, epoch: str, saved: SavedAs, update: bytes, now: datetime) -> None:
        """Forget any history of the notebook and begin a new one whose first update is `update`."""
        self._forget_pending(file_id)
        await self._run(self._begin, file_id, epoch, saved, update, now)

    def append(self, file_id: str, update: bytes) -> None:
        """Remember an update; it is durable after COMMIT_SECONDS and the time to commit it, or after the next `flush`."""
        self._pending.append((file_id, update))
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(COMMIT_SECONDS, self._begin_commit)

    def _begin_commit(self) -> None:
        self._due = None
        self._commit = asyncio.create_task(self._commit_pending(), name="commit edits")

    async def _commit_pending(self) -> None:
        try:
            await self.flush()
        except sqlite3.Error as error:  # the save that follows tells the pages
            log.warning("edits can not be committed now: %s", error)

    async def flush(self) -> None:
        """Wait until everything appended so far is on the disk. Raise sqlite3.Error when it can not be."""
        while self._pending or self._flushing is not None:
            if self._flushing is None:
                batch, self._pending = self._pending, []
                self._flushing = asyncio.create_task(self._flush(batch), name="commit history")
            await asyncio.shield(self._flushing)

    async def _flush(self, batch: list[tuple[str, bytes]]) -> None:
        try:
            await self._run(self._append, batch)
        except BaseException:
            self._pending = batch + self._pending
            raise
        finally:
            self._flushing = None

    async def writing(self, file_id: str, version: SavedAs) -> None:
        """Say that the file is about to hold `version`."""
        await self._run(
            self._execute, "UPDATE rooms SET writing = ? WHERE file_id = ?", version.dump(), file_id
        )

    async def saved(self, file_id: str, version: SavedAs) -> None:
        """Say that the file holds `version`."""
        await self._run(
            self._execute,
            "UPDATE rooms SET saved = ?, writing = NULL WHERE file_id = ?",
            version.dump(),
            file_id,
        )

    async def compact(self, file_id: str, update: bytes, now: datetime) -> None:
        """Replace the updates of a notebook by one that holds them all, and forget notebooks nobody opened for long."""
        await self.flush()
        await self._run(self._compact, file_id, update, now)

    # -- in the writer thread -----------------------------------------------------------------------------------

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(call, *args, **kwargs))

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.ProgrammingError("the history is not open")
        return self._db

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA busy_timeout = 5000")
        self._db.executescript(_SCHEMA)

    def _close(self) -> None:
        self._connection.close()
        self._db = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _execute(self, statement: str, *values: object) -> None:
        with self._transaction() as db:
            db.execute(statement, values)

    def _append(self, batch: list[tuple[str, bytes]]) -> None:
        with self._transaction() as db:
            db.executemany("INSERT INTO updates (file_id, data) VALUES (?, ?)", batch)

    def _load(self, file_id: str) -> History | None:
        db = self._connection
        row = db.execute("SELECT epoch, saved, writing FROM rooms WHERE file_id = ?", (file_id,)).fetchone()
        if row is None:
            return None
        found = db.execute("SELECT data FROM updates WHERE file_id = ? ORDER BY seq", (file_id,))
        return History(
            epoch=row[0],
            saved=SavedAs.load(row[1]),
            writing=SavedAs.load(row[2]) if row[2] is not None else None,
            updates=tuple(data for (data,) in found),
        )

    def _unfinished(self) -> list[str]:
        found = self._connection.execute("SELECT file_id FROM updates GROUP BY file_id HAVING COUNT(*) > 1")
        return [file_id for (file_id,) in found]

    def _begin(self, file_id: str, epoch: str, saved: SavedAs, update: bytes, now: datetime) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM updates WHERE file_id = ?", (file_id,))
            db.execute(
                "INSERT OR REPLACE INTO rooms (file_id, epoch, saved, writing, used) VALUES (?, ?, ?, NULL, ?)",
                (file_id, epoch, saved.dump(), now.isoformat()),
            )
            db.execute("INSERT INTO updates (file_id, data) VALUES (?, ?)", (file_id, update))

    def _compact(self, file_id: str, update: bytes, now: datetime) -> None:
        old = (now - FORGET_AFTER).isoformat()
        with self._transaction() as db:
            db.execute("DELETE FROM updates WHERE file_id = ?", (file_id,))
            db.execute("INSERT INTO updates (file_id, data) VALUES (?, ?)", (file_id, update))
            db.execute("UPDATE rooms SET used = ? WHERE file_id = ?", (now.isoformat(), file_id))
            db.execute(
                "DELETE FROM updates WHERE file_id IN (SELECT file_id FROM rooms WHERE used < ?)", (old,)
            )
            db.execute("DELETE FROM rooms WHERE used < ?", (old,))

    def _forget_pending(self, file_id: str) -> None:
        self._pending = [(f, data) for f, data in self._pending if f != file_id]
