"""`minicolab db`: copies of the databases, and the way back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hub.installation import hold, prepare
from hub.settings import Settings
from quota.store import create_engine, prepare_database
from support.service import free_port, run_command


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An installation that does not run, with two databases."""
    service = prepare(tmp_path / "state", Settings(), free_port())
    prepare_database(create_engine(service.control_database_url))
    with closing(sqlite3.connect(service.state / "databases" / "hub.sqlite")) as connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.execute("INSERT INTO notes VALUES ('kept')")
        connection.commit()
    return service.state


def notes(state: Path) -> list[str]:
    with closing(sqlite3.connect(state / "databases" / "hub.sqlite")) as connection:
        return [row[0] for row in connection.execute("SELECT text FROM notes")]


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_copy_is_put_back_and_what_it_replaced_is_kept(state: Path) -> None:
    with closing(sqlite3.connect(state / "databases" / "hub.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")  # as a service that is writing
        writer.execute("INSERT INTO notes VALUES ('not yet committed')")
        copy = Path(run_command("db", "backup", "--state", str(state)).stdout.strip())
        writer.execute("COMMIT")
    assert sorted(path.name for path in copy.iterdir()) == ["control.sqlite", "hub.sqlite"]
    assert copy.parent == state / "backups"
    done = run_command("db", "restore", str(copy), "--state", str(state))
    assert "Put back: control, hub" in done.stdout
    assert notes(state) == ["kept"]
    (replaced,) = (state / "databases").glob("replaced-*")
    with closing(sqlite3.connect(replaced / "hub.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (2,)


def test_restore_refuses_while_the_service_runs(state: Path) -> None:
    copy = run_command("db", "backup", "--state", str(state)).stdout.strip()
    change(state / "databases" / "hub.sqlite", "INSERT INTO notes VALUES ('later')")
    with hold(state):
        for words in (("restore", copy), ("upgrade",)):
            done = run_command("db", *words, "--state", str(state), check=False)
            assert done.returncode == 75
            assert "is in use by process" in done.stderr
    assert notes(state) == ["kept", "later"]


def test_restore_refuses_what_is_damaged_newer_or_no_copy(state: Path, tmp_path: Path) -> None:
    copy = Path(run_command("db", "backup", str(tmp_path / "copy"), "--state", str(state)).stdout.strip())
    change(copy / "control.sqlite", "UPDATE alembic_version SET version_num = 'fff1'")
    done = run_command("db", "restore", str(copy), "--state", str(state), check=False)
    assert (done.returncode, "is from version fff1" in done.stderr) == (78, True)
    (copy / "control.sqlite").write_bytes(b"nothing" * 1000)
    done = run_command("db", "restore", str(copy), "--state", str(state), check=False)
    assert (done.returncode, "not a whole database" in done.stderr) == (74, True)
    done = run_command("db", "restore", str(tmp_path), "--state", str(state), check=False)
    assert done.returncode == 4
    assert notes(state) == ["kept"]
    assert list((state / "databases").glob("replaced-*")) == []


def test_one_copy_made_before_an_upgrade_is_put_back_and_upgraded(state: Path) -> None:
    path = state / "databases" / "control.sqlite"
    early = path.with_name("control.sqlite.revision-0001")
    path.rename(early)
    change(early, "DROP TABLE alembic_version")
    run_command("db", "restore", str(early), "--state", str(state))
    assert "is of revision" in run_command("db", "upgrade", "--state", str(state)).stdout
    change(path, "UPDATE alembic_version SET version_num = 'fff1'")
    done = run_command("db", "upgrade", "--state", str(state), check=False)
    assert (done.returncode, "There is no downgrade" in done.stderr) == (78, True)


def test_there_is_nothing_to_copy_before_the_first_start(tmp_path: Path) -> None:
    assert run_command("db", "backup", "--state", str(tmp_path), check=False).returncode == 4


def test_a_database_that_can_not_be_used_ends_up_with_the_sentence(state: Path) -> None:
    path = state / "databases" / "control.sqlite"
    change(path, "UPDATE alembic_version SET version_num = 'fff1'")
    up = ("up", "--state", str(state), "--port", str(free_port()), "--no-environment")
    done = run_command(*up, check=False)
    assert done.returncode == 78, done.stderr
    assert f"control can not start: The database {path} is from version fff1" in done.stderr
    path.write_bytes(b"nothing" * 1000)
    done = run_command(*up, check=False)
    assert done.returncode == 74, done.stderr
    assert f"control can not start: The database {path} is damaged" in done.stderr
    assert "Traceback" not in done.stderr
