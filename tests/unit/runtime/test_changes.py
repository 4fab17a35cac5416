"""What the service learns of a runtime's cells while no page looks: changes as they come, and the last words at the end."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from minicolab_runtime.application import MAX_EXECUTIONS_BYTES, last_words
from minicolab_runtime.changes import Changes
from minicolab_runtime.outputs import OutputLog
from minicolab_runtime.recorder import KernelRecorder
from support.patience import PATIENCE, until
from tests.unit.runtime.harness import Runtime, stop

WAIT = 30


async def changes(runtime: Runtime, after: int, *, wait: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = await runtime.json(f"minicolab/executions/changes?after={after}&wait={wait}")
    return found


async def test_changes_are_told_once_and_the_next_ones_when_they_come(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    go = runtime.root / f"go-{uuid.uuid4().hex}"
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        code = f"import os, time\nprint('one')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('two')"
        running = await page.execute(code, cell="cell-a")
        number, text = -1, ""
        async with asyncio.timeout(PATIENCE):
            while text != "one\n":
                found = await changes(runtime, number, wait=WAIT)
                number = found["number"]
                mine = [e for e in found["executions"] if e["msg_id"] == running]
                text = mine[0]["outputs"][0]["text"] if mine and mine[0]["outputs"] else text
        assert (mine[0]["cell_id"], mine[0]["kernel_id"], mine[0]["state"]) == (
            "cell-a",
            kernel_id,
            "running",
        )
        assert (await changes(runtime, number))["executions"] == []

        waiting = asyncio.create_task(changes(runtime, number, wait=WAIT))
        await asyncio.sleep(0)
        assert not waiting.done()
        go.touch()
        state = ""
        async with asyncio.timeout(PATIENCE):
            found = await waiting
            while state != "done":
                mine = [e for e in found["executions"] if e["msg_id"] == running]
                state = mine[0]["state"] if mine else state
                number = found["number"]
                if state != "done":
                    found = await changes(runtime, number, wait=WAIT)
        assert mine[0]["outputs"][0]["text"] == "one\ntwo\n"
        await page.close()


async def test_a_wait_in_which_nothing_happens_ends_with_an_empty_answer(runtime: Runtime) -> None:
    now = await changes(runtime, -1)
    began = time.monotonic()
    found = await changes(runtime, now["number"], wait=1)
    if found["number"] == now["number"]:  # a kernel of another test may have said something
        assert found["executions"] == []
        assert time.monotonic() - began >= 0.9


async def test_a_number_of_another_server_means_nothing(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        done = await page.execute("1", cell="cell-n")
        await page.result(done)
        await page.close()
    found = await runtime.json("minicolab/executions/changes?after=99999999&wait=5&instance=another")
    assert done in {e["msg_id"] for e in found["executions"]}
    async with runtime.http() as http:
        for query in ("after=x", "wait=-1x", "wait=61", "after=1e3"):
            async with http.get(f"minicolab/executions/changes?{query}") as reply:
                assert (reply.status, (await reply.json())["code"]) == (400, "bad_argument"), query


async def test_an_orderly_end_leaves_the_last_outputs(start: Callable[..., Runtime]) -> None:
    runtime = start()
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        running = await page.execute("print('until the end')\nimport time\ntime.sleep(600)", cell="cell-e")
        await page.until(lambda m: m["msg_type"] == "stream")
    stop(runtime)
    file = runtime.folder / "run" / "executions.json"
    until(file.exists, "nothing was left")
    left = json.loads(file.read_text())["executions"]
    assert [(e["msg_id"], e["cell_id"], e["state"]) for e in left] == [(running, "cell-e", "running")]
    assert left[0]["outputs"][0]["text"] == "until the end\n"


async def test_what_a_cell_prints_right_before_it_ends_its_runtime_is_left_too(
    start: Callable[..., Runtime],
) -> None:
    runtime = start()
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        await page.execute("print('said')\nimport google.colab.runtime as r\nr.unassign()", cell="cell-u")
        file = runtime.folder / "run" / "executions.json"
        until(file.exists, "nothing was left")
    left = json.loads(file.read_text())["executions"]
    assert left[0]["outputs"][0]["text"] == "said\n"


async def test_cells_of_a_kernel_that_is_deleted_are_told_to_have_ended(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        running = await page.execute("import time\ntime.sleep(600)", cell="cell-d")
        async with asyncio.timeout(PATIENCE):
            while [e["state"] for e in await runtime.executions(kernel_id)] != ["running"]:
                await asyncio.sleep(0.05)
        await page.close()
    await runtime.json(f"api/kernels/{kernel_id}", "DELETE")
    found = (await changes(runtime, -1))["executions"]
    mine = next(e for e in found if e["msg_id"] == running)
    assert (mine["state"], mine["status"]) == ("done", "died")


def test_what_is_left_at_the_end_is_bounded_and_the_newest_stays() -> None:
    large = "x" * (MAX_EXECUTIONS_BYTES // 3)
    found: list[dict[str, Any]] = [{"msg_id": f"m{i}", "changed": i, "outputs": [large]} for i in range(5)]
    assert [e["msg_id"] for e in last_words(found)] == ["m3", "m4"]


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        (["10%", "\r20%", "\r100%", "\ndone\n"], "100%\ndone\n"),
        (["long line\r", "short"], "shortline"),
        (["a\r\nb\r\n"], "a\nb\n"),
        (["kept\n", "1", "\b2", "\b3\n"], "kept\n3\n"),
        (["x\n\b\by\n"], "x\ny\n"),
        (["plain\n", "text"], "plain\ntext"),
        (["wait\r"], "wait\r"),
    ],
)
def test_a_progress_bar_is_kept_as_it_looks_and_not_as_it_was_drawn(parts: list[str], shown: str) -> None:
    log = OutputLog()
    for part in parts:
        log.add("stream", {"name": "stdout", "text": part})
    (output,) = log.snapshot()
    assert output["text"] == shown
    assert log.size == len(shown)


def test_every_change_has_a_number_of_its_own_across_kernels() -> None:
    shared = Changes()
    one, two = KernelRecorder(shared), KernelRecorder(shared)
    from datetime import UTC, datetime

    wall = datetime(2026, 1, 1, tzinfo=UTC)
    for recorder, name in ((one, "a"), (two, "b")):
        recorder.submitted({"msg_id": name}, {"cellId": name}, 0.0, wall)
    seen = shared.number
    one.iopub("stream", "a", {"name": "stdout", "text": "x"}, 1.0)
    assert [e["cell_id"] for e in one.models(2.0, seen)] == ["a"]
    assert two.models(2.0, seen) == []
