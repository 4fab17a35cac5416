"""Who may come in: every address of documents, asked by nobody, by its owner, and by somebody else."""

from __future__ import annotations

import aiohttp
import pytest
from tornado.web import Application, RequestHandler

from hub.documents import routes
from support.documents import ADA, BASE, BOB, Page, Running, ask


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


def test_an_address_that_nobody_allowed_stops_the_start() -> None:
    class Leak(RequestHandler):
        pass

    with pytest.raises(routes.UnknownRoutes, match="/leak"):
        routes.check(Application([(r"/leak", Leak)]), routes.allowed_routes())
