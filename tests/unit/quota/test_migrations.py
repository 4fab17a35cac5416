"""Control's database: brought to this program's revision, whole after every fault, refused when it can not be used."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, inspect, text

import gpu_scheduler.sql
from hub.control import consent, idempotency
from hub.control.lease import DatabaseLease, Held
from quota import migrations
from quota.sql import Base, SqlLedger
from quota.store import (
    COPIES_KEPT,
    StoreBusy,
    StoreDamaged,
    StoreTooNew,
    StoreUnusable,
    create_engine,
    prepare_database,
    store_errors,
)

ROOT = Path(__file__).parents[3]


def everything() -> MetaData:
    """Return the tables of all classes whose rows lie in control's database."""
    whole = MetaData()
    for base in (Base, consent._Base, idempotency._Base, gpu_scheduler.sql.Base):
        for table in base.metadata.tables.values():
            table.to_metadata(whole)
    return whole


def of_revision(path: Path, revision: str) -> None:
    """Make a database of an earlier revision."""
    with create_engine(f"sqlite:///{path}").begin() as connection:
        migrations.upgrade(connection, revision)
        connection.execute(text("INSERT INTO quota_epoch VALUES (1, 7, 'somebody', '2026-01-01 00:00:00')"))


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def emptied(url: str) -> str:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_revisions_make_the_tables_of_the_classes(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/control.sqlite"
    if kind == "postgresql":
        url = emptied(request.getfixturevalue("postgresql"))
    engine = create_engine(url)
    prepare_database(engine)
    prepare_database(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, everything())
    named = [d for d in differences if not (isinstance(d, list) and d[0][0] == "modify_comment")]
    assert named == []  # comments explain the classes; a database does not need them


def test_a_database_without_revision_is_adopted_and_a_copy_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    of_revision(path, "0001")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE alembic_version")
        connection.execute("DROP TABLE control_oauth_tokens")  # as when it was killed while making its tables
        connection.commit()
    engine = create_engine(f"sqlite:///{path}")
    prepare_database(engine)
    assert rows(path, "SELECT * FROM alembic_version") == [(migrations.head(),)]
    assert rows(path, "SELECT epoch FROM quota_epoch") == [(7,)]
    assert "control_oauth_tokens" in inspect(engine).get_table_names()
    copy = tmp_path / "control.sqlite.revision-0000"
    assert rows(copy, "SELECT epoch FROM quota_epoch") == [(7,)]
    assert copy.stat().st_mode & 0o077 == 0


def test_of_the_copies_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    of_revision(path, "0001")
    for number in range(5):
        old = tmp_path / f"control.sqlite.revision-old{number}"
        old.write_bytes(b"")
        os.utime(old, (number, number))
    prepare_database(create_engine(f"sqlite:///{path}"))
    kept = sorted(p.name for p in tmp_path.glob("*.revision-*"))
    assert kept == [
        "control.sqlite.revision-0001",
        "control.sqlite.revision-old3",
        "control.sqlite.revision-old4",
    ]
    assert len(kept) == COPIES_KEPT


def test_many_may_upgrade_at_once(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    of_revision(path, "0001")
    begin, failed = threading.Barrier(6), []

    def one() -> None:
        engine = create_engine(f"sqlite:///{path}", busy_seconds=60)
        begin.wait()
        try:
            prepare_database(engine)
        except Exception as error:
            failed.append(error)
        engine.dispose()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert rows(path, "SELECT * FROM alembic_version") == [(migrations.head(),)]


def test_a_database_of_a_newer_program_is_refused_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    prepare_database(create_engine(f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'fff1'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreTooNew, match=r"is from version fff1; .* There is no downgrade"):
        prepare_database(create_engine(f"sqlite:///{path}"))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["control.sqlite"]


@pytest.mark.parametrize("damage", ["head", "middle", "text"])
def test_a_damaged_database_is_refused_with_the_way_back(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "databases" / "control.sqlite"
    path.parent.mkdir()
    prepare_database(create_engine(f"sqlite:///{path}"))
    copy = tmp_path / "backups" / "2026" / "control.sqlite"
    copy.parent.mkdir(parents=True)
    shutil.copy(path, copy)
    data = bytearray(path.read_bytes())
    if damage == "text":
        data[:] = b"no database at all\n" * 500
    else:
        start = 0 if damage == "head" else 4096
        data[start : start + 8192] = b"\xa5" * 8192
    path.write_bytes(data)
    with pytest.raises(StoreDamaged) as refused:
        prepare_database(create_engine(f"sqlite:///{path}"))
    assert f"{path} is damaged" in str(refused.value)
    assert f"minicolab db restore {copy}" in str(refused.value)
    assert path.read_bytes() == bytes(data)


def test_a_held_database_is_said_to_be_held(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    prepare_database(create_engine(f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusy, match="held by another program"):
            prepare_database(create_engine(f"sqlite:///{path}", busy_seconds=0.01))


def test_an_upgrade_that_fills_the_disk_changes_nothing_and_succeeds_later(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    of_revision(path, "0001")
    before = rows(path, "SELECT sql FROM sqlite_master ORDER BY name")
    engine = create_engine(f"sqlite:///{path}")
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
        connection.execute(text(f"PRAGMA max_page_count={pages}"))  # on the pooled connection
    with pytest.raises(StoreUnusable, match="full"):
        prepare_database(engine)
    assert rows(path, "SELECT sql FROM sqlite_master ORDER BY name") == before
    assert rows(path, "SELECT * FROM alembic_version") == [("0001",)]
    prepare_database(create_engine(f"sqlite:///{path}"))
    assert rows(path, "SELECT * FROM alembic_version") == [(migrations.head(),)]


def test_a_file_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    prepare_database(create_engine(f"sqlite:///{path}"))
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    prepare_database(engine)  # nothing is to be written
    with pytest.raises(StoreUnusable, match="read-only"), store_errors(engine), engine.begin() as connection:
        connection.execute(text("DELETE FROM quota_epoch"))


def test_the_first_landing_of_budgets_is_adopted(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    of_revision(path, "0002")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE alembic_version")
        connection.commit()
    prepare_database(create_engine(f"sqlite:///{path}"))
    assert rows(path, "SELECT * FROM alembic_version") == [(migrations.head(),)]


def test_after_one_waited_in_vain_the_next_do_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    engine = create_engine(f"sqlite:///{path}", busy_seconds=0.05)
    prepare_database(engine)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusy), store_errors(engine), engine.connect() as connection:
            connection.execute(text("SELECT * FROM quota_epoch"))
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 0


def test_many_may_upgrade_a_postgresql_at_once_and_a_newer_one_is_refused(postgresql: str) -> None:
    url, begin, failed = emptied(postgresql), threading.Barrier(4), []

    def one() -> None:
        engine = create_engine(url)
        begin.wait()
        try:
            prepare_database(engine)
        except Exception as error:
            failed.append(error)
        engine.dispose()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'fff1'"))
    with pytest.raises(StoreTooNew, match="fff1"):
        prepare_database(engine)
    engine.dispose()


def test_one_control_service_acts_on_a_postgresql(postgresql: str) -> None:
    url = emptied(postgresql)
    first = DatabaseLease(url)
    SqlLedger(create_engine(url)).take_over("process 7 of there", datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(Held, match="process 7 of there"):
        DatabaseLease(url)
    first.release()
    DatabaseLease(url).release()


UPGRADE = """
import os, signal, sys
from sqlalchemy import event
from quota.store import create_engine, prepare_database
engine, left = create_engine(sys.argv[1]), int(sys.argv[2])
@event.listens_for(engine, "before_cursor_execute")
def count(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
prepare_database(engine)
"""


def test_an_upgrade_killed_at_any_statement_is_completed_by_the_next(tmp_path: Path) -> None:
    old = tmp_path / "old.sqlite"
    of_revision(old, "0001")
    whole = rows(old, "SELECT sql FROM sqlite_master ORDER BY name")
    killed, statement = 0, 0
    while True:
        path = tmp_path / str(statement) / "control.sqlite"
        path.parent.mkdir()
        shutil.copy(old, path)
        code = subprocess.run(
            [sys.executable, "-c", UPGRADE, f"sqlite:///{path}", str(statement)], cwd=ROOT, check=False
        ).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
        revision = rows(path, "SELECT version_num FROM alembic_version")
        assert revision == [("0001",)]
        assert rows(path, "SELECT sql FROM sqlite_master ORDER BY name") == whole
        engine = create_engine(f"sqlite:///{path}")
        prepare_database(engine)
        assert rows(path, "SELECT version_num FROM alembic_version") == [(migrations.head(),)]
        assert rows(path, "SELECT epoch FROM quota_epoch") == [(7,)]
        assert rows(path.with_name("control.sqlite.revision-0001"), "SELECT epoch FROM quota_epoch") == [(7,)]
        statement += 3
    assert killed > 5
