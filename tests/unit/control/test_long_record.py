"""A restart with a long record: what it costs depends on what lives, not on what ever was."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from control_support import World, world
from file_backend import FileBackend
from sqlalchemy import Engine, event, insert, select
from test_recovery import control_process

from hub.control.app import make_control
from quota.model import State
from quota.sql import EventRow, SessionRow
from support.patience import until_async

FEW, MANY, LIVE = 100, 10_000, 20
MOST_MEMORY = 500 << 20
STEPS_AT_ONCE = 100


async def fill(here: World, past: int) -> list[str]:
    """Write a record of `past` sessions of the last year, with what happened to each, and live ones; return these."""
    model = await here.ready("ada", "nb-ada")
    await here.call("ada", "DELETE", f"runtimes/{model['id']}")
    ledger: Any = here.control.sessions.ledger
    now = here.control.clock.now()
    with ledger._engine.begin() as db:
        ended = dict(
            db.execute(select(SessionRow.__table__).where(SessionRow.id == model["id"])).one()._mapping
        )
        events = [
            dict(row._mapping)
            for row in db.execute(select(EventRow.__table__).where(EventRow.session_id == model["id"]))
        ]
        sessions, happened = [], []
        for number in range(past):
            name, then = f"r-past{number:08}", now - timedelta(days=2 + number % 360)
            times = {"created": then, "ready": then, "last_activity": then, "ended": then}
            sessions.append(
                {**ended, **times, "id": name, "user": f"u{number % 1000}", "file_id": f"f{number}"}
            )
            happened += [{**e, "number": None, "session_id": name, "at": then} for e in events]
        db.execute(insert(SessionRow.__table__), sessions)  # type: ignore[arg-type]
        db.execute(insert(EventRow.__table__), happened)  # type: ignore[arg-type]
        live = [f"r-live{number:08}" for number in range(LIVE)]
        alive = {**ended, "state": State.READY, "ended": None, "reason_code": None, "used_seconds": None}
        db.execute(
            insert(SessionRow.__table__),  # type: ignore[arg-type]
            [{**alive, "id": name, "file_id": f"live-{name}"} for name in live],
        )
    for name in live:
        here.backend.put(name, file_id=f"live-{name}")
    return live


class Effort:
    """What is asked of a database: statements, sessions that were read, and steps of SQLite's own machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements = self.sessions = self.steps = 0
        from quota import sql

        real = sql._session

        def counted(row: Any) -> Any:
            self.sessions += 1
            return real(row)

        monkeypatch.setattr(sql, "_session", counted)

    def watch(self, engine: Engine) -> None:
        def asked(*_: object) -> None:
            self.statements += 1

        def step() -> int:
            self.steps += STEPS_AT_ONCE
            return 0

        def taken(connection: sqlite3.Connection, *_: object) -> None:
            connection.set_progress_handler(step, STEPS_AT_ONCE)

        event.listen(engine, "before_cursor_execute", asked)
        event.listen(engine, "checkout", taken)


async def restart(folder: Path, past: int, monkeypatch: pytest.MonkeyPatch) -> Effort:
    """Fill a record, and return what the next control asks of it until its live runtimes are followed and were looked at."""
    async with world(folder) as here:
        live = await fill(here, past)
        await here.control.orchestrator.close()
        effort = Effort(monkeypatch)
        parts = make_control(here.service, FileBackend(folder / "fake-runtimes"))
        effort.watch(parts.sessions.ledger._engine)  # type: ignore[attr-defined]
        await parts.orchestrator.recover()
        assert set(live) <= parts.orchestrator._carried.keys()
        await parts.orchestrator.ends.look()
        await parts.orchestrator.reconcile()
        await parts.orchestrator.close()
        await parts.files.close()
        return effort


async def test_a_restart_reads_what_lives_and_not_what_ever_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        few = await restart(tmp_path / "few", FEW, patched)
    with monkeypatch.context() as patched:
        many = await restart(tmp_path / "many", MANY, patched)
    assert many.sessions <= few.sessions + LIVE  # one look more, when the clock has it so
    assert many.statements <= few.statements + 3 * LIVE
    assert few.steps > 0
    assert many.steps < 2 * few.steps, "some question goes through the whole record"


async def test_control_with_ten_thousand_past_sessions_answers_and_stays_small(tmp_path: Path) -> None:
    async with world(tmp_path / "state", control=False) as here:
        async with control_process(here):
            live = await fill(here, MANY)
        async with control_process(here) as control:
            status, listed = await here.call("ada", "GET", "runtimes?limit=200")
            assert status == 200
            assert {item["id"] for item in listed["items"]} == set(live)
            here.backend.crash(live[0])
            await until_async(lambda: here.control.sessions.ledger.get(live[0]).state == "ended")  # type: ignore[union-attr]
            peak = int(
                next(
                    line.split()[1]
                    for line in Path(f"/proc/{control.pid}/status").read_text().splitlines()
                    if line.startswith("VmHWM")
                )
            )
        assert peak * 1024 < MOST_MEMORY
