"""The pages of documents, and what a page remembers for its user."""

from __future__ import annotations

import json
import re

import pytest
from yarl import URL

from storage_mount.model import FileType
from support.documents import ADA, BASE, BOB, BODIES, Page, Running, ask


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
