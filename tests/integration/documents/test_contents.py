"""The Contents API of the notebook page: one file, and no drive."""

from __future__ import annotations

from typing import Any

import pytest

from support.documents import ADA, BASE, Running


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
