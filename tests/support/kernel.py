"""Run cells on a Jupyter Server over its public websocket, as any client would."""

from __future__ import annotations

import json
import uuid
from typing import Any

import requests
import websocket

from support.patience import PATIENCE


class Kernel:
    """One kernel of a runtime and a websocket to it."""

    def __init__(
        self, url: str, token: str, *, kernel_id: str | None = None, timeout: float = PATIENCE
    ) -> None:
        self._session = uuid.uuid4().hex
        headers = {"Authorization": f"token {token}"}
        if kernel_id is None:
            reply = requests.post(
                url + "api/kernels", headers=headers, json={"name": "python3"}, timeout=timeout
            )
            assert reply.status_code == 201, reply.text
            kernel_id = reply.json()["id"]
        self.id: str = kernel_id
        address = (
            url.replace("http", "ws", 1) + f"api/kernels/{kernel_id}/channels?session_id={self._session}"
        )
        self._ws = websocket.create_connection(
            address, timeout=timeout, header=[f"Authorization: token {token}"]
        )

    def close(self) -> None:
        self._ws.close()

    def send(
        self,
        kind: str,
        content: dict[str, Any],
        *,
        channel: str = "shell",
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Send a message and return its id."""
        msg_id = uuid.uuid4().hex
        header = {
            "msg_id": msg_id,
            "username": "test",
            "session": self._session,
            "msg_type": kind,
            "version": "5.3",
            "date": "",
        }
        body = {
            "header": header,
            "parent_header": {},
            "metadata": metadata or {},
            "content": content,
            "channel": channel,
            "buffers": [],
        }
        self._ws.send(json.dumps(body))
        return msg_id

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._ws.recv())
        return message

    def run(self, code: str, *, answer: Any = None, metadata: dict[str, Any] | None = None) -> str:
        """Run a cell; return what it printed, showed and raised. `answer(prompt)` replies to input()."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "allow_stdin": answer is not None,
            "stop_on_error": True,
        }
        wanted = self.send("execute_request", content, metadata=metadata)
        out, replied, idle = "", False, False
        while not (replied and idle):
            message = self.receive()
            kind, content = message["msg_type"], message["content"]
            if kind == "input_request" and answer is not None:
                self.send("input_reply", {"value": answer(content["prompt"], out)}, channel="stdin")
            if message["parent_header"].get("msg_id") != wanted:
                continue
            if kind == "stream":
                out += content["text"]
            elif kind == "error":
                out += f"{content['ename']}: {content['evalue']}\n"
            elif kind in ("execute_result", "display_data"):
                out += content["data"].get("text/plain", "") + "\n"
            elif kind == "execute_reply":
                replied = True
            elif kind == "status" and content["execution_state"] == "idle":
                idle = True
        return out


def run_cell(url: str, token: str, code: str, *, timeout: float = PATIENCE) -> str:
    """Run one cell on a new kernel."""
    kernel = Kernel(url, token, timeout=timeout)
    try:
        return kernel.run(code)
    finally:
        kernel.close()
