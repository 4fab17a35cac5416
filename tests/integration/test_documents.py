"""The documents service over HTTP and websockets, with the real Drive. The hub is a stand-in that knows two tokens."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web as stand_in
from pycrdt import Doc
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler, create_signed_value
from yarl import URL

from hub.documents import api, routes
from hub.documents.app import Documents, make_server, start
from hub.documents.rooms import wire
from hub.documents.rooms.ydoc import SharedNotebook
from hub.installation import free_port
from hub.settings import Ports, Service, Settings, save_service
from hub.wiring import make_drive
from quota.clock import SystemClock
from storage_mount.model import FileType
from storage_mount.service import DriveService
from support.patience import PATIENCE, Stopwatch

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


# -- who may come in ----------------------------------------------------------------------------------------------


def addresses(file_id: str) -> dict[str, list[tuple[str, str]]]:
    """Return for every handler of this package the requests that reach it, naming ada's file where it can name one."""
    own = f"{file_id}/nb.ipynb"
    return {
        "hub.documents.sign_in.Health": [("GET", f"{BASE}healthz")],
        "hub.documents.sign_in.OAuthCallback": [("GET", f"{BASE}oauth_callback")],
        "hub.documents.sign_in.Logout": [("GET", f"{BASE}logout")],
        "hub.documents.sign_in.Me": [("GET", f"{BASE}api/me")],
        "hub.documents.pages.DrivePage": [("GET", "/drive"), ("GET", "/drive/trash")],
        "hub.documents.pages.FilePage": [("GET", f"/d/{file_id}")],
        "hub.documents.pages.ExamplesPage": [("GET", "/examples/overview")],
        "hub.documents.pages.NotebookAddress": [("GET", f"{BASE}notebooks/{own}")],
        "hub.documents.routes.NoSuchPage": [("GET", "/nothing"), ("GET", f"{BASE}tree")],
        "hub.documents.jupyter_api.ExportFormats": [("GET", f"{BASE}api/nbconvert")],
        "hub.documents.contents.ContentsHandler": [
            ("GET", f"{BASE}api/contents/{own}"),
            ("GET", f"{BASE}api/contents/{file_id}"),
            ("PATCH", f"{BASE}api/contents/{own}"),
        ],
        "hub.documents.contents.CheckpointsHandler": [
            ("GET", f"{BASE}api/contents/{own}/checkpoints"),
            ("POST", f"{BASE}api/contents/{own}/checkpoints"),
        ],
        "hub.documents.contents.FilesHandler": [("GET", f"{BASE}files/{own}")],
        "hub.documents.rooms.handler.SessionHandler": [("PUT", f"{BASE}api/collaboration/session/{own}")],
        "hub.documents.rooms.handler.RoomHandler": [
            ("GET", f"{BASE}api/collaboration/room/json:notebook:{file_id}")
        ],
        "hub.documents.preferences.SettingsHandler": [("GET", f"{BASE}lab/api/settings")],
        "hub.documents.preferences.WorkspacesHandler": [("GET", f"{BASE}lab/api/workspaces")],
        "hub.documents.preferences.TranslationsHandler": [("GET", f"{BASE}lab/api/translations/")],
        "hub.documents.assets.AssetHandler": [("GET", f"{BASE}assets/logo.svg")],
        "hub.web.handlers.NotFoundHandler": [
            ("GET", f"{BASE}api/kernels"),
            ("GET", f"{BASE}api/events/subscribe"),
        ],
    }


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


def test_the_walk_knows_every_address_of_this_package() -> None:
    known = set(addresses("x"))
    for _, handler in routes.allowed_routes():
        assert handler in known or handler.startswith("hub.documents.api."), (
            f"{handler}: add it to `addresses`"
        )


async def test_nobody_gets_nothing_but_public_addresses(running: Running) -> None:
    file_id = running.notebook()
    public = {handler for (_, handler), who in routes.allowed_routes().items() if who == "public"}
    for handler, requests in addresses(file_id).items():
        for method, path in requests:
            status = await ask(running, method, path, {})
            if handler not in public:
                assert status in (401, 302), f"{method} {path} answered {status} to nobody"


async def test_another_user_finds_nothing_of_ada(running: Running) -> None:
    file_id = running.notebook()
    per_file = {handler for (_, handler), who in routes.allowed_routes().items() if who == "file"}
    before = running.drive.read("ada", file_id)
    for handler, requests in addresses(file_id).items():
        if handler in per_file:
            for method, path in requests:
                assert await ask(running, method, path, BOB) == 404, f"{method} {path}"
                missing = path.replace(file_id, "A" * len(file_id))
                assert await ask(running, method, missing, BOB) == 404, f"{method} {missing}"
    assert running.drive.read("ada", file_id) == before


async def test_the_rest_api_gives_nobody_anything_and_another_user_nothing_of_ada(running: Running) -> None:
    file_id = running.notebook()
    before = running.drive.read("ada", file_id)
    patterns = {
        p: who for (p, h), who in routes.allowed_routes().items() if h.startswith("hub.documents.api.")
    }
    assert len(patterns) > 10
    for pattern, who in patterns.items():
        path = pattern.rstrip("$").replace("([^/]+)", file_id)
        for method in ("GET", "PUT", "PATCH", "POST", "DELETE"):
            assert await ask(running, method, path, {}) in (401, 405), f"{method} {path} as nobody"
            if who == "file":
                status = await ask(running, method, path, BOB)
                assert status in (400, 404, 405, 415), f"{method} {path} answered {status} to bob"
                if method == "GET":
                    assert status in (404, 405), f"{method} {path} answered {status} to bob"
            if who == "service":
                for user in (ADA, BOB):
                    status = await ask(running, method, path, user)
                    assert status in (403, 405), f"{method} {path} answered {status} to a person"
    assert running.drive.read("ada", file_id) == before


async def test_a_cookie_works_from_our_own_pages_only(running: Running) -> None:
    file_id = running.notebook()
    url = f"{running.url}{BASE}api/contents/{file_id}/nb.ipynb"
    cookie = running.cookie("ada")
    body = {"path": f"{file_id}/renamed.ipynb"}
    for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": running.service.runtime_origin("ada")}):
        reply = await running.http.patch(url, headers={**cookie, **origin}, json=body)
        assert (reply.status, (await reply.json())["code"]) == (403, "cross_site")
    own = {**cookie, "Origin": running.service.app_origin}
    assert (await running.http.patch(url, headers=own, json=body)).status == 200
    assert running.drive.get("ada", file_id).name == "renamed.ipynb"
    room = f"{running.url}{BASE}api/collaboration/room/json:notebook:{file_id}"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await running.http.ws_connect(room, headers={**cookie, "Origin": "http://evil.example"})
    assert refused.value.status == 403
    page = await Page.open(running, file_id, own)
    await (await page.synchronised()).close()


# -- outputs that control brings ------------------------------------------------------------------------------------


async def bring(
    running: Running, file_id: str, *executions: dict[str, Any], user: str = "ada", **more: Any
) -> tuple[int, Any]:
    body = {"runtime_id": "r-one", "user": user, "executions": list(executions), **more}
    async with running.http.post(
        f"{running.url}{BASE}api/v1/files/{file_id}/outputs",
        json=body,
        headers={"Authorization": f"Bearer {running.service.control_token}"},
    ) as reply:
        return reply.status, await reply.json()


def ran(cell: str, text: str | None, run: str = "m1") -> dict[str, Any]:
    model: dict[str, Any] = {
        "msg_id": run,
        "cell_id": cell,
        "state": "done",
        "execution_count": 7,
        "changed": 1,
    }
    if text is not None:
        model["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]
    return model


async def test_control_brings_outputs_into_a_notebook_that_nobody_has_open(running: Running) -> None:
    cell = {
        **NOTEBOOK["cells"][0],
        "cell_type": "code",
        "id": "c-out",
        "outputs": [],
        "execution_count": None,
    }
    file_id = running.notebook(content={**NOTEBOOK, "nbformat_minor": 5, "cells": [cell]})
    async with asyncio.timeout(PATIENCE):
        settled, wanted = [], []
        while not wanted:  # a page that ran it is given the time to say so
            status, answer = await bring(running, file_id, ran("c-out", None), ended=True)
            assert status == 200
            wanted = answer["wanted"]
            await asyncio.sleep(0.2)
        assert running.read(file_id)["cells"][0]["outputs"] == []
        while not settled:
            settled = (await bring(running, file_id, ran("c-out", "said\n"), ended=True))[1]["settled"]
    found = running.read(file_id)["cells"][0]  # settled means: it is in the file
    assert (found["outputs"][0]["text"], found["execution_count"]) == (["said\n"], 7)
    assert (await bring(running, file_id, ran("c-out", None), ended=True))[1]["settled"] == ["m1"]


async def test_outputs_are_brought_for_who_may_change_the_file_alone(running: Running) -> None:
    file_id = running.notebook()
    before = running.drive.read("ada", file_id)
    assert (await bring(running, file_id, ran("c", "x"), user="bob"))[0] == 404
    assert (await bring(running, "A" * len(file_id), ran("c", "x")))[0] == 404
    assert (await bring(running, "ex-overview", ran("c", "x")))[0] == 403
    text = running.drive.create("ada", "root", "a.txt", FileType.FILE, b"x").id
    assert (await bring(running, text, ran("c", "x")))[0] == 400
    for more in ({"ended": 3}, {"odd": 1}, {"executions": {}}, {"executions": [1] * 3000}, {"runtime_id": 5}):
        assert (await bring(running, file_id, ran("c", "x"), **more))[0] == 400, more
    status, answer = await bring(running, file_id, 3, {"msg_id": 1})  # type: ignore[arg-type]
    assert (status, answer) == (200, {"settled": [], "wanted": []})
    assert running.drive.read("ada", file_id) == before


def test_an_address_that_nobody_allowed_stops_the_start() -> None:
    class Leak(RequestHandler):
        pass

    with pytest.raises(routes.UnknownRoutes, match="/leak"):
        routes.check(Application([(r"/leak", Leak)]), routes.allowed_routes())


# -- pages --------------------------------------------------------------------------------------------------------


async def test_the_notebook_page_knows_its_file_and_holds_no_token(running: Running) -> None:
    file_id = running.notebook()
    reply = await running.http.get(f"{running.url}/d/{file_id}", headers=ADA)
    html = await reply.text()
    assert reply.status == 200
    match = re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', html)
    assert match is not None
    config = json.loads(match[1])
    assert config["token"] == ""
    assert json.loads(config["minicolabFile"])["path"] == f"{file_id}/nb.ipynb"
    assert json.loads(config["minicolabFile"])["readOnly"] is False
    assert json.loads(config["minicolabUser"])["name"] == "ada"
    assert "secret" not in html and "token-of" not in html
    policy = reply.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self' 'unsafe-eval' 'sha256-" in policy
    assert running.service.runtime_origin("ada") in policy
    assert reply.headers["Referrer-Policy"] == "same-origin"


async def test_every_program_the_page_names_is_there(running: Running) -> None:
    file_id = running.notebook()
    html = await (await running.http.get(f"{running.url}/d/{file_id}", headers=ADA)).text()
    config = json.loads(re.search(r'config-data"[^>]*>(.*?)</script>', html)[1])  # type: ignore[index]
    scripts = re.findall(r'src="([^"]+)"', html)
    scripts += [
        f"{config['fullLabextensionsUrl']}/{e['name']}/{e['load']}" for e in config["federated_extensions"]
    ]
    assert len(scripts) >= 3
    for script in scripts:
        reply = await running.http.get(running.url + script)
        assert reply.status == 200, script
        assert "immutable" in reply.headers["Cache-Control"], script
        assert reply.headers["Content-Encoding"] == "gzip", script


@pytest.mark.parametrize(
    "path",
    ["..%2f..%2fsettings.py", "%2e%2e/%2e%2e/settings.py", "..%5csettings.py", "/etc/passwd", "x%00y", "."],
)
async def test_assets_stay_in_their_folder(running: Running, path: str) -> None:
    for tree in (
        "assets/",
        "static/notebook/",
        "lab/extensions/jupyterlab_pygments/static/",
        "lab/api/themes/",
    ):
        assert await ask(running, "GET", f"{BASE}{tree}{path}", {}) in (400, 404)


@pytest.mark.parametrize("raw", [b"\x89PNG\r\n", b"{", b'{"cells": 1, "nbformat": 4}', b'{"x": NaN}'])
async def test_a_broken_notebook_opens_as_a_message_and_is_not_touched(running: Running, raw: bytes) -> None:
    file_id = running.drive.upload("ada", "root", "broken.ipynb", [raw]).id
    reply = await running.http.get(f"{running.url}/d/{file_id}", headers=ADA)
    assert reply.status == 422
    assert "can&#39;t be opened as a notebook" in await reply.text()
    assert f"files/{file_id}/content" in await reply.text()
    session = await running.http.put(
        f"{running.url}{BASE}api/collaboration/session/{file_id}/x", headers=ADA, json=BODIES["PUT"]
    )
    assert (session.status, (await session.json())["code"]) == (422, "bad_notebook")
    assert running.documents.rooms.names() == {}
    assert running.drive.read("ada", file_id)[0] == raw


async def test_other_files_are_shown_on_the_drive_page(running: Running) -> None:
    folder = running.drive.create("ada", "root", "f", FileType.FOLDER).id
    text = running.drive.create("ada", folder, "x.txt", FileType.FILE, b"x").id
    for file_id, target in ((folder, f"/drive/folders/{folder}"), (text, f"/drive?open={text}")):
        reply = await running.http.get(f"{running.url}/d/{file_id}", headers=ADA, allow_redirects=False)
        assert (reply.status, reply.headers["Location"]) == (302, target)
    trashed = running.notebook(name="t.ipynb")
    running.drive.trash("ada", trashed)
    reply = await running.http.get(f"{running.url}/d/{trashed}", headers=ADA)
    assert reply.status == 404
    assert "trash" in await reply.text()


async def test_an_unknown_file_is_a_page_that_leads_back_to_drive(running: Running) -> None:
    for path in ("/d/nothing", "/d/ex-nothing", "/d/" + "x" * 300, "/d/%00", "/examples/nothing"):
        reply = await running.http.get(URL(running.url + path, encoded=True), headers=ADA)
        assert reply.status in (400, 404), path
        assert 'href="/drive"' in await reply.text()


async def test_while_the_hub_is_away_who_was_known_goes_on_and_a_newcomer_is_told(running: Running) -> None:
    file_id = running.notebook()
    page = await (await Page.open(running, file_id, ADA)).synchronised()
    await running.hub.cleanup()
    await page.type(0, "typed without a hub")
    assert await page.save() == "success"
    assert await ask(running, "GET", f"/d/{file_id}", ADA) == 200
    reply = await running.http.get(f"{running.url}/d/{file_id}", headers=BOB)
    assert reply.status == 503
    assert "sign-in service is not answering" in await reply.text()
    assert await ask(running, "GET", f"{BASE}api/me", BOB) == 503
    await page.close()


# -- what a page remembers ----------------------------------------------------------------------------------------


async def test_settings_belong_to_one_user(running: Running) -> None:
    url = f"{running.url}{BASE}lab/api/settings/@jupyterlab/apputils-extension:themes"
    raw = json.dumps({"theme": "JupyterLab Dark"})
    assert (await running.http.put(url, headers=ADA, json={"raw": raw})).status == 204
    ada, bob = [await (await running.http.get(url, headers=who)).json() for who in (ADA, BOB)]
    assert ada["settings"] == {"theme": "JupyterLab Dark"}
    assert bob["settings"] == {}
    for bad in ({"raw": "{"}, {"raw": 1}, {}, {"raw": '{"theme": 5}'}):
        assert (await running.http.put(url, headers=ADA, json=bad)).status == 400, bad
    assert (await running.http.put(url + "/../../x", headers=ADA, json={"raw": "{}"})).status in (400, 404)


async def test_layouts_belong_to_one_user(running: Running) -> None:
    url = f"{running.url}{BASE}lab/api/workspaces/default"
    value = {"data": {"x": 1}, "metadata": {"id": "default"}}
    assert (await running.http.put(url, headers=ADA, json=value)).status == 204
    assert await (await running.http.get(url, headers=ADA)).json() == value
    assert (await (await running.http.get(url, headers=BOB)).json())["data"] == {}
    for bad in ([], {"data": {}}, {"data": 1, "metadata": {"id": "default"}}):
        assert (await running.http.put(url, headers=ADA, json=bad)).status == 400


# -- rooms --------------------------------------------------------------------------------------------------------


async def test_what_is_typed_lands_in_the_drive_and_nothing_else_changes(running: Running) -> None:
    file_id = running.notebook()
    page = await (await Page.open(running, file_id, ADA)).synchronised()
    await page.type(0, "print(1)\n2")
    assert await page.save() == "success"
    wanted = json.loads(json.dumps(NOTEBOOK))
    wanted["cells"][0]["source"] = ["print(1)\n", "2"]
    assert running.read(file_id) == wanted
    await page.close()


async def test_two_pages_of_one_notebook_see_each_other(running: Running) -> None:
    file_id = running.notebook()
    first = await (await Page.open(running, file_id, ADA)).synchronised()
    second = await (await Page.open(running, file_id, ADA)).synchronised()
    await first.type(0, "one")
    while second.shared.read()["cells"][0]["source"] != "one":  # type: ignore[index,call-overload]
        await second.receive()
    await second.type(1, "two")
    assert await second.save() == "success"
    assert [c["source"] for c in running.read(file_id)["cells"]] == [["one"], "two"]
    await first.close()
    await second.close()


async def test_a_page_with_another_history_is_asked_to_reload(running: Running) -> None:
    file_id = running.notebook()
    page = await Page.open(running, file_id, ADA, session="some-old-session")
    assert await page.closed() == 1003


async def test_a_file_that_goes_to_the_trash_closes_its_pages_within_two_seconds(running: Running) -> None:
    file_id = running.notebook()
    page = await (await Page.open(running, file_id, ADA)).synchronised()
    with Stopwatch() as watch:
        running.drive.trash("ada", file_id)
        assert await page.closed() == 4403
    assert watch.seconds < 2


async def test_a_kernel_that_writes_the_file_changes_the_open_page(running: Running) -> None:
    file_id = running.notebook()
    page = await (await Page.open(running, file_id, ADA)).synchronised()
    outside = json.loads(json.dumps(NOTEBOOK))
    outside["cells"][0]["source"] = ["written by a kernel"]
    (running.drive.drive_folder("ada") / "nb.ipynb").write_text(json.dumps(outside))
    while page.shared.read()["cells"][0]["source"] != "written by a kernel":  # type: ignore[index,call-overload]
        await page.receive()
    assert running.read(file_id) == outside
    await page.close()


async def test_rename_in_the_drive_reaches_the_open_page(running: Running) -> None:
    file_id = running.notebook()
    page = await (await Page.open(running, file_id, ADA)).synchronised()
    running.drive.change("ada", file_id, name="other.ipynb")
    while page.shared.told("path") != f"{file_id}/other.ipynb":
        await page.receive()
    await page.type(0, "after the rename")
    assert await page.save() == "success"
    assert running.read(file_id)["cells"][0]["source"] == ["after the rename"]
    await page.close()


async def test_an_example_opens_for_everybody_and_nobody_can_change_it(running: Running) -> None:
    example = running.documents.application.settings["examples"].list()[0]
    before = example.file.read_bytes()
    html = await (await running.http.get(f"{running.url}/d/{example.id}", headers=ADA)).text()
    assert '\\"readOnly\\": true' in html
    ada = await (await Page.open(running, example.id, ADA)).synchronised()
    await ada.type(0, "changed by ada")
    assert await ada.save() == "failed"
    bob = await (await Page.open(running, example.id, BOB)).synchronised()
    assert "changed by ada" not in json.dumps(bob.shared.read())
    assert example.file.read_bytes() == before
    await ada.close()
    await bob.close()


async def test_bad_messages_close_the_page_that_sent_them_and_no_other(running: Running) -> None:
    file_id = running.notebook()
    good = await (await Page.open(running, file_id, ADA)).synchronised()
    for garbage in (b"\x09", b"\x00", b"\x00\x05\x00", b"\x01\xff", b"\x02\x04sav"):
        bad = await (await Page.open(running, file_id, ADA)).synchronised()
        await bad._socket.send_bytes(garbage)
        assert await bad.closed() == 1002
    await good.type(0, "still here")
    assert await good.save() == "success"
    await good.close()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff", b'{"format":"text","type":"file"}', b'{"format":1,"type":"notebook"}']
)
async def test_a_bad_session_request_is_refused(running: Running, body: bytes) -> None:
    file_id = running.notebook()
    url = f"{running.url}{BASE}api/collaboration/session/{file_id}/x"
    assert (await running.http.put(url, headers=ADA, data=body)).status == 400


# -- contents -----------------------------------------------------------------------------------------------------


async def test_contents_shows_one_file_and_no_drive(running: Running) -> None:
    file_id = running.notebook()
    get = running.http.get
    root = await (await get(f"{running.url}{BASE}api/contents/", headers=ADA)).json()
    assert root["content"] == []
    folder = await (await get(f"{running.url}{BASE}api/contents/{file_id}", headers=ADA)).json()
    assert [f["path"] for f in folder["content"]] == [f"{file_id}/nb.ipynb"]
    model = await (await get(f"{running.url}{BASE}api/contents/{file_id}/nb.ipynb", headers=ADA)).json()
    assert model["content"]["cells"][0]["source"] == "1"
    for query in ("?content=2", "?type=x", "?type=directory"):
        assert (
            await get(f"{running.url}{BASE}api/contents/{file_id}/nb.ipynb{query}", headers=ADA)
        ).status == 400
    for method in ("put", "post", "delete"):
        reply = await running.http.request(
            method, f"{running.url}{BASE}api/contents/{file_id}/nb.ipynb", headers=ADA
        )
        assert reply.status == 405


@pytest.mark.parametrize("path", [1, None, "", "x", "other/x.ipynb", "../x", "a\x00b"])
async def test_a_rename_that_makes_no_sense_is_refused(running: Running, path: Any) -> None:
    file_id = running.notebook()
    reply = await running.http.patch(
        f"{running.url}{BASE}api/contents/{file_id}/nb.ipynb", headers=ADA, json={"path": path}
    )
    assert reply.status == 400
    assert running.drive.get("ada", file_id).name == "nb.ipynb"


# -- the process --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def process(state: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m hub.documents` until the block ends."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub.documents", "--state", str(state), stderr=subprocess.PIPE
    )
    assert running.stderr is not None
    line = b""
    while b"documents is ready" not in line:
        line = await running.stderr.readline()
        assert line, "the process ended"
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


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


async def test_the_process_saves_open_notebooks_when_it_is_told_to_end(installation: Running) -> None:
    file_id = installation.notebook()
    async with process(installation.service.state) as documents:
        page = await (await Page.open(installation, file_id, ADA)).synchronised()
        await page.type(0, "typed just before the end")
        await (await Page.open(installation, file_id, ADA)).synchronised()  # so that the edit has arrived
        documents.terminate()
        assert await asyncio.wait_for(documents.wait(), PATIENCE) == 0
    assert installation.read(file_id)["cells"][0]["source"] == ["typed just before the end"]


async def test_after_a_kill_an_open_page_goes_on_and_nothing_is_lost_or_doubled(
    installation: Running,
) -> None:
    file_id = installation.notebook()
    async with process(installation.service.state) as documents:
        page = await (await Page.open(installation, file_id, ADA)).synchronised()
        await page.type(0, "saved")
        assert await page.save() == "success"
        await page.type(1, "typed a moment before the kill")
        documents.kill()
        await documents.wait()
    async with process(installation.service.state):
        session = (
            await (
                await installation.http.put(
                    f"{installation.url}{BASE}api/collaboration/session/{file_id}/nb.ipynb",
                    headers=ADA,
                    json=BODIES["PUT"],
                )
            ).json()
        )["sessionId"]
        again = await Page.open(installation, file_id, ADA, session=session)
        again.shared.merge(page.shared.updates_since())  # the page kept what it had
        await again._socket.send_bytes(wire.sync(wire.STEP2, page.shared.updates_since()))
        await again.synchronised()
        assert await again.save() == "success"
        sources = ["".join(c["source"]) for c in installation.read(file_id)["cells"]]
        assert sources == ["saved", "typed a moment before the kill"]
        await again.close()


async def test_an_edit_that_arrived_survives_a_kill_though_its_page_is_gone(installation: Running) -> None:
    file_id = installation.notebook()
    database = installation.service.state / "databases" / "rooms.sqlite"

    def committed() -> int:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT COUNT(*) FROM updates").fetchone()[0])

    async with process(installation.service.state) as documents:
        page = await (await Page.open(installation, file_id, ADA)).synchronised()
        before = committed()
        async with asyncio.timeout(PATIENCE):
            number = 0
            while committed() == before:  # who goes on typing is not saved for seconds
                await page.type(1, f"typing {number}")
                number += 1
                await asyncio.sleep(0.05)
        documents.kill()
        await documents.wait()
    async with process(installation.service.state):
        url = f"{installation.url}{BASE}api/v1/files/{file_id}/content"
        text = await (await installation.http.get(url, headers=ADA)).text()
        assert '"typing ' in text


def test_without_an_installation_the_process_says_so_and_ends_with_78(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hub.documents", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78
    assert "minicolab up" in done.stderr
