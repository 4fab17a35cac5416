"""`minicolab secrets create`: made once, never replaced."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hub.cli import serve
from support.service import run_command


class FakeApi(ThreadingHTTPServer):
    """The secrets of one namespace; `faults` are answered first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secrets: dict[str, dict[str, Any]] = {}
        self.faults: list[int] = []
        self.tokens: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: FakeApi

    def log_message(self, *_: object) -> None:
        pass

    def _reply(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _take(self) -> Any:
        self.server.tokens.add(self.headers["Authorization"])
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        if self.server.faults:
            self._reply(self.server.faults.pop(0), {"message": "not now"})
            return None
        return body or {}

    def do_POST(self) -> None:
        if (body := self._take()) is None:
            return
        name = body["metadata"]["name"]
        if name in self.server.secrets:
            self._reply(409, {"message": "already exists"})
            return
        body["metadata"]["resourceVersion"] = "1"
        self.server.secrets[name] = body
        self._reply(201, body)

    def do_GET(self) -> None:
        if self._take() is not None:
            self._reply(200, self.server.secrets[self.path.rsplit("/", 1)[1]])

    def do_PATCH(self) -> None:
        if (body := self._take()) is None:
            return
        found = self.server.secrets[self.path.rsplit("/", 1)[1]]
        assert body["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]
        found["data"] |= body["data"]
        self._reply(200, found)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def create(api: FakeApi, account: Path, *, check: bool = True) -> Any:
    (account / "token").write_text("tok\n")
    where = ("--api", f"http://127.0.0.1:{api.server_address[1]}", "--account", str(account))
    return run_command("secrets", "create", "--namespace", "n", "--name", "s", *where, check=check)


def test_what_it_makes_is_what_every_process_needs(api: FakeApi, tmp_path: Path) -> None:
    create(api, tmp_path)
    made = {name: base64.b64decode(value) for name, value in api.secrets["s"]["data"].items()}
    assert api.tokens == {"Bearer tok"}
    for process in serve.KEYS:
        for name in serve.KEYS[process]:
            assert len(made[f"{name}.key"]) == 32
        for name in serve.TOKENS[process]:
            assert len(made[f"{name}.token"].decode("ascii")) == 64
    assert len(set(made.values())) == len(made)


def test_a_second_run_changes_nothing(api: FakeApi, tmp_path: Path) -> None:
    create(api, tmp_path)
    before = json.dumps(api.secrets)
    assert "nothing was changed" in create(api, tmp_path).stdout
    assert json.dumps(api.secrets) == before


def test_only_what_is_missing_is_added(api: FakeApi, tmp_path: Path) -> None:
    create(api, tmp_path)
    before = dict(api.secrets["s"]["data"])
    del api.secrets["s"]["data"]["operator.key"]
    assert "operator.key" in create(api, tmp_path).stdout
    after = api.secrets["s"]["data"]
    assert after.keys() == before.keys()
    assert {k for k in after if after[k] != before[k]} == {"operator.key"}


def test_a_busy_server_is_asked_again_and_a_refusal_is_told(api: FakeApi, tmp_path: Path) -> None:
    api.faults = [503, 429]
    assert "was made" in create(api, tmp_path).stdout
    api.faults = [403]
    refused = create(api, tmp_path, check=False)
    assert refused.returncode == 5
    assert "not now" in refused.stderr
