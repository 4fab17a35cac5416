"""What the drive plugin asks of the cluster's API, and what it makes of every bad answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes import client

from storage_mount.plugin import pods
from storage_mount.plugin.pods import KubernetesApi, Trouble


class Answering(ThreadingHTTPServer):
    """An API server that gives one scripted answer: a status and pieces of a body, None for a connection that breaks off."""

    daemon_threads = True

    def __init__(self, status: int, *pieces: bytes | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.pieces = status, pieces
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Answering
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.server.pieces:
            if piece is None:
                self.close_connection = True
                return
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def api(status: int, *pieces: bytes | None) -> Iterator[tuple[KubernetesApi, Answering]]:
    with Answering(status, *pieces) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
        configuration.retries = False
        core = client.CoreV1Api(client.ApiClient(configuration))
        yield (
            KubernetesApi(core, namespace="runtimes", node="node-7", installation="lab"),
            server,
        )
        server.shutdown()


def test_only_our_pods_of_this_node_are_asked_for() -> None:
    listed = {"kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": []}
    with api(200, json.dumps(listed).encode()) as (asked, server):
        assert asked.list() == listed
    path = urlsplit(server.asked[0])
    assert path.path == "/api/v1/namespaces/runtimes/pods"
    assert parse_qs(path.query) == {
        "fieldSelector": ["spec.nodeName=node-7"],
        "labelSelector": ["app.kubernetes.io/managed-by=minicolab,minicolab.dev/installation=lab"],
    }


def test_events_are_read_however_the_network_cuts_them() -> None:
    events = [{"type": "ADDED", "object": {"n": "ä" * 5000}}, {"type": "DELETED", "object": {}}]
    text = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events).encode()
    with api(200, *(text[at : at + 777] for at in range(0, len(text), 777))) as (asked, server):
        assert list(asked.watch("7")) == events
    query = parse_qs(urlsplit(server.asked[0]).query)
    assert query["watch"][0].lower() == "true"
    assert query["resourceVersion"] == ["7"]
    assert query["timeoutSeconds"] == [str(pods.WATCH_SECONDS)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(500, b"{}", id="500"),
        pytest.param(429, b"{}", id="429"),
        pytest.param(403, b"{}", id="forbidden"),
        pytest.param(200, b"<html>", id="no-json"),
        pytest.param(200, b'{"kind": "Status"}', id="no-list"),
        pytest.param(200, b'{"kind": "PodList", "items": [', id="half-a-list"),
        pytest.param(200, None, id="broken-off"),
    ],
)
def test_a_bad_list_is_trouble_and_never_an_empty_list(status: int, body: bytes | None) -> None:
    with api(status, body) as (asked, _), pytest.raises(Trouble):
        asked.list()


@pytest.mark.parametrize("broken", [None, b"no json\n"])
def test_a_watch_that_breaks_off_is_trouble_after_what_it_told(broken: bytes | None) -> None:
    with api(200, b'{"type": "ADDED", "object": {}}\n', broken) as (asked, _):
        events = asked.watch("7")
        assert next(events)["type"] == "ADDED"
        with pytest.raises(Trouble):
            next(events)


def test_nobody_there_is_trouble() -> None:
    with api(200) as (asked, _):
        pass
    with pytest.raises(Trouble):
        asked.list()


def test_a_watch_that_is_silent_for_too_long_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "WATCH_SECONDS", 0)
    monkeypatch.setattr(pods, "SILENCE_SECONDS", 0.2)
    over = threading.Event()

    class Silent(_Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            over.wait(60)

    with api(200) as (asked, server):
        server.RequestHandlerClass = Silent
        with pytest.raises(Trouble):
            next(asked.watch("7"))
        over.set()
