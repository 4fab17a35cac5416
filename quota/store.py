"""Opening a database: durable, brought to this program's revision after a copy was made, and every fault named.

```
prepare_database    look → (copy → upgrade, in one transaction) → ready, or a StoreError with a sentence for the administrator
fault_of            what a statement that failed says about the database: busy, full, damaged, read-only, away
```
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from threading import Lock
from time import monotonic

from sqlalchemy import Connection, Engine, event, inspect
from sqlalchemy import create_engine as sqlalchemy_create_engine
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError

from quota import migrations

BUSY_TIMEOUT_SECONDS = 5.0
UPGRADE_PATIENCE_SECONDS = 60.0  # another process may be carrying out the same upgrade
IMPATIENT_SECONDS = 2.0  # after a lock was waited for in vain, nobody else waits for it for so long
COPIES_KEPT = 3
_SCHEMA_LOCK = 0x6D63_0001  # PostgreSQL's advisory lock of whoever makes or changes tables


class StoreError(Exception):
    """The database can not be used; the text is for the administrator: what is wrong, and what to do."""


class StoreTooNew(StoreError):
    """A newer program wrote the database."""


class StoreDamaged(StoreError):
    """The file is not a whole database."""


class StoreUnusable(StoreError):
    """The disk is full or read-only, or the server does not answer."""


class StoreBusy(StoreError):
    """Another program holds the database."""


class Fault(StrEnum):
    """Why a statement failed, when it is the database's state and not the statement."""

    BUSY = "busy"
    FULL = "full"
    DAMAGED = "damaged"
    READ_ONLY = "read_only"
    AWAY = "away"


_SQLITE = {
    "SQLITE_BUSY": Fault.BUSY,
    "SQLITE_LOCKED": Fault.BUSY,
    "SQLITE_FULL": Fault.FULL,
    "SQLITE_CORRUPT": Fault.DAMAGED,
    "SQLITE_NOTADB": Fault.DAMAGED,
    "SQLITE_READONLY": Fault.READ_ONLY,
    "SQLITE_PERM": Fault.READ_ONLY,
    "SQLITE_CANTOPEN": Fault.AWAY,
    "SQLITE_IOERR": Fault.AWAY,
}
_POSTGRESQL = {
    "55P03": Fault.BUSY,  # lock_not_available
    "57014": Fault.BUSY,  # query_canceled, as by statement_timeout
    "40P01": Fault.BUSY,  # deadlock_detected
    "53100": Fault.FULL,  # disk_full
    "25006": Fault.READ_ONLY,  # read_only_sql_transaction
    "XX001": Fault.DAMAGED,  # data_corrupted
    "XX002": Fault.DAMAGED,  # index_corrupted
}


def fault_of(error: DBAPIError) -> Fault | None:
    """Return what an error says about the database, None when the statement itself is to blame."""
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return next((fault for prefix, fault in _SQLITE.items() if name.startswith(prefix)), None)
    state = getattr(error.orig, "sqlstate", None)
    if state in _POSTGRESQL:
        return _POSTGRESQL[state]
    lost = error.connection_invalidated or state is None or state[:2] in ("08", "53", "57")
    return Fault.AWAY if lost and type(error).__name__ in ("OperationalError", "InterfaceError") else None


# -- opening ------------------------------------------------------------------------------------------------------


def create_engine(url: str, *, busy_seconds: float = BUSY_TIMEOUT_SECONDS) -> Engine:
    """Return an engine; SQLite with its rollback journal and FULL sync, so that a commit survives a power cut.

    `busy_seconds`: how long a statement waits for another process's lock. Once one has waited in vain, those after it do not
    wait, for a while: who holds an event loop meanwhile must not hold it again and again.
    """
    if not url.startswith("sqlite"):
        options = f"-c lock_timeout={int(busy_seconds * 1000)}"
        return sqlalchemy_create_engine(
            url, pool_pre_ping=True, connect_args={"options": options, "connect_timeout": 5}
        )
    engine = sqlalchemy_create_engine(url, connect_args={"timeout": busy_seconds})
    patience = _Patience(busy_seconds)

    @event.listens_for(engine, "connect")
    def _durable(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=FULL")

    event.listen(engine, "checkout", patience.checked_out)
    event.listen(engine, "handle_error", patience.failed)
    return engine


class _Patience:
    """How long statements on a SQLite file wait for a lock."""

    def __init__(self, busy_seconds: float) -> None:
        self._milliseconds = int(busy_seconds * 1000)
        self._until, self._lock = 0.0, Lock()

    def checked_out(self, connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
        with self._lock:
            impatient = monotonic() < self._until
        connection.execute(f"PRAGMA busy_timeout={0 if impatient else self._milliseconds}")

    def failed(self, context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        if isinstance(error, DBAPIError) and fault_of(error) is Fault.BUSY:
            with self._lock:
                self._until = monotonic() + IMPATIENT_SECONDS


# -- preparing ----------------------------------------------------------------------------------------------------


def prepare_database(engine: Engine) -> None:
    """Bring the database to this program's revision, in one transaction, after a copy of it was made. Raise StoreError.

    A database of a newer program is refused before anything is written. One that is of this revision is only looked at.
    """
    with store_errors(engine):
        with engine.connect() as connection:
            _check_whole(connection)
            found = migrations.current(connection)
        _refuse_newer(engine, found)
        if found != migrations.head():
            with _alone(engine) as connection:
                found = migrations.current(connection)  # another process may have been faster
                _refuse_newer(engine, found)
                if found != migrations.head():
                    if inspect(connection).get_table_names():
                        _copy(engine, found)
                    migrations.upgrade(connection)


def _refuse_newer(engine: Engine, found: str) -> None:
    if found != migrations.UNVERSIONED and found not in migrations.known():
        raise StoreTooNew(
            f"The database {_name(engine)} is from version {found}; this program knows versions up to {migrations.head()}. "
            "There is no downgrade, and nothing was changed. Start the newer minicolab again, or restore a copy made before "
            "its upgrade: minicolab db restore COPY"
        )


def _check_whole(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if said != "ok":
        raise StoreDamaged(_damaged(connection.engine, str(said)))


def hold_schema(connection: Connection) -> None:
    """Wait until no other process makes or changes tables in this PostgreSQL database; none does until this transaction is over."""
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other process's upgrade can run beside."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            hold_schema(connection)
            yield connection
        return
    # Python's own driver begins a transaction too late for DDL; here BEGIN and COMMIT are ours.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={int(UPGRADE_PATIENCE_SECONDS * 1000)}")
        connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            with contextlib.suppress(DBAPIError):  # a full disk has rolled back already
                connection.exec_driver_sql("ROLLBACK")
            raise


def _copy(engine: Engine, found: str) -> None:
    """Copy a SQLite file beside itself, named with its revision. PostgreSQL's copies are its administrator's."""
    path = file_of(engine)
    if path is None:
        return
    copy_file(path, path.with_name(f"{path.name}.revision-{found}"))
    for old in _copies_beside(path)[COPIES_KEPT:]:
        old.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Make a consistent copy of a SQLite file that may be in use; `target` is whole or not there at all."""
    draft = target.with_name(f".{target.name}.draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    try:
        uri = f"{source.absolute().as_uri()}?mode=rw"  # what a killed writer left half done is undone first; a read-only file stays as it is
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=30)) as old,
            closing(sqlite3.connect(draft)) as new,
        ):
            old.backup(new)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_of(engine: Engine) -> Path | None:
    """Return the file of a SQLite engine, None for a server or a database in memory."""
    name = engine.url.database
    return Path(name) if engine.dialect.name == "sqlite" and name and name != ":memory:" else None


def _copies_beside(path: Path) -> list[Path]:
    return _newest_first(path.parent.glob(f"{path.name}.revision-*"))


def last_copy(path: Path) -> Path | None:
    """Return the newest copy of a database: one made before an upgrade, or by `minicolab db backup`."""
    kept = (path.parent.parent / "backups").glob(f"*/{path.name}")
    return next(iter(_newest_first([*_copies_beside(path), *kept])), None)


def _newest_first(paths: Iterator[Path] | list[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)


# -- saying what is wrong -----------------------------------------------------------------------------------------


@contextmanager
def store_errors(engine: Engine) -> Iterator[None]:
    """Turn the database's faults into StoreError."""
    try:
        yield
    except DBAPIError as error:
        raise store_error(engine, error) from error
    except sqlite3.Error as error:
        raise StoreUnusable(
            f"No copy of {_name(engine)} could be made before its upgrade: {error}."
        ) from error
    except OSError as error:
        raise StoreUnusable(
            f"No copy of {_name(engine)} could be made before its upgrade: {error.strerror}. Nothing was changed."
        ) from error


def store_error(engine: Engine, error: DBAPIError) -> StoreError:
    """Return what a failed statement means to the administrator. Raise the error itself when it is none of the database's faults."""
    name = _name(engine)
    match fault_of(error):
        case Fault.BUSY:
            return StoreBusy(
                f"The database {name} is held by another program. Nothing was changed. Try again later."
            )
        case Fault.FULL:
            return StoreUnusable(
                f"The disk of the database {name} is full. Nothing was changed. Free some room."
            )
        case Fault.DAMAGED:
            return StoreDamaged(_damaged(engine, str(error.orig)))
        case Fault.READ_ONLY:
            return StoreUnusable(
                f"The database {name} can not be written: its file or its disk is read-only. Nothing was changed."
            )
        case Fault.AWAY:
            return StoreUnusable(f"The database {name} can not be opened: {str(error.orig).strip()}.")
        case None:
            raise error


def _damaged(engine: Engine, said: str) -> str:
    path = file_of(engine)
    copy = last_copy(path) if path is not None else None
    if copy is None:
        remedy = "No copy of it was found. A copy kept elsewhere is put back by: minicolab db restore COPY"
    else:
        remedy = f"The last good copy is {copy}. Put it back: minicolab db restore {copy}"
    return f"The database {_name(engine)} is damaged ({' '.join(said.split())[:200]}). Nothing was changed. {remedy}"


def _name(engine: Engine) -> str:
    path = file_of(engine)
    return str(path) if path is not None else engine.url.render_as_string(hide_password=True)
