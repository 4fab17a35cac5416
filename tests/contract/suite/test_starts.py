"""How a runtime starts, and what is left of one that does not."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import requests

from spawner.model import Phase
from spawner.ports import BackendError
from support.patience import PATIENCE
from tests.contract.suite.harness import STOPPED, Bench


async def test_a_started_runtime_answers_runs_code_and_says_how_far_it_came(bench: Bench) -> None:
    spec, told = bench.spec(), []
    bench.adopt(spec)
    endpoint = await bench.backend.start(spec, lambda phase, sentence="": told.append(phase))
    assert told == sorted(told, key=list(Phase).index)
    assert {Phase.SERVER, Phase.READY} <= set(told)
    observed = await bench.backend.observe(spec.id)
    assert observed is not None
    assert (observed.id, observed.user, observed.file_id) == (spec.id, "ada", "f-1")
    assert (observed.state, observed.endpoint) == ("ready", endpoint)
    assert observed.ready_boottime is not None
    assert bench.lives(spec.id)


async def test_two_starts_at_once_give_two_runtimes(bench: Bench) -> None:
    one, other = await asyncio.gather(bench.start("ada"), bench.start("bob"))
    assert one.endpoint != other.endpoint
    found = await bench.backend.list_all()
    assert {(o.id, o.user) for o in found} == {(one.id, "ada"), (other.id, "bob")}
    assert await asyncio.gather(one.run("print(1)"), other.run("print(2)")) == ["1\n", "2\n"]


async def test_it_answers_to_its_own_tickets_only(bench: Bench) -> None:
    one, other = await asyncio.gather(bench.start(), bench.start())
    for token in ("", other.ticket(), one.ticket()[:-2]):
        headers = {"Authorization": f"token {token}"} if token else {}
        reply = await asyncio.to_thread(
            requests.get, one.url + "api/kernels", headers=headers, timeout=PATIENCE
        )
        assert reply.status_code in (401, 403)


async def test_a_start_that_fails_says_why_and_leaves_nothing(bench: Bench) -> None:
    spec = bench.spec(base_url="not-a-url")
    with pytest.raises(BackendError) as failed:
        await bench.backend.start(spec, lambda phase, sentence="": None)
    assert failed.value.code == "start_failed"
    assert "must start with '/'" in str(failed.value)
    assert not bench.lives(spec.id)
    assert bench.leftovers() == []


async def test_a_start_that_is_given_up_leaves_nothing_whenever_that_is(bench: Bench) -> None:
    for phase, seconds in ((None, 0.0), (None, 0.001), (None, 0.03), (Phase.SERVER, 0.0)):
        spec, begun = bench.spec(), asyncio.Event()

        def told(
            now: Phase, _sentence: str = "", *, awaited: Phase | None = phase, begun: asyncio.Event = begun
        ) -> None:
            if awaited in (None, now):
                begun.set()

        start = asyncio.create_task(bench.backend.start(spec, told))
        await begun.wait()
        await asyncio.sleep(seconds)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert not bench.lives(spec.id)
        assert bench.leftovers() == []


async def test_a_runtime_can_be_stopped_by_another_while_it_is_starting(bench: Bench) -> None:
    spec, begun = bench.spec(), asyncio.Event()
    start = asyncio.create_task(
        bench.backend.start(spec, lambda phase, sentence="": begun.set() if phase is Phase.SERVER else None)
    )
    await begun.wait()
    await bench.another().stop(spec.id, reason=STOPPED, grace_seconds=1)
    with contextlib.suppress(BackendError):  # unless it was ready just before it was stopped
        await start
    assert not bench.lives(spec.id)
    assert bench.leftovers() == []
