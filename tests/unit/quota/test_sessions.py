"""Sessions and their record, on every store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from quota import migrations, policy
from quota.clock import FakeClock
from quota.memory import MemoryLedger
from quota.model import (
    LIVE,
    MOVES,
    Filter,
    Reason,
    State,
)
from quota.ports import Fenced, Ledger, LiveExists, NoSession
from quota.service import Refused, Request, Sessions, new_runtime_id
from quota.sql import SessionRow, SqlLedger, create_engine
from tests.unit.quota.session_support import BOOT, LIMITS, NOW, a_session, at


def _the(database: Engine | None) -> Engine:
    assert database is not None
    return database


def a_request(file_id: str = "f1", user: str = "ada") -> Request:
    return Request(user, file_id, "a.ipynb", "NONE", "STANDARD", "local", None)


SQL = ["sqlite", "postgresql"]


@pytest.fixture(params=[*SQL, "memory"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine | None]:
    """Each test of the rules runs on every store; None is the one in memory."""
    if request.param == "memory":
        yield None
        return
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/control.sqlite")
    else:
        engine = create_engine(request.getfixturevalue("postgresql"))
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(database: Engine | None) -> Ledger:
    return MemoryLedger() if database is None else SqlLedger(database)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sessions(ledger: Ledger, clock: FakeClock) -> Sessions:
    return Sessions(ledger, clock, BOOT)


def test_one_live_runtime_per_user_and_notebook_also_under_real_concurrency(sessions: Sessions) -> None:
    found: list[str] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        found.append(sessions.begin(a_request(), LIMITS)[0].id)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(sessions.ledger.live("ada")) == 1


def test_an_ended_runtime_makes_room_and_keeps_its_reason(sessions: Sessions) -> None:
    first, new = sessions.begin(a_request(), LIMITS)
    assert new
    sessions.ready(first.id, None)
    sessions.end(first.id, Reason("idle", "Idle for 90 minutes."))
    second, new = sessions.begin(a_request(), LIMITS)
    assert new
    assert second.id != first.id
    history, total = sessions.ledger.find(Filter(user="ada"), 0, 10)
    assert total == 2
    assert {s.id: s.reason for s in history}[first.id] == Reason("idle", "Idle for 90 minutes.")


def test_the_limit_is_refused_with_its_numbers(sessions: Sessions) -> None:
    sessions.begin(a_request("f1"), LIMITS)
    sessions.begin(a_request("f2"), LIMITS)
    with pytest.raises(Refused) as refused:
        sessions.begin(a_request("f3"), LIMITS)
    assert (refused.value.denied.limit, refused.value.denied.used) == (2, 2)
    assert sessions.begin(a_request("f3", user="bob"), LIMITS)[1]


def test_an_end_is_recorded_once(sessions: Sessions) -> None:
    session, _ = sessions.begin(a_request(), LIMITS)
    sessions.end(session.id, Reason("first", "."))
    again = sessions.end(session.id, Reason("second", "."))
    assert again.reason == Reason("first", ".")


@given(st.lists(st.sampled_from(list(State)), max_size=8), st.booleans())
def test_no_order_of_moves_brings_an_ended_session_back(moves: list[State], in_memory: bool) -> None:
    ledger: Ledger = MemoryLedger() if in_memory else SqlLedger(create_engine("sqlite://"))
    session, _ = Sessions(ledger, FakeClock(), BOOT).begin(a_request(), LIMITS)
    state = State.STARTING
    for move in moves:
        now = ledger.move(session.id, move, NOW).state
        assert now is state or now in MOVES[state]
        if state not in LIVE:
            assert now is state
        state = now


def test_the_record_tells_each_move_once(sessions: Sessions) -> None:
    session, _ = sessions.begin(a_request(), LIMITS)
    sessions.ready(session.id, None)
    sessions.ready(session.id, None)
    sessions.stopping(session.id, Reason("user_deleted", "Ended."))
    sessions.end(session.id, Reason("user_deleted", "Ended."))
    sessions.ready(session.id, None)
    events = sessions.ledger.events(session.id)
    assert [name for name, _, _ in events] == ["created", "ready", "stopping", "ended"]
    assert events[-1][1] == {"code": "user_deleted", "message": "Ended.", "used_seconds": 0.0}


def test_a_session_being_ended_knows_why_already(sessions: Sessions) -> None:
    session, _ = sessions.begin(a_request(), LIMITS)
    assert sessions.stopping(session.id, Reason("admin", "Ended.")).reason == Reason("admin", "Ended.")


def test_the_last_use_only_grows_and_ends_with_the_session(sessions: Sessions, clock: FakeClock) -> None:
    session, _ = sessions.begin(a_request(), LIMITS)
    sessions.ready(session.id, None)
    clock.advance(100)
    sessions.used({session.id: 10})
    sessions.used({session.id: 50})
    sessions.used({})
    used = sessions.ledger.get(session.id)
    assert used is not None
    assert used.active_boottime == clock.boottime() - 10
    assert used.last_activity == clock.now() - timedelta(seconds=10)
    sessions.end(session.id, Reason("idle", "."))
    sessions.used({session.id: 0})
    sessions.phase(session.id, "ready", "late")
    after = sessions.ledger.get(session.id)
    assert after is not None
    assert (after.active_boottime, after.phase_message) == (used.active_boottime, "Connected")


def test_the_use_of_many_is_noted_at_once_each_by_itself(sessions: Sessions, clock: FakeClock) -> None:
    ids = [sessions.begin(a_request("f1", user), LIMITS)[0].id for user in ("ada", "bob", "eve")]
    for session in ids:
        sessions.ready(session, None)
    clock.advance(100)
    sessions.end(ids[2], Reason("idle", "Idle."))
    sessions.used({ids[0]: 10.0, ids[1]: 500.0, ids[2]: 0.0, "r-nobody": 0.0})
    found = [sessions.ledger.get(session) for session in ids]
    assert [s.active_boottime for s in found if s is not None] == [1090.0, 1000.0, 1000.0]
    assert [s.last_activity for s in found if s is not None] == [
        clock.wall - timedelta(seconds=ago) for ago in (10, 100, 100)
    ]


def test_life_is_counted_from_when_the_machine_was_ready_not_from_when_it_was_noticed(
    sessions: Sessions, clock: FakeClock
) -> None:
    session, _ = sessions.begin(a_request(), LIMITS)
    noticed = sessions.ready(session.id, clock.boottime() - 60)
    assert noticed.ready == clock.now() - timedelta(seconds=60)
    assert policy.life_left(noticed, sessions.moment()) == 43_200 - 60


def test_sessions_are_found_by_user_file_and_state(sessions: Sessions, clock: FakeClock) -> None:
    one, _ = sessions.begin(a_request("f1"), LIMITS)
    clock.advance(1)
    two, _ = sessions.begin(a_request("f2"), LIMITS)
    clock.advance(1)
    sessions.begin(a_request("f1", user="bob"), LIMITS)
    sessions.end(one.id, Reason("idle", "."))

    def ids(which: Filter, offset: int = 0, limit: int = 10) -> list[str]:
        return [s.id for s in sessions.ledger.find(which, offset, limit)[0]]

    assert ids(Filter(user="ada")) == [two.id, one.id]
    assert ids(Filter(user="ada"), 1, 1) == [one.id]
    assert ids(Filter(user="ada", file_id="f1")) == [one.id]
    assert ids(Filter(user="ada", states=LIVE)) == [two.id]
    assert sessions.ledger.find(Filter(), 0, 1)[1] == 3


def test_an_instance_that_was_replaced_changes_nothing_any_more(
    ledger: Ledger, database: Engine | None
) -> None:
    other: Ledger = MemoryLedger(ledger) if isinstance(ledger, MemoryLedger) else SqlLedger(_the(database))
    first = ledger.take_over("one", NOW)
    mine = a_session(state=State.STARTING)
    ledger.begin(mine)
    assert other.take_over("two", NOW) == first + 1
    for write in (
        lambda: ledger.begin(a_session(file_id="f2")),
        lambda: ledger.move(mine.id, State.READY, NOW),
        lambda: ledger.note(mine.id, {"phase": "server"}),
        lambda: ledger.note_use({mine.id: (NOW, 1.0)}),
        lambda: ledger.end(mine.id, State.ENDED, Reason("x", "."), NOW, 0.0),
        lambda: ledger.record(mine.id, "x", {}, NOW),
    ):
        with pytest.raises(Fenced):
            write()
    assert ledger.get(mine.id) == mine
    assert other.move(mine.id, State.READY, NOW).state is State.READY


def test_what_is_not_there_is_said(ledger: Ledger) -> None:
    assert ledger.get("r-nothing") is None
    with pytest.raises(NoSession):
        ledger.move("r-nothing", State.READY, NOW)
    with pytest.raises(NoSession):
        ledger.end("r-nothing", State.ENDED, Reason("x", "."), NOW, 0.0)


def test_the_store_itself_holds_one_live_runtime(ledger: Ledger) -> None:
    ledger.begin(a_session(id="r-1"))
    with pytest.raises(LiveExists) as exists:
        ledger.begin(a_session(id="r-2"))
    assert exists.value.session.id == "r-1"
    assert ledger.get("r-2") is None
    assert ledger.events("r-2") == []


@pytest.mark.parametrize("database", SQL, indirect=True)
def test_the_database_itself_keeps_the_record_append_only(ledger: Ledger, database: Engine) -> None:
    ledger.begin(a_session(id="r-1"))
    for statement in ("UPDATE quota_events SET event = 'x'", "DELETE FROM quota_events"):
        with pytest.raises(DBAPIError, match="append-only"), database.begin() as connection:
            connection.execute(text(statement))
    assert [name for name, _, _ in ledger.events("r-1")] == ["created"]


def test_sqlite_commits_survive_a_power_cut(tmp_path: Path) -> None:
    with create_engine(f"sqlite:///{tmp_path}/control.sqlite").begin() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "delete"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_a_database_of_an_earlier_version_gets_what_it_lacks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/control.sqlite"
    with create_engine(url).begin() as connection:
        migrations.upgrade(connection, "0001")
        connection.execute(text("DROP TABLE alembic_version"))  # as before there were revisions
        for column in ("boot_id", "ready_boottime", "active_boottime"):
            connection.execute(text(f"ALTER TABLE quota_sessions DROP COLUMN {column}"))
        connection.execute(
            text(
                "INSERT INTO quota_sessions VALUES ('r-1', 'ada', 'f1', 'a.ipynb', 'ready', 'ready', '', 'NONE', 'STANDARD', "
                "'local', NULL, :at, :at, :at, NULL, NULL, NULL, 43200, 5400)"
            ),
            {"at": "2026-01-01 00:00:00.000000"},
        )
    session = SqlLedger(create_engine(url)).get("r-1")
    assert session is not None
    assert session.boot_id is None
    assert policy.life_left(session, at(60)) == 43_200 - 60


def test_postgresql_is_asked_for_the_same_rules() -> None:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex, CreateTable

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    index = next(i for i in SessionRow.__table__.indexes if i.name == "quota_one_live_runtime")  # type: ignore[attr-defined]
    made = str(CreateIndex(index).compile(dialect=dialect))
    assert "CREATE UNIQUE INDEX" in made
    assert "WHERE state IN ('queued', 'starting', 'ready', 'stopping')" in made
    assert '"user" VARCHAR(255)' in str(CreateTable(SessionRow.__table__).compile(dialect=dialect))  # type: ignore[arg-type]


def test_a_killed_writer_leaves_whole_sessions(tmp_path: Path) -> None:
    """A process that writes sessions is killed again and again: each session is there with its first event, or not at all."""
    import subprocess
    import sys

    url = f"sqlite:///{tmp_path}/control.sqlite"
    code = (
        "import sys\n"
        "from quota.clock import SystemClock\nfrom quota.model import Limits\n"
        "from quota.service import Request, Sessions\nfrom quota.sql import SqlLedger, create_engine\n"
        f"s = Sessions(SqlLedger(create_engine({url!r})), SystemClock(), 'b')\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    made, _ = s.begin(Request('ada', f'{sys.argv[1]}-{n}', 'a', 'NONE', 'S', 'local', None), Limits(1, 1, (), 10**9))\n"
        "    print(made.id, flush=True)\n"
    )
    acknowledged: list[str] = []
    for run in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            acknowledged += [process.stdout.readline().strip() for _ in range(3 + run)]
            process.kill()
    ledger = SqlLedger(create_engine(url))
    stored = {s.id for s in ledger.live()}
    assert set(acknowledged) <= stored
    assert all([name for name, _, _ in ledger.events(i)] == ["created"] for i in stored)


def test_a_runtime_id_is_a_server_name_and_hard_to_guess() -> None:
    ids = {new_runtime_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(i) == 14 and i.startswith("r-") and i[2:].isalnum() and i.islower() for i in ids)


def test_an_end_that_is_noticed_later_is_charged_until_it_was(sessions: Sessions, clock: FakeClock) -> None:
    session, _ = sessions.begin(a_request(), LIMITS)
    sessions.ready(session.id, None)
    clock.advance(100)
    ended_at, wall = clock.boottime(), clock.now()
    clock.advance(3600)  # control was down
    clock.wall += timedelta(hours=13)  # and somebody set the clock
    ended = sessions.end(session.id, Reason("max_lifetime", "."), ended_boottime=ended_at)
    assert ended.used_seconds == pytest.approx(100)
    assert ended.ended is not None
    assert ended.ended - wall == timedelta(hours=13)
    assert sessions.ledger.events(session.id)[-1][1]["used_seconds"] == pytest.approx(100)
