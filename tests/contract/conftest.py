"""Fixtures of the contract tests: a real runtime environment, and a backend on each rung of the sandbox ladder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.setup.runtime_environment import environment_for, install
from spawner.environment import RuntimeEnvironment
from tests.contract.contract_support import RUNGS, Bench, make_bench


@pytest.fixture(scope="session")
def env() -> RuntimeEnvironment:
    """The small runtime environment, installed when it is not there yet (about a minute)."""
    install("minimal")
    _, environment = environment_for("minimal")
    return environment


@pytest.fixture(params=RUNGS)
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, env: RuntimeEnvironment
) -> AsyncIterator[Bench]:
    """A backend on one rung, in a folder of its own; whatever a test leaves is ended and must leave nothing."""
    async with make_bench(tmp_path, env, request.param) as bench:
        yield bench


@pytest.fixture(params=("namespaces", "bubblewrap"))
async def isolated(
    request: pytest.FixtureRequest, tmp_path: Path, env: RuntimeEnvironment
) -> AsyncIterator[Bench]:
    """The same, on the rungs that keep users apart."""
    async with make_bench(tmp_path, env, request.param) as bench:
        yield bench
