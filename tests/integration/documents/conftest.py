"""A documents service in this process, and an installation whose service is started by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tornado.testing import bind_unused_port

from hub.documents import api
from hub.documents.app import make_server, start
from hub.installation import free_port
from hub.settings import save_service
from hub.wiring import make_drive
from quota.clock import SystemClock
from support.documents import Running, make_service, stand_in_hub


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    hub, hub_port = await stand_in_hub()
    socket, port = bind_unused_port()
    service = make_service(tmp_path, port, hub_port)
    (tmp_path / "databases").mkdir()
    drive = make_drive(service)
    documents = await start(service, drive, SystemClock(), api.routes())
    server = make_server(service, documents)
    server.add_sockets([socket])
    async with aiohttp.ClientSession() as http:
        yield Running(f"http://127.0.0.1:{port}", service, drive, documents, http, hub)
    server.stop()
    await documents.stop()
    await hub.cleanup()


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Running]:
    """An installation whose documents service is started by the test."""
    hub, hub_port = await stand_in_hub()
    port = free_port()
    service = make_service(tmp_path, port, hub_port)
    save_service(service)
    (tmp_path / "databases").mkdir()
    async with aiohttp.ClientSession() as http:
        yield Running(f"http://127.0.0.1:{port}", service, make_drive(service), None, http, hub)  # type: ignore[arg-type]
    await hub.cleanup()
