"""Fixtures of the tests on a real Docker engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support import docker_engine
from support.docker_engine import Engine
from tests.docker.docker_support import Bench, make_bench


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine of the tests' own, with the images that the tests need."""
    if why_not := docker_engine.missing():
        pytest.skip(why_not)
    with docker_engine.engine() as engine:
        docker_engine.build_image(engine, "minimal")
        yield engine


@pytest.fixture
async def bench(tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    """A backend whose runtimes are root of their containers."""
    async with make_bench(tmp_path, engine) as bench:
        yield bench


@pytest.fixture
async def plain(tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    """A backend whose runtimes are uid 1000, without capabilities."""
    async with make_bench(tmp_path, engine, root=False) as bench:
        yield bench


@pytest.fixture(params=[True, False], ids=["root", "user"])
async def either(request: pytest.FixtureRequest, tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    """Both of them, one after the other."""
    async with make_bench(tmp_path, engine, root=request.param) as bench:
        yield bench
