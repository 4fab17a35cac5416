"""The recorder: what a reloaded page learns about cells that ran without it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

from jupyter_client.session import Session
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1, serialize_msg_to_ws_v1

from minicolab_runtime.offline_buffer import OfflineBuffer
from minicolab_runtime.outputs import OutputLog
from support.patience import PATIENCE
from tests.unit.runtime.harness import Runtime, Socket, text_of

STREAM = "stream"
ROUNDING = 0.001  # the server tells milliseconds


async def state_of(runtime: Runtime, kernel_id: str, message_id: str) -> dict[str, Any]:
    found = [e for e in await runtime.executions(kernel_id) if e["msg_id"] == message_id]
    return found[0] if found else {"state": "not seen yet"}


async def wait_for(runtime: Runtime, kernel_id: str, message_id: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while (found := await state_of(runtime, kernel_id, message_id))["state"] != state:
            await asyncio.sleep(0.05)
    return found


async def test_a_page_that_leaves_mid_run_finds_all_output_when_it_comes_back(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    go = runtime.root / f"go-{uuid.uuid4().hex}"
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        code = (
            "import os, sys, time\n"
            "print('one')\n"
            f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
            "print('two'); print('oops', file=sys.stderr); 42"
        )
        running = await page.execute(code, cell="cell-a")
        queued = await page.execute("print('three')", cell="cell-b")
        await page.until(lambda m: m["msg_type"] == "stream")
        await page.close()
    found = await wait_for(runtime, kernel_id, running, "running")
    async with asyncio.timeout(
        PATIENCE
    ):  # the page's own subscription may hear a message before the recorder's
        while not found["outputs"]:
            await asyncio.sleep(0.05)
            found = await state_of(runtime, kernel_id, running)
    assert (found["state"], found["cell_id"], found["status"]) == ("running", "cell-a", None)
    assert found["outputs"] == [{"output_type": "stream", "name": "stdout", "text": "one\n"}]
    assert (await state_of(runtime, kernel_id, queued))["state"] == "queued"
    asked = time.monotonic()
    activity = await runtime.json("minicolab/activity")
    assert activity["last_activity_seconds_ago"] <= time.monotonic() - asked + ROUNDING
    kernel = next(k for k in activity["kernels"] if k["id"] == kernel_id)
    assert kernel["state"] == "busy"
    assert kernel["executing_seconds"] > 0

    go.touch()
    found = await wait_for(runtime, kernel_id, queued, "done")
    assert found["outputs"][0]["text"] == "three\n"
    done = await state_of(runtime, kernel_id, running)
    assert (done["state"], done["status"], done["execution_count"]) == ("done", "ok", 1)
    assert done["elapsed_seconds"] > 0
    assert [(o["output_type"], o.get("text")) for o in done["outputs"]] == [
        ("stream", "one\ntwo\n"),
        ("stream", "oops\n"),
        ("execute_result", None),
    ]
    assert done["outputs"][2]["data"]["text/plain"] == "42"


async def test_a_failing_cell_and_those_queued_behind_it_are_told_apart(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        go = runtime.root / f"go-{uuid.uuid4().hex}"
        fails_when_told = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n1/0"
        failing = await page.execute(fails_when_told, cell="a")
        behind = await page.execute("print('not run')", cell="b")
        plain = await page.execute("print('no cell')", cell=None, page=False)
        await wait_for(runtime, kernel_id, behind, "queued")
        go.touch()
        await wait_for(runtime, kernel_id, behind, "done")
        assert (await state_of(runtime, kernel_id, failing))["status"] == "error"
        assert (await state_of(runtime, kernel_id, failing))["outputs"][0]["ename"] == "ZeroDivisionError"
        aborted = await state_of(runtime, kernel_id, behind)
        assert (aborted["status"], aborted["outputs"]) == ("aborted", [])
        assert plain not in {e["msg_id"] for e in await runtime.executions(kernel_id)}
        await page.close()


async def test_displays_are_updated_and_clears_honoured(runtime: Runtime, page: Socket) -> None:
    code = (
        "from IPython.display import display, clear_output\n"
        "print('gone')\n"
        "clear_output(wait=True)\n"
        "h = display('first', display_id=True)\n"
        "h.update('second')\n"
    )
    messages = await page.result(await page.execute(code, cell="d"))
    message_id = messages[0]["parent_header"]["msg_id"]
    for kernel in await runtime.json("api/kernels"):
        for execution in await runtime.executions(kernel["id"]):
            if execution["msg_id"] == message_id:
                assert [o["data"]["text/plain"] for o in execution["outputs"]] == ["'second'"]
                return
    raise AssertionError("the execution was not recorded")


async def test_an_open_question_is_seen_by_a_page_that_attaches_later(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    async with runtime.http() as http:
        first = await runtime.connect(http, kernel_id)
        asking = await first.execute("print('hello', input('Who? '))", cell="q")
        await first.until(lambda m: m["msg_type"] == "input_request")
        await first.close()
        found = await state_of(runtime, kernel_id, asking)
        assert found["input"] == {"prompt": "Who? ", "password": False}
        second = await runtime.connect(http, kernel_id)
        await second.send("input_reply", {"value": "Ada", "status": "ok"}, channel="stdin")
        done = await wait_for(runtime, kernel_id, asking, "done")
        assert done["input"] is None
        assert done["outputs"][0]["text"] == "hello Ada\n"
        await second.close()


async def test_polling_is_not_activity(runtime: Runtime, page: Socket) -> None:
    await page.result(await page.execute("1"))
    # The page may hear of the end a moment before the server has noted it.
    while any(k["state"] != "idle" for k in (await runtime.json("minicolab/activity"))["kernels"]):
        await asyncio.sleep(0)
    since = time.monotonic()
    for _ in range(3):
        await runtime.json("api/kernels")
        await page.send("kernel_info_request", {})
        await page.until(lambda m: m["msg_type"] == "kernel_info_reply")
    idle = time.monotonic() - since
    assert (await runtime.json("minicolab/activity"))["last_activity_seconds_ago"] >= idle - ROUNDING
    acted = time.monotonic()
    await page.result(await page.execute("2"))
    ago = (await runtime.json("minicolab/activity"))["last_activity_seconds_ago"]
    assert ago <= time.monotonic() - acted + ROUNDING


async def test_executions_of_an_unknown_kernel_are_a_404_and_no_kernel_a_400(runtime: Runtime) -> None:
    async with runtime.http() as http:
        async with http.get("minicolab/executions?kernel_id=nope") as reply:
            assert (reply.status, (await reply.json())["code"]) == (404, "not_found")
        async with http.get("minicolab/executions") as reply:
            assert (reply.status, (await reply.json())["code"]) == (400, "missing_argument")


async def test_messages_that_are_no_messages_do_not_hurt_the_socket(page: Socket) -> None:
    for rubbish in ("", "{}", "[]", '{"header": 1}', '{"channel": "shell", "header": {}}', "null"):
        await page.socket.send_str(rubbish)
    await page.socket.send_bytes(b"\x00\x01")
    assert text_of(await page.result(await page.execute("print('still here')"))) == "still here\n"


def test_long_text_keeps_its_end_and_says_what_was_dropped() -> None:
    log = OutputLog(max_stream_characters=1000)
    for number in range(1000):
        log.add(STREAM, {"name": "stdout", "text": f"line {number}\n"})
    note, text = log.snapshot()
    assert "dropped" in note["text"]
    assert text["text"].endswith("line 999\n")
    assert len(text["text"]) <= 1000
    assert text["text"].startswith("line ")
    total = sum(len(f"line {number}\n") for number in range(1000))
    assert f"{total - len(text['text'])} characters" in note["text"]


def test_output_larger_than_the_limit_drops_the_oldest_and_says_so() -> None:
    log = OutputLog(max_bytes=1000)
    for number in range(5):
        log.add("display_data", {"data": {"text/plain": f"{number}" * 400}, "metadata": {}})
    note, *kept = log.snapshot()
    assert "3 outputs" in note["text"]
    assert [o["data"]["text/plain"][0] for o in kept] == ["3", "4"]
    assert log.size <= 1000


def buffered(session: Session, message_type: str, content: dict[str, Any]) -> tuple[str, list[Any]]:
    request = {"msg_id": "request-1", "msg_type": "execute_request"}
    message = session.msg(message_type, content)
    message["parent_header"] = request
    return "iopub", session.serialize(message)


def test_what_waits_for_an_absent_page_is_bounded_and_says_what_did_not_fit() -> None:
    session = Session(key=b"k")
    buffer = OfflineBuffer(session, max_bytes=100_000)
    buffer.append(buffered(session, "status", {"execution_state": "busy"}))
    for number in range(1000):
        buffer.append(buffered(session, "stream", {"name": "stdout", "text": f"{number} " + "x" * 200}))
    buffer.append(buffered(session, "status", {"execution_state": "idle"}))
    messages = [session.deserialize(session.feed_identities(parts, copy=True)[1]) for _, parts in buffer]
    assert sum(len(b"".join(parts)) for _, parts in buffer) < 105_000
    note, busy, *streams, idle = messages
    assert "messages of output did not fit" in note["content"]["text"]
    assert note["parent_header"]["msg_id"] == "request-1"
    assert (busy["content"]["execution_state"], idle["content"]["execution_state"]) == ("busy", "idle")
    assert streams[-1]["content"]["text"].startswith("999 ")
    assert f"[{1000 - len(streams)} messages" in note["content"]["text"]


async def test_a_page_that_lost_its_connection_gets_what_it_missed(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    go = runtime.root / f"go-{uuid.uuid4().hex}"
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        code = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('missed')"
        running = await page.execute(code)
        await page.until(lambda m: m["msg_type"] == "execute_input")
        await page.close()
        while (await runtime.json(f"api/kernels/{kernel_id}"))["connections"]:
            await asyncio.sleep(0.01)
        go.touch()
        await wait_for(runtime, kernel_id, running, "done")
        address = f"api/kernels/{kernel_id}/channels?session_id={page.session}"
        again = Socket(await http.ws_connect(address), page.session)
        assert text_of(await again.result(running)) == "missed\n"
        await again.close()


async def test_the_binary_protocol_of_jupyterlab_works_and_is_recorded(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session(uuid.uuid4().hex)
    address = f"api/kernels/{kernel_id}/channels?session_id=lab"
    async with runtime.http() as http:
        socket = await http.ws_connect(address, protocols=["v1.kernel.websocket.jupyter.org"], max_msg_size=0)
        assert socket.protocol == "v1.kernel.websocket.jupyter.org"
        header = {
            "msg_id": "m1",
            "msg_type": "execute_request",
            "session": "lab",
            "username": "",
            "version": "5.3",
        }
        content = {"code": "print('lab')", "silent": False, "store_history": True, "allow_stdin": True}
        parts = [json.dumps(part).encode() for part in (header, {}, {"cellId": "c9"}, content)]
        await socket.send_bytes(serialize_msg_to_ws_v1(parts, "shell"))
        await socket.send_bytes(b"rubbish")
        await wait_for(runtime, kernel_id, "m1", "done")
        found = await state_of(runtime, kernel_id, "m1")
        assert (found["cell_id"], found["outputs"][0]["text"]) == ("c9", "lab\n")
        said = ""
        while "lab" not in said:
            channel, raw = deserialize_msg_from_ws_v1(await socket.receive_bytes(timeout=PATIENCE))
            if channel == "iopub" and json.loads(raw[0])["msg_type"] == "stream":
                said += json.loads(raw[3])["text"]
        await socket.close()
