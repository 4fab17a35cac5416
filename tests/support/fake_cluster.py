"""An API server of our own that does what real ones do on bad days: refuses, hangs, loses answers, forgets versions, falls silent.

Only what the Kubernetes backend's client uses: objects below `/api/v1/…`, watches with versions, deletes with preconditions.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Fault:
    """What happens to the next `times` requests it is for. `lose`: they are carried out, and the answer lost."""

    method: str
    times: int = 1
    status: int = 0
    reason: str = "InternalError"
    retry_after: str | None = None
    lose: bool = False
    hang: bool = False
    watch: bool = False


@dataclass
class FakeCluster:
    """Objects by path, and what is to go wrong."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    watches: list[Callable[[], None]] = field(default_factory=list)
    silent: bool = False
    old_list: dict[str, Any] | None = None  # what every list is answered with, as by a cache that lags behind
    port: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.versions = itertools.count(1)
        self.version = 0
        self.oldest = 0
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []  # version, kind of change, path, object
        self.changed = threading.Condition(self.lock)
        self.over = threading.Event()

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make or change an object."""
        with self.lock:
            kind = "MODIFIED" if path in self.objects else "ADDED"
            self.version = next(self.versions)
            before = self.objects.get(path, {}).get("metadata", {})
            uid = before.get("uid") or f"u-{self.version}"
            body = {
                **body,
                "metadata": {**body["metadata"], "uid": uid, "resourceVersion": str(self.version)},
            }
            self.objects[path] = body
            self._happened(kind, path, body)
            return body

    def remove(self, path: str) -> None:
        with self.lock:
            body = self.objects.pop(path)
            self.version = next(self.versions)
            body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
            self._happened("DELETED", path, body)

    def forget_history(self) -> None:
        """Make every version given out so far too old."""
        with self.lock:
            self.oldest = self.version + 1
            self.version = next(self.versions)
            self.history.clear()

    def cut_watches(self) -> None:
        """End every watch that is open."""
        with self.lock:
            for cut in self.watches:
                cut()
            self.watches.clear()

    def _happened(self, kind: str, path: str, body: dict[str, Any]) -> None:
        self.history.append((self.version, kind, path, body))
        self.changed.notify_all()

    def fault_for(self, method: str, watch: bool) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.watch == watch and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "users": [{"name": "fake", "user": {"token": "t0ken"}}],
        }
        path.write_text(json.dumps(text))
        return path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: FakeCluster

    def log_message(self, *_: object) -> None:
        return

    def _serve(self) -> None:
        cluster, parts = self.cluster, urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        watch = "watch" in query
        with cluster.lock:
            cluster.requests.append(f"{self.command} {parts.path}{'?watch' if watch else ''}")
        fault = cluster.fault_for(self.command, watch)
        if fault is not None and fault.hang:
            cluster.over.wait()
            return
        if fault is not None and fault.status:
            self._answer(fault.status, _status(fault.status, fault.reason), fault.retry_after)
            return
        if watch:
            self._watch(parts.path, int(query["resourceVersion"]))
            return
        status, answer = self._do(parts.path, body)
        if fault is not None and fault.lose:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self._answer(status, answer)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve

    def _do(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        cluster = self.cluster
        with cluster.lock:
            if self.command == "POST":
                name = f"{path}/{body['metadata']['name']}"
                if name in cluster.objects:
                    return 409, _status(409, "AlreadyExists")
                return 201, cluster.put(name, body)
            found = cluster.objects.get(path)
            if self.command == "GET" and path.rpartition("/")[2] in ("pods", "secrets", "events"):
                if cluster.old_list is not None:
                    return 200, cluster.old_list
                items = [o for p, o in cluster.objects.items() if p.rpartition("/")[0] == path]
                return 200, {"items": items, "metadata": {"resourceVersion": str(cluster.version)}}
            if found is None:
                return 404, _status(404, "NotFound")
            if self.command == "DELETE":
                if (body or {}).get("preconditions", {}).get("uid") != found["metadata"]["uid"]:
                    return 409, _status(409, "Conflict")
                cluster.remove(path)
            if self.command == "PATCH":
                wanted = body["metadata"].get("resourceVersion")
                if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
                    return 409, _status(409, "Conflict")
                annotations = {
                    **found["metadata"].get("annotations", {}),
                    **body["metadata"].get("annotations", {}),
                }
                return 200, cluster.put(
                    path, {**found, "metadata": {**found["metadata"], "annotations": annotations}}
                )
            return 200, found

    def _watch(self, path: str, version: int) -> None:
        cluster = self.cluster
        with cluster.lock:
            too_old = version < cluster.oldest
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if too_old:
            self._chunk({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
            self.wfile.write(b"0\r\n\r\n")
            return
        ended = threading.Event()

        def cut() -> None:
            ended.set()
            self.connection.shutdown(socket.SHUT_RDWR)

        with cluster.lock:
            cluster.watches.append(cut)
        while not ended.is_set() and not cluster.over.is_set():
            with cluster.lock:
                news = [] if cluster.silent else [h for h in cluster.history if h[0] > version]
                if not news:
                    cluster.changed.wait(0.05)
            try:
                for number, kind, where, body in news:
                    version = number
                    if where.rpartition("/")[0] == path:
                        self._chunk({"type": kind, "object": body})
            except OSError:
                return
        self.close_connection = True

    def _chunk(self, event: dict[str, Any]) -> None:
        data = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _answer(self, status: int, answer: dict[str, Any], retry_after: str | None = None) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(data)


def _status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": f"{reason} ({code})"}


@contextmanager
def fake_cluster() -> Iterator[FakeCluster]:
    """Yield a cluster that answers on loopback."""
    cluster = FakeCluster()
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    cluster.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
    try:
        yield cluster
    finally:
        cluster.over.set()
        server.shutdown()
        server.server_close()
