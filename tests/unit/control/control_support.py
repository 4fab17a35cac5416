"""The real control service among stand-ins: a backend whose runtimes are files, a small hub and a small documents service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from fake_hub import CONTROL_TOKEN, FakeHub, hub_app
from file_backend import FileBackend
from tornado.httpserver import HTTPServer

from hub.control.app import make_app, make_control
from hub.control.handlers import Control
from hub.installation import free_port
from hub.settings import Ports, Service, Settings, save_service
from hub.setup.runtime_environment import environment_for
from spawner.environment import Progress
from support.patience import PATIENCE

API = "/services/control/api/v1"


def make_service(state: Path, **settings: Any) -> Service:
    """Return an installation below `state`, its environment complete, and write it down for other processes."""
    port = free_port()
    service = Service(
        state=state,
        settings=Settings.model_validate(settings),
        ports=Ports(public=free_port(), proxy_api=free_port(), hub=port, documents=port, control=free_port()),
        documents_token="documents-token",
        control_token=CONTROL_TOKEN,
        proxy_token="proxy-token",
    )
    for name in ("run", "databases", "keys"):
        (state / name).mkdir(parents=True, exist_ok=True)
    save_service(service)
    environment = environment_for(service.settings.runtimes.environment)[1]
    environment.write_progress(Progress("installing", "half", 0.5, 1.0))
    environment.mark_pins_complete()
    environment.code.mkdir(parents=True, exist_ok=True)
    return service


@dataclass
class World:
    """A control service with its surroundings, and callers."""

    service: Service
    backend: FileBackend
    hub: FakeHub
    http: aiohttp.ClientSession
    control: Control
    hub_server: HTTPServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.ports.control}"

    async def call(
        self, user: str | None, method: str, path: str, body: Any = None, **kwargs: Any
    ) -> tuple[int, Any]:
        """Call as `user` (None: as nobody); return the status and the JSON."""
        headers = dict(kwargs.pop("headers", {}))
        if user is not None:
            headers["Authorization"] = f"Bearer {user}-token"
        if body is not None:
            kwargs["json"] = body
        async with self.http.request(
            method, self.url + (path if path.startswith("/") else f"{API}/{path}"), headers=headers, **kwargs
        ) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if "json" in reply.headers.get("Content-Type", "") else text

    async def ready(self, user: str = "ada", file_id: str = "nb-ada") -> dict[str, Any]:
        """Start a runtime and wait until it is ready."""
        status, model = await self.call(user, "POST", "runtimes", {"file_id": file_id})
        assert status in (200, 202), model
        return await self.until(user, model["id"], lambda m: m["state"] == "ready")

    async def until(
        self, user: str, runtime_id: str, wanted: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """Follow the runtime's events until one is wanted."""
        async with asyncio.timeout(PATIENCE):
            async for _, model in self.events(user, runtime_id):
                if wanted(model):
                    return model
        raise AssertionError("the events ended")

    async def events(
        self, user: str, runtime_id: str, last: str | None = None
    ) -> AsyncIterator[tuple[dict[str, str], dict[str, Any]]]:
        """Yield (id and event, data) of each server-sent event."""
        headers = {"Authorization": f"Bearer {user}-token", **({"Last-Event-ID": last} if last else {})}
        async with self.http.get(f"{self.url}{API}/runtimes/{runtime_id}/events", headers=headers) as reply:
            assert reply.status == 200
            fields: dict[str, str] = {}
            async for line in reply.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name in ("id", "event"):
                    fields[name] = value
                elif name == "data":
                    yield fields, json.loads(value)
                    fields = {}


@asynccontextmanager
async def world(state: Path, *, control: bool = True, **settings: Any) -> AsyncIterator[World]:
    """Run everything in this process. `control=False`: the control service is run by the test, in its own process."""
    service = make_service(state, **settings)
    backend = FileBackend(state / "fake-runtimes")
    hub = FakeHub(backend)
    hub.gate.set()
    hub_server = HTTPServer(hub_app(hub))
    hub_server.listen(service.ports.hub, "127.0.0.1")
    parts = make_control(service, backend)
    server = HTTPServer(app := make_app(parts))
    tick: asyncio.Task[None] | None = None
    if control:
        await parts.orchestrator.recover()
        server.listen(service.ports.control, "127.0.0.1")
        tick = asyncio.create_task(parts.orchestrator.tick_for_ever())
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as http:
        try:
            yield World(service, backend, hub, http, parts, hub_server)
        finally:
            if tick is not None:
                tick.cancel()
                with suppress(asyncio.CancelledError):
                    await tick
            server.stop()
            hub_server.stop()
            await parts.orchestrator.close()
            await parts.files.close()
            await app.settings["identity"].close()
            await server.close_all_connections()
            await hub_server.close_all_connections()
