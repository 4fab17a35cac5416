"""A real runtime server in a process of its own, and a client that speaks Jupyter's REST and websocket API to it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from support.patience import PATIENCE

SOURCES = Path(__file__).parents[3] / "images" / "runtime" / "src"
ORIGIN = "http://localhost:8000"
KEY = bytes(range(32))


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def mint(*, runtime_id: str = "r-test", user: str = "ada", seconds: float = 600, key: bytes = KEY) -> str:
    body = {"r": runtime_id, "u": user, "e": int(time.time() + seconds), "n": uuid.uuid4().hex}
    payload = b64(json.dumps(body, separators=(",", ":")).encode())
    return f"mc1.{payload}." + b64(hmac.new(key, f"mc1.{payload}".encode(), hashlib.sha256).digest())


class Socket:
    """One websocket of a page to a kernel."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self.socket = socket
        self.session = session

    async def send(
        self,
        message_type: str,
        content: dict[str, Any],
        *,
        channel: str = "shell",
        metadata: dict[str, Any] | None = None,
    ) -> str:
        message_id = uuid.uuid4().hex
        header = {
            "msg_id": message_id,
            "msg_type": message_type,
            "session": self.session,
            "username": "ada",
            "version": "5.3",
            "date": "2026-11-24T00:00:00Z",
        }
        await self.socket.send_json(
            {
                "header": header,
                "parent_header": {},
                "metadata": metadata or {},
                "content": content,
                "channel": channel,
                "buffers": [],
            }
        )
        return message_id

    async def execute(
        self, code: str, *, cell: str | None = "cell-1", supports: list[str] | None = None, page: bool = True
    ) -> str:
        metadata: dict[str, Any] = {}
        if cell is not None:
            metadata["cellId"] = cell
        if page:
            metadata["colab"] = {"cell_id": cell, "supports": supports or []}
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": True,
            "stop_on_error": True,
        }
        return await self.send("execute_request", content, metadata=metadata)

    async def receive(self, timeout: float = PATIENCE) -> dict[str, Any]:
        message: dict[str, Any] = await self.socket.receive_json(timeout=timeout)
        return message

    async def until(
        self, wanted: Callable[[dict[str, Any]], bool], timeout: float = PATIENCE
    ) -> dict[str, Any]:
        """Read messages up to the first that is wanted."""
        async with asyncio.timeout(timeout):
            while True:
                message = await self.receive(timeout)
                if wanted(message):
                    return message

    async def each(self, *wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Read messages until one of each kind has come, in whatever order the channels bring them."""
        found: dict[int, dict[str, Any]] = {}
        async with asyncio.timeout(PATIENCE):
            while len(found) < len(wanted):
                message = await self.receive()
                for index, is_wanted in enumerate(wanted):
                    if index not in found and is_wanted(message):
                        found[index] = message
        return [found[index] for index in range(len(wanted))]

    async def result(self, message_id: str, timeout: float = PATIENCE) -> list[dict[str, Any]]:
        """Return every message of one request, up to the kernel's idle."""
        found = []
        async with asyncio.timeout(timeout):
            while True:
                message = await self.receive(timeout)
                if message["parent_header"].get("msg_id") != message_id:
                    continue
                found.append(message)
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    return found

    async def reply(self, request: dict[str, Any], **answer: Any) -> None:
        """Answer a colab_request."""
        value = {"type": "colab_reply", "colab_msg_id": request["metadata"]["colab_msg_id"], **answer}
        await self.send("input_reply", {"value": value, "status": "ok"}, channel="stdin")

    async def close(self) -> None:
        await self.socket.close()


def text_of(messages: list[dict[str, Any]], name: str = "stdout") -> str:
    return "".join(
        m["content"]["text"] for m in messages if m["msg_type"] == "stream" and m["content"]["name"] == name
    )


class Runtime:
    """A running server, and a client of it. `process` is None when it is not ours to end; `ticket` makes what opens it."""

    def __init__(
        self,
        folder: Path,
        process: subprocess.Popen[bytes] | None,
        base: str,
        ticket: Callable[[], str] = mint,
    ) -> None:
        self.folder = folder
        self.process = process
        self.url = base
        self.root = folder / "content"
        self.ticket = ticket

    def http(self, token: str | None = "") -> aiohttp.ClientSession:
        headers = {} if token is None else {"Authorization": f"Bearer {token or self.ticket()}"}
        return aiohttp.ClientSession(base_url=self.url, headers=headers)

    async def json(self, path: str, method: str = "GET", body: Any = None) -> Any:
        async with self.http() as http, http.request(method, path, json=body) as reply:
            assert reply.status < 300, (reply.status, await reply.text())
            return await reply.json() if reply.content_type == "application/json" else None

    async def start_session(self, path: str = "id/a.ipynb") -> str:
        model = {"path": path, "name": "a.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
        session = await self.json("api/sessions", "POST", model)
        return str(session["kernel"]["id"])

    async def connect(self, http: aiohttp.ClientSession, kernel_id: str, **options: Any) -> Socket:
        session = uuid.uuid4().hex
        socket = await http.ws_connect(
            f"api/kernels/{kernel_id}/channels?session_id={session}", max_msg_size=0, **options
        )
        return Socket(socket, session)

    async def executions(self, kernel_id: str) -> list[dict[str, Any]]:
        found = await self.json(f"minicolab/executions?kernel_id={kernel_id}")
        executions: list[dict[str, Any]] = found["executions"]
        return executions


def start_runtime(folder: Path, command: Sequence[str] = (sys.executable,), **environment: str) -> Runtime:
    """Start a server in `folder`; `command` is the Python to run it with (and what that is to be run in)."""
    for name in ("content", "run", "home"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "key").write_bytes(KEY)
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(SOURCES),
        "MINICOLAB_RUNTIME_ID": "r-test",
        "MINICOLAB_USER": "ada",
        "MINICOLAB_FILE_ID": "file1",
        "MINICOLAB_BASE_URL": "/user/ada/r-test/",
        "MINICOLAB_HOST": "127.0.0.1",
        "MINICOLAB_PORT": "0",
        "MINICOLAB_READY_FILE": str(folder / "ready.json"),
        "MINICOLAB_TICKET_KEY_FILE": str(folder / "key"),
        "MINICOLAB_ALLOW_ORIGIN": ORIGIN,
        "MINICOLAB_ROOT": str(folder / "content"),
        "MINICOLAB_RUNTIME_DIR": str(folder / "run"),
        **environment,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-m", "minicolab_runtime.server"],
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    ready = folder / "ready.json"
    deadline = time.monotonic() + PATIENCE
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError((folder / "log").read_text())
        time.sleep(0.02)
    facts = json.loads(ready.read_text())
    return Runtime(folder, process, f"http://127.0.0.1:{facts['port']}{facts['base_url']}")


def stop(runtime: Runtime) -> None:
    assert runtime.process is not None
    runtime.process.terminate()
    try:
        runtime.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        runtime.process.kill()
        runtime.process.wait()
