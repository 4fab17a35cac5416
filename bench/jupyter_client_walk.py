"""One user's walk through a Jupyter Server's public REST and websocket API: kernel, first output, warm cell."""

from __future__ import annotations

import json
import math
import statistics
import time
import uuid
from dataclasses import dataclass

import requests
import websocket


@dataclass(frozen=True)
class Walk:
    """Seconds from `start` on the caller's clock, and of a warm cell (NaN when none ran)."""

    first_output: float
    warm_cell: float


def message(kind: str, content: dict[str, object], session: str) -> dict[str, object]:
    """Return a Jupyter message for the JSON websocket."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "username": "bench",
        "session": session,
        "msg_type": kind,
        "version": "5.3",
        "date": "",
    }
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }


def execute(ws: websocket.WebSocket, session: str, code: str) -> str:
    """Run `code`; return its stdout once both the reply and idle have arrived."""
    request = message(
        "execute_request",
        {"code": code, "silent": False, "store_history": False, "allow_stdin": False},
        session,
    )
    header = request["header"]
    assert isinstance(header, dict)
    ws.send(json.dumps(request))
    out, replied, idle = "", False, False
    while not (replied and idle):
        reply = json.loads(ws.recv())
        if reply["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        kind = reply["msg_type"]
        if kind == "stream":
            out += reply["content"]["text"]
        elif kind == "execute_reply":
            replied = True
        elif kind == "status" and reply["content"]["execution_state"] == "idle":
            idle = True
    return out


def walk(server_url: str, token: str, started: float, *, warm_cells: int = 10) -> Walk:
    """Start a kernel on `server_url`, run a cell, then `warm_cells` more; `started` is when the user clicked (time.perf_counter)."""
    headers = {"Authorization": f"token {token}"}
    kernel = requests.post(server_url + "api/kernels", headers=headers, json={"name": "python3"}, timeout=60)
    kernel.raise_for_status()
    session = uuid.uuid4().hex
    address = (
        server_url.replace("http", "ws", 1)
        + f"api/kernels/{kernel.json()['id']}/channels?session_id={session}&token={token}"
    )
    ws = websocket.create_connection(address, timeout=60, header=[f"Authorization: token {token}"])
    try:
        text = execute(ws, session, "print(1)")
        assert text == "1\n", text
        first = time.perf_counter() - started
        took = []
        for _ in range(warm_cells):
            before = time.perf_counter()
            execute(ws, session, "print(2)")
            took.append(time.perf_counter() - before)
        return Walk(first, statistics.median(took) if took else math.nan)
    finally:
        ws.close()
