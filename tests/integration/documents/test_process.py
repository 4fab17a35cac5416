"""The process of documents: told to end, killed, started without an installation."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from hub.documents.rooms import wire
from support.documents import ADA, BASE, BODIES, Page, Running
from support.patience import PATIENCE


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
