"""Fixtures of the tests on a real Docker engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.docker_engine import Engine
from tests.docker.docker_support import Bench, make_bench


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
