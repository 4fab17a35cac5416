"""One control service at a time: a lock on a file of the installation, naming who holds it.

The lock ends with its process, however that ends. An epoch in the database (quota.ports.Ledger.take_over) backs it where a
lock can not reach: a process that lost its place, and does not know it yet, writes nothing any more.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

from sqlalchemy import text

from quota.store import create_engine, store_errors

# How soon a server lets go of the lock of a machine that fell silent: 10 + 3 * 5 seconds.
_NOTICE_SILENCE = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)
_CONTROL_LOCK = 0x6D63_0002  # PostgreSQL's advisory lock of the control service that acts on a database


class Held(Exception):
    """Another control service acts for this installation."""


class Lock(Protocol):
    """What is held until it is released, or until its process ends."""

    def release(self) -> None:
        """Give the lock back."""
        ...


class Lease:
    """The lock, held while this object is kept."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raise Held with a sentence that names the holder."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(64).strip() or "unknown"
            self._file.close()
            raise Held(f"Another control service acts for {path.parents[1]}: process {holder}.") from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Give the lock back."""
        self._file.close()


class DatabaseLease:
    """The lock of a PostgreSQL database, for control services of several machines. It ends with its connection."""

    def __init__(self, url: str) -> None:
        """Take the lock. Raise Held with a sentence that names the holder, StoreError when the database can not be used."""
        self._engine = create_engine(url)
        with store_errors(self._engine):
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            for setting in _NOTICE_SILENCE:
                self._connection.exec_driver_sql(setting)
            if self._connection.scalar(text(f"SELECT pg_try_advisory_lock({_CONTROL_LOCK})")):
                return
            known = self._connection.scalar(text("SELECT to_regclass('quota_epoch')"))
            holder = self._connection.scalar(text("SELECT holder FROM quota_epoch")) if known else None
        self.release()
        where = self._engine.url.render_as_string(hide_password=True)
        raise Held(f"Another control service acts for {where}: {holder or 'unknown'}.")

    def release(self) -> None:
        """Give the lock back."""
        self._connection.close()
        self._engine.dispose()


def take_leases(state: Path, url: str) -> list[Lock]:
    """Take every lock of an installation: of its folder, and of its database when that is a server. Raise Held, StoreError."""
    leases: list[Lock] = [Lease(state / "run" / "control.lock")]
    if not url.startswith("sqlite"):
        try:
            leases.append(DatabaseLease(url))
        except BaseException:
            leases[0].release()
            raise
    return leases
