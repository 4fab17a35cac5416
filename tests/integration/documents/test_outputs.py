"""Outputs that control brings into notebooks."""

from __future__ import annotations

import asyncio
from typing import Any

from storage_mount.model import FileType
from support.documents import BASE, NOTEBOOK, Running
from support.patience import PATIENCE


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
