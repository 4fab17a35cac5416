"""The runtime's server, over real HTTP and websockets: who gets in, from where, and what clients can do."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from minicolab_runtime import kernel_ahead
from spawner.supervisor.processes import goes_on
from support.patience import PATIENCE, until, until_async
from tests.unit.runtime.harness import KEY, ORIGIN, Runtime, Socket, mint, stop, text_of

ROUTES = [
    "",
    "api",
    "api/status",
    "api/kernels",
    "api/kernelspecs",
    "api/sessions",
    "api/contents",
    "api/terminals",
    "api/me",
    "api/config/x",
    "api/spec.yaml",
    "api/colab/resources",
    "minicolab/activity",
    "minicolab/executions?kernel_id=x",
    "files/x.txt",
    "static/style/index.css",
    "nbconvert/html/a.ipynb",
    "kernelspecs/python3/logo-64x64.png",
    "metrics",
    "login",
    "logout",
    "tree",
    "no/such/address",
]


@pytest.mark.parametrize("path", ROUTES)
async def test_without_a_ticket_every_address_answers_401_with_a_code(runtime: Runtime, path: str) -> None:
    async with runtime.http(None) as http, http.get(path, allow_redirects=False) as reply:
        assert reply.status == 401, await reply.text()
        body = json.loads(await reply.text())
        assert body["code"] == "no_ticket"
        assert body["message"].endswith(".")
        assert "Set-Cookie" not in reply.headers


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        (lambda: mint(seconds=-1), 401, "ticket_expired"),
        (lambda: mint(runtime_id="r-other"), 403, "wrong_runtime"),
        (lambda: mint(runtime_id="r-other", key=b"x" * 32), 403, "wrong_runtime"),
        (lambda: mint(user="bob"), 403, "wrong_user"),
        (lambda: mint(key=b"x" * 32), 401, "bad_ticket"),
        (lambda: "secret", 401, "bad_ticket"),
    ],
)
async def test_a_ticket_that_is_not_right_is_told_why(
    runtime: Runtime, token: Callable[[], str], status: int, code: str
) -> None:
    async with runtime.http(token()) as http:
        async with http.get("api/contents") as reply:
            assert reply.status == status
            assert (await reply.json())["code"] == code
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect("api/kernels/any/channels")
        assert refused.value.status == status


async def test_a_ticket_opens_by_either_header_word_and_by_query(runtime: Runtime) -> None:
    async with runtime.http(None) as http:
        for word in ("Bearer", "token", "Token"):
            async with http.get("api/me", headers={"Authorization": f"{word} {mint()}"}) as reply:
                assert reply.status == 200
                assert (await reply.json())["identity"]["username"] == "ada"
                assert "Set-Cookie" not in reply.headers
        async with http.get(f"api/me?token={mint()}") as reply:
            assert reply.status == 200


async def test_a_page_of_the_app_may_call_and_no_other_page(runtime: Runtime) -> None:
    async with runtime.http(None) as http:
        wanted = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-xsrftoken",
        }
        for path in ("api/sessions", "files/a.txt", "minicolab/activity", "no/such"):
            async with http.options(path, headers=wanted) as reply:
                assert reply.status == 204
                assert reply.headers["Access-Control-Allow-Origin"] == ORIGIN
                allowed = reply.headers["Access-Control-Allow-Headers"].lower()
                assert all(name in allowed for name in ("authorization", "content-type", "x-xsrftoken"))
                assert "DELETE" in reply.headers["Access-Control-Allow-Methods"]
    async with runtime.http() as http:
        async with http.get("api/kernels", headers={"Origin": ORIGIN}) as reply:
            assert reply.status == 200
            assert reply.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert "Access-Control-Allow-Credentials" not in reply.headers
        for origin in ("http://evil.example", "null"):
            async with http.get("api/kernels", headers={"Origin": origin}) as reply:
                assert reply.status == 404
                assert reply.headers["Access-Control-Allow-Origin"] == ORIGIN


async def test_a_websocket_opens_to_the_app_and_to_programs_but_not_to_other_pages(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session("origin/a.ipynb")
    async with runtime.http() as http:
        for headers in ({"Origin": ORIGIN}, {}):
            socket = await runtime.connect(http, kernel_id, headers=headers)
            assert "6\n" in text_of(await socket.result(await socket.execute("print(2 * 3)")))
            await socket.close()
        for origin in ("http://evil.example", "null", "http://localhost:9"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await runtime.connect(http, kernel_id, headers={"Origin": origin})
            assert refused.value.status == 403


async def test_a_websocket_opens_with_the_ticket_in_the_query_as_browsers_must(runtime: Runtime) -> None:
    kernel_id = await runtime.start_session("query/a.ipynb")
    async with runtime.http(None) as http:
        socket = await http.ws_connect(f"api/kernels/{kernel_id}/channels?session_id=s&token={mint()}")
        page = Socket(socket, "s")
        assert text_of(await page.result(await page.execute("print('in')"))) == "in\n"
        await page.close()


async def test_html_that_the_runtime_serves_is_sandboxed(runtime: Runtime) -> None:
    (runtime.root / "page.html").write_text("<script>alert(1)</script>")
    async with runtime.http() as http, http.get("files/page.html") as reply:
        assert reply.status == 200
        policy = reply.headers["Content-Security-Policy"]
        assert "sandbox allow-scripts" in policy
        assert "allow-same-origin" not in policy


async def test_a_client_can_write_read_rename_and_delete_files(runtime: Runtime) -> None:
    body = {"type": "file", "format": "text", "content": "hello"}
    await runtime.json("api/contents/note.txt", "PUT", body)
    assert (runtime.root / "note.txt").read_text() == "hello"
    await runtime.json("api/contents/note.txt", "PATCH", {"path": "renamed.txt"})
    found = await runtime.json("api/contents/renamed.txt")
    assert found["content"] == "hello"
    await runtime.json("api/contents/renamed.txt", "DELETE")
    assert not (runtime.root / "renamed.txt").exists()


async def test_a_terminal_answers(runtime: Runtime) -> None:
    terminal = await runtime.json("api/terminals", "POST", {})
    async with runtime.http() as http:
        socket = await http.ws_connect(f"terminals/websocket/{terminal['name']}", headers={"Origin": ORIGIN})
        await socket.send_json(["stdin", "echo $((40+2)) $MINICOLAB_TICKET_KEY_FILE-\r"])
        seen = ""
        while "42 -" not in seen:
            kind, *rest = await socket.receive_json(timeout=PATIENCE)
            seen += rest[0] if kind == "stdout" else ""
        await socket.close()
    await runtime.json(f"api/terminals/{terminal['name']}", "DELETE")


async def test_a_warm_cell_is_not_held_up_by_delayed_acknowledgements(page: Socket) -> None:
    await page.result(await page.execute("1"))
    quickest = float("inf")
    # With Nagle's algorithm every single one takes 40 ms; the quickest of many tells the two apart on a busy machine too.
    for _ in range(300):
        begin = time.perf_counter()
        await page.result(await page.execute("print(1)"))
        quickest = min(quickest, time.perf_counter() - begin)
        if quickest < 0.035:
            break
    assert quickest < 0.035


async def test_the_kernel_listens_on_unix_sockets_only(runtime: Runtime, page: Socket) -> None:
    code = "import json, IPython; print(json.load(open(get_ipython().config.IPKernelApp.connection_file))['transport'])"
    assert text_of(await page.result(await page.execute(code))) == "ipc\n"
    assert any(path.is_socket() for path in (runtime.folder / "run").iterdir())


async def test_the_kernel_runs_in_the_working_folder_and_looks_like_colab(
    runtime: Runtime, page: Socket
) -> None:
    code = (
        "import os, sys\n"
        "print(os.getcwd(), 'google.colab' in str(get_ipython()), 'google.colab' in sys.modules,\n"
        "      bool(os.getenv('COLAB_RELEASE_TAG')), 'MINICOLAB_TICKET_KEY_FILE' in os.environ)"
    )
    assert text_of(await page.result(await page.execute(code))).split() == [
        str(runtime.root),
        "True",
        "True",
        "True",
        "False",
    ]


async def test_resources_have_colabs_shape(runtime: Runtime, page: Socket) -> None:
    found = await runtime.json("api/colab/resources")
    memory = found["memory"]
    assert 0 < memory["freeBytes"] < memory["totalBytes"]
    assert any(kernel["usedBytes"] > 10_000_000 for kernel in memory["kernels"])
    disk = found["disks"][0]["filesystem"]
    assert 0 < disk["usedBytes"] < disk["totalBytes"]
    assert isinstance(found["gpus"], list)


async def test_the_kernel_started_ahead_is_adopted_once_and_in_the_right_folder(
    start: Callable[..., Runtime],
) -> None:
    runtime = start(MINICOLAB_PRESTART="1")
    (runtime.root / "sub").mkdir()
    assert await runtime.json("api/kernels") == []
    first = await runtime.start_session("file1/a.ipynb")
    second = await runtime.start_session("file2/b.ipynb")
    third = await runtime.start_session("sub/c.ipynb")
    assert len({first, second, third}) == 3
    log = (runtime.folder / "log").read_text()
    assert log.count("takes over the kernel that was started ahead") == 1
    async with runtime.http() as http:
        for kernel_id, folder in (
            (first, runtime.root),
            (second, runtime.root),
            (third, runtime.root / "sub"),
        ):
            socket = await runtime.connect(http, kernel_id)
            answer = text_of(await socket.result(await socket.execute("import os; print(os.getcwd())")))
            assert answer.strip() == str(folder)
            await socket.close()


async def kernel_that_has(runtime: Runtime, *messages: str) -> str:
    """Return the kernel that knows of all these executions, once one does."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for kernel in await runtime.json("api/kernels"):
                if {e["msg_id"] for e in await runtime.executions(kernel["id"])} >= set(messages):
                    return str(kernel["id"])


async def test_a_kernel_that_is_killed_comes_back_and_says_why(runtime: Runtime, page: Socket) -> None:
    dies_when_told = "import os; print('before', flush=True); open('told').read(); os.kill(os.getpid(), 9)"
    os.mkfifo(runtime.root / "told")
    running = await page.execute(dies_when_told, cell="c")
    waiting = await page.execute("print('never')", cell="d")
    await page.until(lambda m: m["msg_type"] == "stream")
    kernel_id = await kernel_that_has(runtime, running, waiting)
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread((runtime.root / "told").write_text, "now")
    restarting = await page.until(
        lambda m: m["msg_type"] == "status" and m["content"]["execution_state"] == "restarting"
    )
    assert "SIGKILL" in restarting["content"]["reason"]
    kernels = {k["id"]: k.get("reason", "") for k in await runtime.json("api/kernels")}
    assert "SIGKILL" in kernels[kernel_id]
    by_id = {e["msg_id"]: e for e in await runtime.executions(kernel_id)}
    assert by_id[running]["status"] == "died"
    assert by_id[running]["outputs"][0]["text"] == "before\n"
    assert "SIGKILL" in by_id[running]["outputs"][-1]["evalue"]
    assert by_id[waiting]["status"] == "aborted"
    assert text_of(await page.result(await page.execute("print('back')"))) == "back\n"


async def test_runtime_unassign_ends_the_server_and_leaves_the_reason(start: Callable[..., Runtime]) -> None:
    runtime = start()
    kernel_id = await runtime.start_session()
    async with runtime.http() as http:
        socket = await runtime.connect(http, kernel_id)
        await socket.execute("from google.colab import runtime; runtime.unassign()")
        runtime.process.wait(PATIENCE)
        await socket.close()
    assert runtime.process.returncode == 0
    assert json.loads((runtime.folder / "run" / "end.json").read_text())["code"] == "unassigned"


async def test_a_deep_runtime_folder_is_no_obstacle_to_unix_sockets(
    start: Callable[..., Runtime], short_folder: Path
) -> None:
    deep = short_folder / ("d" * 60) / ("e" * 60)
    runtime = start(MINICOLAB_RUNTIME_DIR=str(deep))
    kernel_id = await runtime.start_session()
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        assert text_of(await page.result(await page.execute("print('deep')"))) == "deep\n"
        assert any(path.is_socket() for path in deep.iterdir())
        links = [
            path
            for path in Path(tempfile.gettempdir()).glob("mc-*")
            if path.is_symlink() and path.readlink() == deep
        ]
        assert len(links) == 1
        await page.close()
    stop(runtime)
    assert not links[0].is_symlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"MINICOLAB_RUNTIME_ID": ""}, "MINICOLAB_RUNTIME_ID is not set"),
        ({"MINICOLAB_PORT": "abc"}, "must be an integer"),
        ({"MINICOLAB_BASE_URL": "user/"}, "must start with '/'"),
        ({"MINICOLAB_ROOT": "/no/such/folder"}, "not a folder"),
        ({"MINICOLAB_TICKET_KEY_FILE": "/no/such/key"}, "cannot be read"),
    ],
)
def test_a_wrong_environment_is_refused_with_78_and_a_sentence(
    short_folder: Any, change: dict[str, str], said: str
) -> None:
    (short_folder / "key").write_bytes(KEY)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "MINICOLAB_RUNTIME_ID": "r-test",
        "MINICOLAB_USER": "ada",
        "MINICOLAB_BASE_URL": "/x/",
        "MINICOLAB_ROOT": str(short_folder),
        "MINICOLAB_RUNTIME_DIR": str(short_folder),
        "MINICOLAB_TICKET_KEY_FILE": str(short_folder / "key"),
        **change,
    }
    done = subprocess.run(
        [sys.executable, "-m", "minicolab_runtime.server"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 78
    assert said in done.stderr


LOOKS = """\
import gc, json, os, signal, subprocess, sys
print(json.dumps({
    "argv": [word for word in sys.argv if not word.endswith(".json")],
    "command": [word for word in sys.orig_argv if not word.endswith(".json")],
    "environment": {k: v for k, v in os.environ.items() if k not in ("JPY_SESSION_NAME", "PATH", "PWD", "OLDPWD")},
    "children's": sorted(set(subprocess.check_output(["env"], text=True).split()) - {"_=/usr/bin/env"}),
    "path": sys.path,
    "folder": os.getcwd(),
    "parent": os.getppid(),
    "leads": os.getsid(0) == os.getpid() == os.getpgid(0),
    "input": os.readlink("/proc/self/fd/0"),
    "interrupts": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    "collects": gc.isenabled(),
    "server": [name for name in sys.modules if name.startswith("jupyter_server") or sys.modules[name] is None],
    "shown": "minicolab_runtime.kernel -f" in open("/proc/self/cmdline").read().replace(chr(0), " "),
}))
"""


async def test_the_kernel_forked_ahead_is_like_one_that_was_started(start: Callable[..., Runtime]) -> None:
    runtime = start(MINICOLAB_PRESTART="1")
    found: list[dict[str, object]] = []
    async with runtime.http() as http:
        for document in ("a.ipynb", "b.ipynb"):
            socket = await runtime.connect(http, await runtime.start_session(document))
            found.append(json.loads(text_of(await socket.result(await socket.execute(LOOKS)))))
            await socket.close()
    ahead, started = found
    assert ahead["shown"] and ahead["leads"] and ahead["collects"] and ahead["server"] == []
    assert ahead["parent"] == runtime.process.pid
    for same in ("argv", "command", "environment", "path", "folder", "interrupts"):
        assert ahead[same] == started[same], same


async def test_the_kernel_forked_ahead_is_replaced_when_it_dies(start: Callable[..., Runtime]) -> None:
    runtime = start(MINICOLAB_PRESTART="1")
    async with runtime.http() as http:
        socket = await runtime.connect(http, await runtime.start_session("a.ipynb"))
        await socket.execute("import os; os.kill(os.getpid(), 9)")
        told = await socket.until(lambda m: m["content"].get("execution_state") == "restarting")
        assert "SIGKILL" in told["content"]["reason"]
        assert text_of(await socket.result(await socket.execute("print('back')"))) == "back\n"


async def test_the_kernel_forked_ahead_ends_with_a_server_that_is_killed(
    start: Callable[..., Runtime],
) -> None:
    runtime = start(MINICOLAB_PRESTART="1")
    async with runtime.http() as http:
        socket = await runtime.connect(http, await runtime.start_session("a.ipynb"))
        kernel = int(text_of(await socket.result(await socket.execute("import os; print(os.getpid())"))))
        runtime.process.kill()
        await until_async(lambda: not goes_on(kernel))


def test_a_process_that_waited_to_be_a_kernel_and_died_becomes_none() -> None:
    read, write = os.pipe()
    ahead = kernel_ahead.KernelAhead(os.spawnlp(os.P_NOWAIT, "true", "true"), write)
    os.close(read)
    ahead.wait()
    assert not ahead.become(["python"], {}, "/")


def test_a_process_that_waits_to_be_a_kernel_ends_with_the_server() -> None:
    code = (
        "import os\nfrom minicolab_runtime import kernel_ahead\n"
        "print(kernel_ahead.fork().pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        waits = int(server.stdout.readline())
        until(lambda: not Path(f"/proc/{waits}").exists())
