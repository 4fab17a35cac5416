"""The drives of an installation: where they lie, and one of them at a time locked and looked at."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from quota.clock import Clock
from quota.tables import create_tables
from storage_mount import errors
from storage_mount.beneath import Folder
from storage_mount.faults import database_errors, file_errors
from storage_mount.rows import Drive, Rows
from storage_mount.sql import Base, DriveRow, FileRow


class Drives:
    """The drives below `root`: `root/drive/<drive id>` and `root/trash/<drive id>`."""

    def __init__(self, engine: Engine, root: Path, clock: Clock) -> None:
        self._engine, self._root, self._clock = engine, root, clock
        self._locks: dict[str, threading.RLock] = {}
        self._locks_lock = threading.Lock()
        create_tables(engine, Base.metadata)

    def drive_id(self, user: str) -> str:
        """Return the random id of the user's drive, made on first use."""
        return self._drive(user).id

    def drive_folder(self, user: str) -> Path:
        """Return the folder that is mounted for the user."""
        return self._drive(user).folder

    def owner(self, file_id: str) -> str:
        """Return who owns a file. Raise NotFound."""
        with self._database() as db:
            row = db.get(FileRow, file_id)
            drive = (
                db.scalars(select(DriveRow).where(DriveRow.id == row.drive)).first()
                if row is not None
                else None
            )
            if drive is None:
                raise errors.NotFound
            return drive.user

    def _drive(self, user: str) -> Drive:
        with self._database() as db:
            row = db.get(DriveRow, user)
            if row is None:
                row = DriveRow(user=user, id=secrets.token_hex(16), created=self._clock.now())
                db.add(row)
            identity = row.id
        folder, trash = self._root / "drive" / identity, self._root / "trash" / identity
        with file_errors():
            for path in (folder, trash):
                if not path.is_dir():
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    path.mkdir(mode=0o700, exist_ok=True)
        return Drive(identity, user, Folder(folder), Folder(trash), folder)

    @contextlib.contextmanager
    def _rows(self, user: str) -> Iterator[Rows]:
        """Give the user's drive to one caller at a time. What the block did is kept when it ends well."""
        drive = self._drive(user)
        with self._locks_lock:
            lock = self._locks.setdefault(drive.id, threading.RLock())
        with lock, file_errors(), self._database() as db:
            yield Rows(db, drive, self._clock)

    @contextlib.contextmanager
    def _database(self) -> Iterator[Session]:
        with database_errors(), Session(self._engine) as db, db.begin():
            yield db
