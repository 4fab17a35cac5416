"""Fixtures of the control service's tests."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from control_support import World, world  # beside this file


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runtime environments of the test's own, so that the machine's are left alone."""
    monkeypatch.setenv("MINICOLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "state", quota={"max_runtimes": 2}) as it:
        yield it
