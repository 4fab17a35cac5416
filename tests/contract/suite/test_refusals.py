"""Starts that must not succeed: names that are taken or none, no image, no room. Each says which, and leaves nothing."""

from __future__ import annotations

import asyncio

import pytest

from spawner.model import Phase
from spawner.ports import BackendError
from tests.contract.suite.harness import STOPPED, Bench


async def test_a_name_that_is_taken_is_refused_and_its_holder_not_disturbed(bench: Bench) -> None:
    runtime = await bench.start()
    for backend in (bench.backend, bench.another()):
        with pytest.raises(BackendError) as refused:
            await backend.start(runtime.spec, lambda phase, sentence="": None)
        assert refused.value.code == "already_exists"
    assert await runtime.run("print('here')") == "here\n"


async def test_two_starts_of_one_name_at_once_give_one_runtime(bench: Bench) -> None:
    spec = bench.spec()
    tries = await asyncio.gather(bench.start_spec(spec), bench.start_spec(spec), return_exceptions=True)
    refused = [error for error in tries if isinstance(error, BaseException)]
    assert [getattr(error, "code", error) for error in refused] == ["already_exists"]
    [runtime] = [found for found in tries if not isinstance(found, BaseException)]
    assert await runtime.run("print('one')") == "one\n"


async def test_a_name_that_is_no_name_is_refused_and_means_nothing(bench: Bench) -> None:
    for name in ("../r-x", ".ended", "", "r/x", "R-UPPER", "x" * 80):
        with pytest.raises(BackendError) as refused:
            await bench.backend.start(bench.spec(id=name), lambda phase, sentence="": None)
        assert refused.value.code == "bad_id"
        assert await bench.backend.observe(name) is None
        await bench.backend.stop(name, reason=STOPPED, grace_seconds=0)
        assert (await bench.backend.wait_end(name)).code == "lost"


async def test_an_image_that_does_not_exist_is_said_and_leaves_nothing(bench: Bench) -> None:
    backend, spec = bench.without_image(), bench.spec()
    with pytest.raises(BackendError) as refused:
        await backend.start(spec, lambda phase, sentence="": None)
    assert refused.value.code == "image_unavailable"
    assert not bench.lives(spec.id)
    assert bench.leftovers() == []


async def test_what_the_machine_does_not_have_is_said_and_leaves_nothing(bench: Bench) -> None:
    backend, wanted = bench.without_room()
    spec, told = bench.spec(**wanted), []
    with pytest.raises(BackendError) as refused:
        await backend.start(spec, lambda phase, sentence="": told.append(phase))
    assert refused.value.code == "no_capacity"
    assert Phase.READY not in told
    assert not bench.lives(spec.id)
    assert bench.leftovers() == []
