"""Server-sent events of runtimes, and what control announces and ends by looking."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from control_support import World, world

from hub.control.ends import OVERDUE_GRACE_SECONDS
from hub.control.events import KEPT, Channel, Channels
from quota import policy
from quota.model import State
from spawner.model import Activity
from support.patience import PATIENCE, until_async


async def test_the_first_event_is_the_state_as_it_is(here: World) -> None:
    ready = await here.ready()
    async for fields, model in here.events("ada", ready["id"]):
        assert (fields["event"], model["state"]) == ("ready", "ready")
        break
    await here.call("ada", "DELETE", f"runtimes/{ready['id']}")
    seen = [(f["event"], m["reason"]["code"]) async for f, m in here.events("ada", ready["id"])]
    assert seen == [("ended", "user_deleted")]


async def test_phases_come_in_order_and_the_stream_ends_with_the_runtime(here: World) -> None:
    here.hub.gate.clear()
    _, made = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
    seen: list[str] = []
    ids: list[str] = []

    async def follow() -> None:
        async for fields, model in here.events("ada", made["id"]):
            seen.append(f"{fields['event']}:{model['phase']}")
            ids.append(fields["id"])
            if fields["event"] == "ready":
                here.backend.crash(made["id"])

    async with asyncio.timeout(PATIENCE):
        following = asyncio.create_task(follow())
        await here.hub.asked.wait()
        here.hub.gate.set()
        await following
    assert seen[-2:] == ["ready:ready", "ended:ready"]
    assert "phase:sandbox" in seen
    assert len(set(ids)) == len(ids)


async def test_who_comes_back_gets_what_was_missed_and_a_stranger_id_the_state_as_it_is(here: World) -> None:
    ready = await here.ready()
    runtime = ready["id"]
    async for fields, _ in here.events("ada", runtime):
        last = fields["id"]
        break
    session = here.control.sessions.ledger.get(runtime)
    assert session is not None
    for left in (600, 300):
        await here.control.orchestrator._publish("warning", session, ends="idle", seconds_left=left)

    async def first(last_id: str, count: int) -> list[tuple[str, object]]:
        found: list[tuple[str, object]] = []
        async for fields, model in here.events("ada", runtime, last_id):
            found.append((fields["event"], model.get("seconds_left")))
            if len(found) == count:
                break
        return found

    assert await first(last, 2) == [("warning", 600), ("warning", 300)]
    epoch = int(last.split("-")[0])
    for strange in ("", "7", f"{epoch - 1}-1", f"{epoch}-99", f"{epoch}-x", "x" * 5000, f"{epoch}-\u0663"):
        assert (await first(strange.encode("ascii", "ignore").decode(), 1))[0][0] == "ready", strange[:20]


async def test_a_listener_that_was_away_too_long_starts_from_the_state() -> None:
    channel = Channel(3)
    for n in range(KEPT + 5):
        await channel.publish("phase", {"n": n})
    assert channel.number_of("3-4") is None
    assert channel.number_of("3-5") == 5
    assert channel.number_of(f"3-{KEPT + 5}") == KEPT + 5
    assert channel.number_of("2-5") is None
    assert len(await channel.after(5, 0.01)) == KEPT


async def test_channels_of_ended_runtimes_are_forgotten(here: World) -> None:
    ready = await here.ready()
    await here.call("ada", "DELETE", f"runtimes/{ready['id']}")
    [_ async for _ in here.events("ada", ready["id"])]
    assert len(here.control.orchestrator._channels) == 0
    assert len(Channels(1)) == 0


def used_seconds_ago(here: World, runtime_id: str, seconds: float, **more: object) -> None:
    here.backend.change(runtime_id, used=time.clock_gettime(time.CLOCK_BOOTTIME) - seconds, **more)


async def test_an_end_that_comes_near_is_announced_once_and_anew_after_use(here: World) -> None:
    ready = await here.ready()
    runtime = ready["id"]
    told: list[tuple[str, int]] = []
    listening = asyncio.Event()

    async def follow() -> None:
        async for fields, model in here.events("ada", runtime):
            listening.set()
            if fields["event"] == "warning":
                told.append((model["ends"], model["seconds_left"]))
            elif fields["event"] == "ended":
                return

    following = asyncio.create_task(follow())
    await listening.wait()
    # the machine is older than the session, as the boot clock sees it
    ledger, moment = here.control.sessions.ledger, here.control.sessions.moment()
    ledger.note(
        runtime, {"ready_boottime": moment.boottime - 6000, "active_boottime": moment.boottime - 6000}
    )
    look = here.control.orchestrator.ends.look
    used_seconds_ago(here, runtime, 81 * 60)
    await look()
    await look()
    used_seconds_ago(here, runtime, 86 * 60)
    await look()  # evidence never goes backwards: nothing new
    status, kept = await here.call("ada", "POST", f"runtimes/{runtime}/keep", {})
    assert status == 200
    await look()
    ledger.note(runtime, {"active_boottime": moment.boottime - 82 * 60})
    used_seconds_ago(here, runtime, 82 * 60)
    await look()
    await here.call("ada", "DELETE", f"runtimes/{runtime}")
    await following
    assert [ends for ends, _ in told] == ["idle", "idle"]
    assert told[0][1] == pytest.approx(9 * 60, abs=5)
    assert told[1][1] == pytest.approx(8 * 60, abs=5)
    assert kept["idle_deadline"] > ready["idle_deadline"]


async def test_a_supervisor_that_does_not_end_its_runtime_is_helped(tmp_path: Path) -> None:
    async with world(tmp_path / "state", quota={"idle_limit": "90m", "max_lifetime": "12h"}) as here:
        idle, old, silent = [(await here.ready("ada", f))["id"] for f in ("nb-ada", "nb-two", "nb-three")]
        ledger, boot = here.control.sessions.ledger, here.control.sessions.moment().boottime
        long_ago = boot - 6000
        for runtime in (idle, silent):
            ledger.note(runtime, {"ready_boottime": long_ago, "active_boottime": long_ago})
        used_seconds_ago(here, idle, 90 * 60 + OVERDUE_GRACE_SECONDS + 1)
        used_seconds_ago(here, silent, 6000, silent=True)
        ledger.note(old, {"ready_boottime": boot - 12 * 3600 - OVERDUE_GRACE_SECONDS - 1})
        await here.control.orchestrator.ends.look()
        assert (await here.until("ada", idle, lambda m: m["state"] == "ended"))["reason"] == {
            "code": "idle",
            "message": "Idle for 90 minutes (limit 90 minutes).",
        }
        assert (await here.until("ada", old, lambda m: m["state"] == "ended"))["reason"][
            "code"
        ] == "max_lifetime"
        # nobody could look at this one, so nobody can say that it was not used
        assert (await here.call("ada", "GET", f"runtimes/{silent}"))[1]["state"] == "ready"


async def test_who_came_back_since_control_looked_last_is_not_ended(here: World) -> None:
    runtime = (await here.ready())["id"]
    ledger, boot = here.control.sessions.ledger, here.control.sessions.moment().boottime
    ledger.note(runtime, {"ready_boottime": boot - 6000, "active_boottime": boot - 6000})
    used_seconds_ago(here, runtime, 0.5)
    await here.control.orchestrator.ends.look()
    assert here.control.orchestrator._stops == {}
    session = ledger.get(runtime)
    assert session is not None and session.state is State.READY
    assert session.active_boottime == pytest.approx(boot, abs=PATIENCE)


@pytest.mark.parametrize("limit", ["max_lifetime", "idle_limit"])
async def test_what_is_overdue_is_ended_at_once_and_not_when_everybody_is_looked_at_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr("hub.control.ends.LOOK_SECONDS", 10 * PATIENCE)
    async with world(tmp_path / "state", quota={limit: "2s"}) as here:
        runtime = (await here.ready())["id"]  # its machine has no supervisor: nothing but control ends it
        ended = await here.until("ada", runtime, lambda m: m["state"] == "ended")
        assert ended["reason"]["code"] == limit.removesuffix("_limit")


async def test_one_whose_use_can_not_be_told_is_not_asked_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.control.ends.LOOK_SECONDS", 10 * PATIENCE)
    async with world(tmp_path / "state", quota={"idle_limit": "2s"}) as here:
        asked: list[float] = []
        backend = here.control.orchestrator.backend
        real = backend.activity

        async def activity(runtime_id: str) -> Activity:
            asked.append(time.monotonic())
            return await real(runtime_id)

        monkeypatch.setattr(backend, "activity", activity)
        runtime = (await here.ready())["id"]
        here.backend.change(runtime, silent=True)
        ends = here.control.orchestrator.ends
        await until_async(lambda: runtime in ends._silent)
        session = here.control.sessions.ledger.get(runtime)
        assert session is not None
        await until_async(lambda: (policy.idle_left(session, here.control.sessions.moment()) or 0) < -1.5)
        before = len(asked)
        assert ends._due(here.control.sessions.moment()) == []
        await asyncio.sleep(1.0)  # that nothing happens can not be awaited
        assert len(asked) <= before + 1
        assert (await here.call("ada", "GET", f"runtimes/{runtime}"))[1]["state"] == "ready"


async def test_a_look_that_fails_does_not_end_the_looking(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.control.orchestrator.TICK_SECONDS", 0.01)
    calls = 0
    seen = asyncio.Event()

    async def failing() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            seen.set()
        raise OSError("a disk that is not there")

    monkeypatch.setattr(here.control.orchestrator, "reconcile", failing)
    tick = asyncio.create_task(here.control.orchestrator.tick_for_ever())
    async with asyncio.timeout(PATIENCE):
        await seen.wait()
    tick.cancel()


async def test_a_carrier_that_died_is_replaced_by_the_next_look(here: World) -> None:
    ready = await here.ready()
    task = here.control.orchestrator._carried[ready["id"]]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await here.control.orchestrator.reconcile()
    here.backend.crash(ready["id"])
    assert (await here.until("ada", ready["id"], lambda m: m["state"] == "ended"))["reason"][
        "code"
    ] == "crashed"


async def test_a_connection_that_broke_is_not_the_end_of_a_runtime(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spawner.model import EndReason

    real, asked = here.backend.wait_end, 0

    async def breaking(runtime_id: str) -> EndReason:
        nonlocal asked
        asked += 1
        return EndReason("lost", "The machine disappeared.") if asked < 3 else await real(runtime_id)

    monkeypatch.setattr(here.backend, "wait_end", breaking)
    monkeypatch.setattr(here.control.orchestrator.backend, "wait_end", breaking)
    ready = await here.ready()
    async with asyncio.timeout(PATIENCE):
        while asked < 3:
            await asyncio.sleep(0.01)
    assert (await here.call("ada", "GET", f"runtimes/{ready['id']}"))[1]["state"] == "ready"
