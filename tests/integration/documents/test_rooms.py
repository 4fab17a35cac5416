"""Notebooks that are open: in one page, in several, while their file changes."""

from __future__ import annotations

import json

import pytest

from support.documents import ADA, BASE, BOB, NOTEBOOK, Page, Running
from support.patience import Stopwatch


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
