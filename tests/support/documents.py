"""A documents service with the real Drive, and pages that have notebooks open in it. The hub is a stand-in that knows two tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web as stand_in
from pycrdt import Doc
from tornado.testing import bind_unused_port
from tornado.web import create_signed_value
from yarl import URL

from hub.documents.app import Documents
from hub.documents.rooms import wire
from hub.documents.rooms.ydoc import SharedNotebook
from hub.settings import Ports, Service, Settings
from storage_mount.model import FileType
from storage_mount.service import DriveService
from support.patience import PATIENCE

TOKENS = {"token-of-ada": "ada", "token-of-bob": "bob"}
ADA, BOB = ({"Authorization": f"Bearer token-of-{name}"} for name in ("ada", "bob"))
BASE = "/services/documents/"
NOTEBOOK: dict[str, Any] = {
    "cells": [
        {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {"odd": 1.0},
            "outputs": [],
            "source": ["1"],
        },
        {"cell_type": "markdown", "metadata": {}, "source": "as one string"},
    ],
    "metadata": {"nobody": {"knows": [1, 2.0]}},
    "nbformat": 4,
    "nbformat_minor": 0,
    "unknown": True,
}


@dataclass
class Running:
    """A documents service that answers at `url`."""

    url: str
    service: Service
    drive: DriveService
    documents: Documents
    http: aiohttp.ClientSession
    hub: stand_in.AppRunner

    def cookie(self, user: str) -> dict[str, str]:
        value = create_signed_value(self.service.key("session"), "minicolab-session", f"token-of-{user}")
        return {"Cookie": f"minicolab-session={value.decode()}"}

    def notebook(self, user: str = "ada", name: str = "nb.ipynb", content: Any = NOTEBOOK) -> str:
        """Make a notebook and return its id."""
        return self.drive.create(user, "root", name, FileType.NOTEBOOK, json.dumps(content).encode()).id

    def read(self, file_id: str, user: str = "ada") -> Any:
        return json.loads(self.drive.read(user, file_id)[0])


async def stand_in_hub() -> tuple[stand_in.AppRunner, int]:
    """Answer `/hub/api/user` for the two known tokens, as JupyterHub would; nothing else of it is here."""

    async def user(request: stand_in.Request) -> stand_in.Response:
        name = TOKENS.get(request.headers["Authorization"].removeprefix("token "))
        if name is None:
            return stand_in.json_response({"status": 403}, status=403)
        return stand_in.json_response(
            {"kind": "user", "name": name, "admin": False, "scopes": ["access:services"]}
        )

    application = stand_in.Application()
    application.router.add_get("/hub/api/user", user)
    runner = stand_in.AppRunner(application)
    await runner.setup()
    socket, port = bind_unused_port()
    await stand_in.SockSite(runner, socket).start()
    return runner, port


def make_service(state: Path, port: int, hub_port: int) -> Service:
    return Service(
        state=state,
        settings=Settings(),
        ports=Ports(public=port, proxy_api=1, hub=hub_port, documents=port, control=1),
        documents_token="documents-secret",
        control_token="control-secret",
        proxy_token="proxy-secret",
    )


BODIES: dict[str, Any] = {"PUT": {"format": "json", "type": "notebook"}, "PATCH": {"path": "x"}, "POST": {}}


async def ask(running: Running, method: str, path: str, headers: dict[str, str]) -> int:
    extra = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    async with running.http.request(
        method,
        URL(running.url + path, encoded=True),
        headers={"Connection": "close", **headers, **(extra if "/room/" in path else {})},
        json=None if path.endswith("/upload") else BODIES.get(method),
        allow_redirects=False,
    ) as reply:
        return reply.status


class Page:
    """A notebook page: a websocket to a room and a copy of the notebook."""

    def __init__(self, running: Running, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._running = running
        self._socket = socket
        self._sent: list[bytes] = []
        self.shared = SharedNotebook(self._sent.append)

    @staticmethod
    async def open(
        running: Running, file_id: str, headers: dict[str, str], *, session: str | None = None
    ) -> Page:
        if session is None:
            reply = await running.http.put(
                f"{running.url}{BASE}api/collaboration/session/{file_id}/nb.ipynb",
                headers=headers,
                data=json.dumps({"format": "json", "type": "notebook"}),
            )
            assert reply.status == 200, await reply.text()
            session = (await reply.json())["sessionId"]
        socket = await running.http.ws_connect(
            f"{running.url}{BASE}api/collaboration/room/json:notebook:{file_id}?sessionId={session}",
            headers=headers,
        )
        page = Page(running, socket)
        await socket.send_bytes(wire.sync(wire.STEP1, Doc().get_state()))
        return page

    async def synchronised(self) -> Page:
        """Receive until the notebook is here."""
        while not self.shared.read()["cells"]:
            await self.receive()
        return self

    async def receive(self) -> aiohttp.WSMessage:
        message = await self._socket.receive(timeout=PATIENCE)
        if message.type is aiohttp.WSMsgType.BINARY:
            reader = wire.Reader(message.data)
            if reader.number() == wire.SYNC and reader.number() in (wire.STEP2, wire.UPDATE):
                self.shared.merge(reader.bytes())
                self._sent.clear()
        return message

    async def type(self, cell: int, text: str) -> None:
        now = self.shared.read()
        now["cells"][cell]["source"] = text  # type: ignore[index,call-overload]
        self.shared.replace(now)
        for update in self._sent:
            await self._socket.send_bytes(wire.sync(wire.UPDATE, update))
        self._sent.clear()

    async def save(self) -> str:
        """Save as Ctrl+S does and return the answer."""
        await self._socket.send_bytes(bytes([wire.TEXT]) + wire.sized(b"save") + wire.number(7))
        while True:
            reader = wire.Reader((await self.receive()).data)
            if reader.number() == wire.TEXT:
                answer = json.loads(reader.text())
                assert answer["responseTo"] == 7
                return str(answer["status"])

    async def closed(self) -> int:
        """Return the code with which the service closes the socket."""
        while not (await self.receive()).type.name.startswith("CLOSE"):
            pass
        assert self._socket.close_code is not None
        return self._socket.close_code

    async def close(self) -> None:
        await self._socket.close()
