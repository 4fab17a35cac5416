"""A newer control comes, and the older one comes back, while runtimes live (F34)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from control_support import World, world
from test_faults import database, refusal, rows
from test_recovery import control_process, row, start

from support.patience import PATIENCE, until_async
from support.service import run_command

NEXT = "run_next_control.py"


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "state", control=False) as it:
        yield it


def moods(here: World) -> dict[str, str]:
    with closing(sqlite3.connect(database(here))) as connection:
        return dict(connection.execute("SELECT id, mood FROM quota_sessions"))


async def test_a_runtime_lives_through_an_upgrade_and_a_rollback_is_refused_until_the_copy_is_put_back(
    outside: World,
) -> None:
    here = outside
    async with control_process(here):
        early = await start(here, "nb-ada")
        await until_async(lambda: row(here, early).state == "ready")
    before = rows(database(here))
    async with control_process(here, NEXT):
        status, model = await here.call("ada", "GET", f"runtimes/{early}")
        assert (status, model["state"]) == (200, "ready")
        late = await start(here, "nb-two")
        await until_async(lambda: row(here, late).state == "ready")
        assert moods(here) == {early: "cheerful", late: None}
    copy = next(database(here).parent.glob("control.sqlite.revision-*"))
    assert rows(copy) == before

    # The older one again: refused before anything is written, and the runtimes are left alone.
    upgraded = rows(database(here))
    status, sentence = await refusal(here)
    assert status == 78
    assert "There is no downgrade" in sentence and "minicolab db restore" in sentence
    assert rows(database(here)) == upgraded
    assert {o.id for o in await here.backend.list_all()} == {early, late}

    # What the sentence says: then the older one acts, and has the runtime that it knew.
    await asyncio.to_thread(run_command, "db", "restore", str(copy), "--state", str(here.service.state))
    assert rows(database(here)) == before
    async with control_process(here):
        status, model = await here.call("ada", "GET", f"runtimes/{early}")
        assert (status, model["state"]) == (200, "ready")
        async with asyncio.timeout(PATIENCE):
            while {o.id for o in await here.backend.list_all()} != {early}:
                await asyncio.sleep(0.02)
        status, listed = await here.call("ada", "GET", "runtimes")
        assert [item["id"] for item in listed["items"]] == [early], "what the older one never knew has ended"
