"""A small hub and a small documents service: what control uses of them. The real ones run in tests/integration."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from file_backend import FileBackend
from tornado import web

from spawner.model import (
    DriveAtStart,
    EndReason,
    RuntimeSpec,
)

TOKENS = {"ada-token": "ada", "bob-token": "bob", "root-token": "root"}
FILES = {"nb-ada": "ada", "nb-two": "ada", "nb-three": "ada", "nb-bob": "bob"}
GROUPS = {"ada": ["vision"]}
CONTROL_TOKEN = "control-token"


@dataclass
class FakeHub:
    """What control uses of JupyterHub and of documents. `gate` holds starts back until it is set."""

    backend: FileBackend
    servers: dict[str, str] = field(default_factory=dict)  # server → user
    pending: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    refuse: str | None = None
    starts: int = 0
    options: dict[str, dict[str, Any]] = field(default_factory=dict)  # server → what control asked for
    brought: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # outputs: file, body
    documents_away: bool = False

    async def _spawn(self, user: str, server: str, options: dict[str, Any]) -> None:
        await self.gate.wait()
        if self.refuse is not None:
            self.failures[server] = self.refuse
        else:
            await self.backend.start(_spec(user, server, options), lambda _: None)
        self.pending.pop(server, None)

    def begin(self, user: str, server: str, options: dict[str, Any]) -> None:
        self.starts += 1
        self.options[server] = options
        self.servers[server] = user
        self.pending[server] = asyncio.create_task(self._spawn(user, server, options))
        self.asked.set()

    def die(self) -> None:
        """Lose what is under way, as a hub that is killed does."""
        for task in self.pending.values():
            task.cancel()
        for server in list(self.pending):
            del self.servers[server]
        self.pending.clear()


def _spec(user: str, server: str, options: dict[str, Any]) -> RuntimeSpec:
    from spawner.model import Shape

    return RuntimeSpec(
        server,
        user,
        str(options["file_id"]),
        "/",
        Shape("STANDARD", 1, 1, 16),
        "NONE",
        (),
        1,
        1,
        b"",
        "",
        "",
        "",
        drive=DriveAtStart(**options["drive"]) if options["drive"] is not None else None,
    )


class _HubHandler(web.RequestHandler):
    @property
    def hub(self) -> FakeHub:
        hub: FakeHub = self.settings["hub"]
        return hub


class _Root(_HubHandler):
    def get(self) -> None:
        self.finish({"version": "fake"})


class _User(_HubHandler):
    def get(self) -> None:
        name = TOKENS.get(self.request.headers["Authorization"].split()[1])
        if name is None:
            raise web.HTTPError(403)
        scopes = ["access:services"]
        self.finish(
            {
                "kind": "user",
                "name": name,
                "admin": name == "root",
                "scopes": scopes,
                "groups": GROUPS.get(name, []),
            }
        )


class _Users(_HubHandler):
    def get(self) -> None:
        users = sorted(set(self.hub.servers.values()))
        items = [
            {"name": u, "servers": {s: {} for s, owner in self.hub.servers.items() if owner == u}}
            for u in users
        ]
        self.finish({"items": items, "_pagination": {"next": None}})


class _Server(_HubHandler):
    def get(self, user: str, server: str) -> None:
        if server not in self.hub.servers:
            raise web.HTTPError(404)
        self.finish({"name": server, "ready": server not in self.hub.pending})

    async def post(self, user: str, server: str) -> None:
        if server in self.hub.servers and server not in self.hub.pending:
            if await self.hub.backend.observe(server) is not None:
                self.set_status(400)
                self.finish({"message": f"{user}:{server} is already running"})
                return
        elif server in self.hub.pending:
            self.set_status(202)
            return
        self.hub.begin(user, server, json.loads(self.request.body))
        self.set_status(202)

    async def delete(self, user: str, server: str) -> None:
        if server not in self.hub.servers:
            raise web.HTTPError(404)
        task = self.hub.pending.pop(server, None)
        if task is not None:
            task.cancel()
        await self.hub.backend.stop(server, reason=EndReason("stopped", "Stopped."), grace_seconds=0)
        self.hub.servers.pop(server, None)
        self.set_status(204)


class _Progress(_HubHandler):
    async def get(self, user: str, server: str) -> None:
        self.set_header("Content-Type", "text/event-stream")
        if server not in self.hub.servers:
            raise web.HTTPError(404)
        await self._tell({"progress": 30, "phase": "sandbox", "message": "Making a private machine"})
        task = self.hub.pending.get(server)
        if task is not None:
            await asyncio.wait([task])
            if task.cancelled():
                raise web.HTTPError(500)  # the connection of a hub that died
        if server in self.hub.failures:
            await self._tell({"failed": True, "message": f"Spawn failed: {self.hub.failures[server]}"})
        else:
            await self._tell({"progress": 100, "ready": True})

    async def _tell(self, event: dict[str, Any]) -> None:
        self.write(f"data: {json.dumps(event)}\n\n")
        await self.flush()


class _File(web.RequestHandler):
    def get(self, file_id: str) -> None:
        user = TOKENS.get(self.request.headers.get("Authorization", " x").split()[1])
        if FILES.get(file_id) != user:
            raise web.HTTPError(404)
        self.finish({"id": file_id, "name": f"{file_id}.ipynb", "type": "notebook"})


class _Outputs(_HubHandler):
    """Takes everything as settled, as documents does with what it has written."""

    def post(self, file_id: str) -> None:
        if self.hub.documents_away:
            raise web.HTTPError(503)
        assert self.request.headers["Authorization"] == f"Bearer {CONTROL_TOKEN}"
        body = json.loads(self.request.body)
        ids = [e["msg_id"] for e in body["executions"]]
        lacking = [e["msg_id"] for e in body["executions"] if "outputs" not in e]
        self.hub.brought.append((file_id, body))
        self.finish({"settled": [i for i in ids if i not in lacking], "wanted": lacking})


def hub_app(hub: FakeHub) -> web.Application:
    one = r"/hub/api/users/([^/]+)/servers/([^/]+)"
    return web.Application(
        [
            (r"/hub/api/", _Root),
            (r"/hub/api/user", _User),
            (r"/hub/api/users", _Users),
            (one, _Server),
            (one + "/progress", _Progress),
            (r"/services/documents/api/v1/files/([^/]*)/outputs", _Outputs),
            (r"/services/documents/api/v1/files/(.*)", _File),
        ],
        hub=hub,
        log_function=lambda _: None,
    )
