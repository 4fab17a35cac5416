"""Fixtures of the documents tests."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.documents.rooms.store import HistoryStore

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[HistoryStore]:
    store = HistoryStore(tmp_path / "rooms.sqlite")
    await store.open()
    yield store
    await store.close()
