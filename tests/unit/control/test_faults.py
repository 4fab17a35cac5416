"""Faults around a control service in a process of its own: its database, its disk, its clock, its place (R1, F4 to F7, F16, F18)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from control_support import World, world

from hub.installation import free_port
from hub.settings import save_service
from quota.clock import SystemClock
from support.patience import PATIENCE

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
HEALTH = "/services/control/healthz"
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "state", control=False) as it:
        yield it


def database(here: World) -> Path:
    return here.service.state / "databases" / "control.sqlite"


async def begin(here: World, *, wrap: Sequence[str] = (), **env: str) -> asyncio.subprocess.Process:
    """Start control in a process of its own."""
    return await asyncio.create_subprocess_exec(
        *wrap,
        sys.executable,
        str(HERE / "run_control.py"),
        "--state",
        str(here.service.state),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}:{ROOT / 'tests'}", **env},
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def answering(here: World, **how: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run control until it answers; it is killed afterwards."""
    process = await begin(here, **how)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert (await here.call(None, "GET", HEALTH))[0] == 200
                    break
                except aiohttp.ClientError:
                    assert process.returncode is None, "control ended"
                    await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refusal(here: World, **how: Any) -> tuple[int | None, str]:
    """Return the exit status of a start that fails, and the sentence it leaves."""
    process = await begin(here, **how)
    try:
        async with asyncio.timeout(PATIENCE):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = said.decode()
    assert "Traceback" not in text
    return process.returncode, text.strip().splitlines()[-1]


# -- the database at the start --------------------------------------------------------------------------------


async def test_a_database_that_is_held_is_tried_again_later(outside: World) -> None:
    with closing(sqlite3.connect(database(outside), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        status, sentence = await refusal(outside)
    assert status == 75
    assert "held by another program" in sentence


async def test_a_damaged_database_is_refused_and_not_made_anew(outside: World) -> None:
    path = database(outside)
    outside.control.sessions.ledger.live()
    path.write_bytes(b"no database at all\n" * 500)
    for side in ("-wal", "-shm"):
        path.with_name(path.name + side).unlink(missing_ok=True)
    before = path.read_bytes()
    status, sentence = await refusal(outside)
    assert status == 74
    assert f"{path} is damaged" in sentence
    assert path.read_bytes() == before


async def test_a_database_of_a_newer_program_is_refused_before_anything_is_written(outside: World) -> None:
    path = database(outside)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'fff1'")
        connection.commit()
    before = rows(path)
    status, sentence = await refusal(outside)
    assert status == 78
    assert "is from version fff1" in sentence and "There is no downgrade" in sentence
    assert rows(path) == before


def rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


# -- a disk that is full --------------------------------------------------------------------------------------


def on_a_small_disk(here: World, kilobytes: int) -> list[str]:
    """Return words before a command that give it a disk of its own for its databases. Skip where that can not be."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "true"],
            check=False,
            stderr=subprocess.DEVNULL,
        ).returncode
    ):
        pytest.skip("no mount namespace of one's own on this machine")
    folder = database(here).parent
    script = (
        f"cp -a {folder} {folder}.kept && mount -t tmpfs -o size={kilobytes}k small {folder} "
        f"&& cp -a {folder}.kept/. {folder}/ && rm -f {folder}/fill; "
        f'[ -z "$FILL" ] || head -c 100M /dev/zero > {folder}/fill 2>/dev/null; exec "$@"'
    )
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


async def test_a_start_on_a_full_disk_says_so(outside: World) -> None:
    status, sentence = await refusal(outside, wrap=on_a_small_disk(outside, 2048), FILL="1")
    assert status == 74
    assert re.search(r"disk.* full|full.*disk", sentence)


async def test_a_disk_that_becomes_full_refuses_changes_and_answers_questions_and_recovers_alone(
    outside: World,
) -> None:
    here = outside
    async with answering(here, wrap=on_a_small_disk(here, 4096)) as control:
        status, model = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
        assert status == 202, model
        fill = Path(f"/proc/{control.pid}/root{database(here).parent}/fill")
        with pytest.raises(OSError), fill.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        refused = await until_full(here)
        assert refused["code"] == "disk_full"
        assert refused["message"] == "The service's disk is full; nothing was changed."
        status, listed = await here.call("ada", "GET", "runtimes")
        assert status == 200
        assert [item["file_id"] for item in listed["items"]] == ["nb-ada"]
        assert (await here.call(None, "GET", HEALTH))[0] == 200
        fill.unlink()
        status, model = await here.call("ada", "POST", "runtimes", {"file_id": "nb-three"})
        assert status == 202, model
        assert control.returncode is None


async def until_full(here: World) -> dict[str, Any]:
    """Ask for changes until one is refused: what was set aside in the file may hold one or two more."""
    for file_id in ("nb-two", "nb-three"):
        status, answer = await here.call("ada", "POST", "runtimes", {"file_id": file_id})
        if status == 507:
            return dict(answer)
        assert status == 202, answer
        await here.call("ada", "DELETE", f"runtimes/{answer['id']}")
    raise AssertionError("everything was written on a full disk")


# -- a clock that is set --------------------------------------------------------------------------------------


@pytest.mark.skipif(not FAKETIME, reason="Debian's package faketime is not installed")
@pytest.mark.parametrize("hours", [13, -13])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/St_Johns"])
async def test_a_clock_that_is_set_by_hours_ends_nothing_and_moves_no_limit(
    outside: World, tmp_path: Path, hours: int, zone: str
) -> None:
    here, step = outside, tmp_path / "step"
    step.write_text("+0h\n")
    faked = {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(step),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "TZ": zone,
    }
    async with answering(here, **faked) as control:
        status, model = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
        assert status == 202, model
        before = await ready(here, model["id"])
        carried = here.backend._read(model["id"])
        step.write_text(f"{hours:+d}h\n")
        told = await date_of(here)
        assert abs(told - SystemClock().now() - timedelta(hours=hours)) < timedelta(minutes=5)
        # Several looks at every runtime.
        for _ in range(3):
            here.backend.change(model["id"], used=SystemClock().boottime())
            await asyncio.sleep(1.0)
        after = await ready(here, model["id"])
        assert after["state"] == "ready"
        assert here.backend._read(model["id"]).get("limits") == carried.get("limits")
        session = here.control.sessions.ledger.get(model["id"])
        assert session is not None and session.ended is None
        assert control.returncode is None
        # What a person reads moves with the clock they read it on: the end is as far away as it was.
        left = [
            datetime.fromisoformat(seen["deadline"]) - at
            for seen, at in ((before, SystemClock().now()), (after, await date_of(here)))
        ]
        assert abs(left[0] - left[1]) < timedelta(minutes=5)


async def ready(here: World, runtime_id: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            status, model = await here.call("ada", "GET", f"runtimes/{runtime_id}")
            assert status == 200
            if model["state"] == "ready":
                return dict(model)
            assert model["state"] in ("queued", "starting"), model
            await asyncio.sleep(0.05)


async def date_of(here: World) -> datetime:
    """Return the time control believes it is."""
    url = f"http://127.0.0.1:{here.service.ports.control}{HEALTH}"
    async with here.http.get(url) as reply:
        return datetime.strptime(reply.headers["Date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)


# -- one acts at a time ---------------------------------------------------------------------------------------


async def test_while_control_is_paused_nobody_takes_its_place_by_mistake(outside: World) -> None:
    async with answering(outside) as first:
        first.send_signal(signal.SIGSTOP)
        status, sentence = await refusal(outside)
        assert status == 75
        assert f"process {first.pid}" in sentence
        first.send_signal(signal.SIGCONT)
        assert (await outside.call(None, "GET", HEALTH))[0] == 200


async def test_one_whose_place_was_taken_while_it_was_paused_changes_nothing_and_ends(outside: World) -> None:
    """The lock is lost as on a file system that forgets locks; a second one acts; the first wakes."""
    here = outside
    async with answering(here) as first:
        status, model = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
        assert status == 202, model
        await ready(here, model["id"])
        pause_between_writes(here, first)
        (here.service.state / "run" / "control.lock").unlink()
        elsewhere = replace(here.service, ports=replace(here.service.ports, control=free_port()))
        save_service(elsewhere)
        moved = replace(here, service=elsewhere)
        async with answering(moved) as second:
            reply, other = await moved.call("ada", "POST", "runtimes", {"file_id": "nb-two"})
            assert reply == 202, other
            await ready(moved, other["id"])
            known = dump(here)
            first.send_signal(signal.SIGCONT)
            with contextlib.suppress(
                aiohttp.ClientError
            ):  # it may have noticed, and ended, before it is asked
                status, answer = await here.call("ada", "POST", "runtimes", {"file_id": "nb-three"})
                assert (status, answer["code"]) == (503, "not_in_charge")
            async with asyncio.timeout(PATIENCE):
                assert await first.wait() == 75
            assert dump(here) == known
            assert second.returncode is None
            assert {(await ready(moved, m["id"]))["id"] for m in (model, other)} == {model["id"], other["id"]}


def pause_between_writes(here: World, control: asyncio.subprocess.Process) -> None:
    """Stop a control while it does not hold the database; one that is stopped in a write keeps everybody else from it."""
    for _ in range(1000):
        control.send_signal(signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(database(here), timeout=0.05)) as held:
                held.execute("BEGIN IMMEDIATE")
                held.rollback()
            return
        except sqlite3.OperationalError:
            control.send_signal(signal.SIGCONT)
    raise AssertionError("control never let go of its database")


def dump(here: World) -> list[tuple[str, str]]:
    return sorted((session.id, str(session.state)) for session in here.control.sessions.ledger.live())
