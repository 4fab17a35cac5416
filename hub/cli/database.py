"""`minicolab db upgrade|backup|restore`."""

from __future__ import annotations

import argparse
import os
import re
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from hub.cli.common import (
    IO_ERROR,
    NOT_FOUND,
    SETTINGS,
    TRY_LATER,
    USAGE,
    add_state,
    fail,
    service_of,
    state_of,
)
from hub.control.__main__ import exit_of
from hub.installation import AlreadyRunning, hold
from quota import migrations
from quota.clock import SystemClock
from quota.store import StoreError, copy_file, create_engine, prepare_database, store_errors, sync_folder

DATABASES = ("control", "documents", "rooms", "hub", "accounts")
_NAME = re.compile(rf"({'|'.join(DATABASES)})\.sqlite")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    db = commands.add_parser("db", help="upgrade, copy and put back the databases")
    acts = db.add_subparsers(dest="act", required=True)
    upgrade = acts.add_parser("upgrade", help="bring control's database to this program's revision")
    upgrade.set_defaults(run=_upgrade)
    backup = acts.add_parser("backup", help="copy every database, also while the service runs")
    backup.add_argument(
        "target", type=Path, nargs="?", metavar="FOLDER", help="new folder (default: STATE/backups/<time>)"
    )
    backup.set_defaults(run=_backup)
    restore = acts.add_parser("restore", help="put copies back; what they replace is kept beside")
    restore.add_argument("source", type=Path, metavar="COPY", help="folder made by backup, or one file")
    restore.set_defaults(run=_restore)
    for parser in (upgrade, backup, restore):
        add_state(parser)


def _upgrade(arguments: argparse.Namespace) -> int:
    service = service_of(arguments)
    try:
        with hold(service.state):
            prepare_database(create_engine(service.control_database_url))
    except AlreadyRunning as error:
        fail(TRY_LATER, f"{error}. It upgraded its database when it started.")
    except StoreError as error:
        fail(exit_of(error), str(error))
    print(f"The database of control is of revision {migrations.head()}.")
    return 0


def _backup(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    files = [path for name in DATABASES if (path := _file(state, name)).exists()]
    if not files:
        fail(NOT_FOUND, f"{state}: there are no databases here yet.")
    target: Path = (arguments.target or state / "backups" / _stamp()).expanduser().absolute()
    if target.exists():
        fail(USAGE, f"{target} exists already; name a new folder.")
    draft = target.with_name(f".{target.name}.draft-{os.getpid()}")
    try:
        draft.mkdir(mode=0o700, parents=True)
        for path in files:
            copy_file(path, draft / path.name)
        draft.rename(target)
        sync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        for left in draft.glob("*"):
            left.unlink(missing_ok=True)
        if draft.exists():
            draft.rmdir()
        fail(IO_ERROR, f"The copy could not be made, and nothing was changed: {error}")
    print(target)
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    source: Path = arguments.source.expanduser().absolute()
    copies = _copies(source)
    for name, copy in copies.items():
        _check(name, copy)
    try:
        with hold(state):
            replaced = _replace(state, copies)
    except AlreadyRunning as error:
        fail(TRY_LATER, f"{error}. End it first: minicolab down --state {state}")
    except (OSError, sqlite3.Error) as error:
        fail(IO_ERROR, f"The copy could not be put back: {error}. Repeat the command once there is a remedy.")
    print(f"Put back: {', '.join(copies)}. What was replaced is in {replaced}")
    return 0


def _copies(source: Path) -> dict[str, Path]:
    """Return the copies to put back, by the names of their databases."""
    if source.is_dir():
        found = {name: path for name in DATABASES if (path := source / f"{name}.sqlite").is_file()}
    else:
        match = _NAME.match(source.name) if source.is_file() else None
        found = {match[1]: source} if match is not None else {}
    if not found:
        fail(NOT_FOUND, f"{source}: no copy of a database is here (known: {', '.join(DATABASES)}).")
    return found


def _check(name: str, copy: Path) -> None:
    """End with 74 or 78 when a copy is damaged or of a newer program."""
    engine = create_engine(f"sqlite:///file:{copy}?mode=ro&uri=true")
    try:
        with store_errors(engine), engine.connect() as connection:
            said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if said != "ok":
                fail(IO_ERROR, f"{copy} is damaged ({said}). Nothing was changed. Choose another copy.")
            found = migrations.current(connection) if name == "control" else migrations.UNVERSIONED
    except StoreError:
        fail(IO_ERROR, f"{copy} is not a whole database. Nothing was changed. Choose another copy.")
    finally:
        engine.dispose()
    if found not in {migrations.UNVERSIONED, *migrations.known()}:
        fail(
            SETTINGS,
            f"{copy} is from version {found}; this program knows versions up to {migrations.head()}. Nothing was changed.",
        )


def _replace(state: Path, copies: dict[str, Path]) -> Path:
    """Put the copies in place, keeping what was there in a folder beside; return it. Each database is old or new, never absent."""
    folder = state / "databases"
    replaced = folder / f"replaced-{_stamp()}"
    replaced.mkdir(mode=0o700, parents=True)
    for name, copy in copies.items():
        path = _file(state, name)
        if path.exists():
            (replaced / path.name).hardlink_to(path)
        for left in (f"{path.name}-journal", f"{path.name}-wal", f"{path.name}-shm"):
            if (folder / left).exists():  # must not be rolled into the copy
                (folder / left).rename(replaced / left)
        sync_folder(replaced)
        copy_file(copy, path)
    with closing(sqlite3.connect(_file(state, next(iter(copies))))) as connection:
        connection.execute("PRAGMA schema_version")
    return replaced


def _file(state: Path, name: str) -> Path:
    return state / "databases" / f"{name}.sqlite"


def _stamp() -> str:
    now: datetime = SystemClock().now()
    return now.strftime("%Y%m%dT%H%M%S.%fZ")
