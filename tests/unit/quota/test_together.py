"""Changes that come at once are one transaction, and each caller gets its own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from quota.clock import FakeClock
from quota.memory import MemoryLedger
from quota.model import Limits, Reason, State
from quota.ports import Fenced, Ledger, NoSession
from quota.service import Request, Sessions
from quota.sql import SqlLedger, create_engine
from quota.together import MOST, Together

LIMITS = Limits(
    max_lifetime_seconds=60, idle_limit_seconds=60, warn_before_seconds=(), max_runtimes=10 * MOST
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/control.sqlite")
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "memory"])
def ledger(request: pytest.FixtureRequest, engine: Engine) -> Ledger:
    return MemoryLedger() if request.param == "memory" else SqlLedger(engine)


def some(ledger: Ledger, count: int) -> tuple[Sessions, list[str]]:
    sessions = Sessions(ledger, FakeClock(), "boot")
    ids = []
    for number in range(count):
        request = Request("ada", f"f{number}", "a.ipynb", "NONE", "STANDARD", "local", None)
        ids.append(sessions.begin(request, LIMITS)[0].id)
    return sessions, ids


def commits(engine: Engine) -> list[int]:
    counted: list[int] = []
    event.listen(engine, "commit", lambda _: counted.append(1))
    return counted


async def test_what_comes_at_once_waits_for_the_disk_once(engine: Engine) -> None:
    ledger = SqlLedger(engine)
    sessions, ids = some(ledger, MOST + 10)
    together, counted = Together(ledger), commits(engine)
    ended = await asyncio.gather(
        *(together.write(lambda i=i: sessions.end(i, Reason("idle", f"{i} was idle."))) for i in ids)
    )
    assert len(counted) == 2, "as many as fit, then the rest"
    assert [(s.id, s.state) for s in ended] == [(i, State.ENDED) for i in ids]
    assert {i: ledger.get(i).reason.message for i in ids} == {i: f"{i} was idle." for i in ids}  # type: ignore[union-attr]


async def test_one_that_can_not_be_takes_none_with_it(ledger: Ledger) -> None:
    sessions, (one, other) = some(ledger, 2)
    together = Together(ledger)
    answers = await asyncio.gather(
        together.write(lambda: sessions.end(one, Reason("idle", "Idle."))),
        together.write(lambda: sessions.end("r-nobody", Reason("idle", "Idle."))),
        together.write(lambda: sessions.end(other, Reason("idle", "Idle."))),
        return_exceptions=True,
    )
    assert isinstance(answers[1], NoSession)
    for session in (one, other):
        assert [name for name, _, _ in ledger.events(session)] == ["created", "ended"]


async def test_later_changes_see_earlier_ones(ledger: Ledger) -> None:
    sessions, (one,) = some(ledger, 1)
    together = Together(ledger)

    def end() -> bool:
        known = ledger.get(one)
        assert known is not None
        sessions.end(one, Reason("idle", "Idle."))
        return known.state is State.STARTING

    assert await asyncio.gather(together.write(end), together.write(end)) == [True, False]
    assert ledger.live() == []


async def test_who_gives_up_before_its_turn_has_changed_nothing(ledger: Ledger) -> None:
    sessions, (one, other) = some(ledger, 2)
    together = Together(ledger)
    given_up = asyncio.create_task(together.write(lambda: sessions.end(one, Reason("idle", "Idle."))))
    kept = asyncio.create_task(together.write(lambda: sessions.end(other, Reason("idle", "Idle."))))
    asyncio.get_running_loop().call_soon(given_up.cancel)
    await asyncio.sleep(0)  # both have asked; neither had its turn
    given_up.cancel()
    assert (await kept).state is State.ENDED
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert [session.id for session in ledger.live()] == [one]


async def test_one_that_was_replaced_tells_everybody(ledger: Ledger, engine: Engine) -> None:
    sessions, ids = some(ledger, 3)
    ledger.take_over("first", NOW)
    (SqlLedger(engine) if isinstance(ledger, SqlLedger) else MemoryLedger(ledger)).take_over("next", NOW)  # type: ignore[arg-type]
    together = Together(ledger)
    answers = await asyncio.gather(
        *(together.write(lambda i=i: sessions.end(i, Reason("idle", "Idle."))) for i in ids),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Fenced] * 3
    assert len(ledger.live()) == 3


async def test_a_ledger_that_can_not_be_had_is_waited_for_once() -> None:
    asked = 0

    class Held(MemoryLedger):
        @contextmanager
        def together(self) -> Iterator[None]:
            nonlocal asked
            asked += 1
            raise TimeoutError("held by somebody")
            yield

    done: list[int] = []
    together = Together(Held())
    answers = await asyncio.gather(
        *(together.write(lambda: done.append(1)) for _ in range(3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [TimeoutError] * 3
    assert (asked, done) == (1, [])


def test_what_is_written_together_is_all_there_or_nothing_is(ledger: Ledger) -> None:
    sessions, (one, other) = some(ledger, 2)
    with pytest.raises(ZeroDivisionError), ledger.together():
        sessions.end(one, Reason("idle", "Idle."))
        sessions.end(other, Reason("idle", "Idle."))
        assert ledger.live() == []
        raise ZeroDivisionError
    assert {session.id for session in ledger.live()} == {one, other}
    assert [name for name, _, _ in ledger.events(one)] == ["created"]


def test_another_thread_sees_only_what_is_whole(engine: Engine) -> None:
    ledger = SqlLedger(engine)
    sessions, (one,) = some(ledger, 1)
    seen: list[bool] = []
    with ledger.together():
        sessions.end(one, Reason("idle", "Idle."))
        thread = threading.Thread(target=lambda: seen.append(bool(ledger.live())))
        thread.start()
        thread.join()
    assert seen == [True]
    assert ledger.live() == []
