"""A registry that serves one small image, as slowly as a test wants."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LAYER_BYTES = 12 << 20
CHUNK_BYTES = 1 << 20
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass
class Registry:
    """`image` is its name for an engine; `half_way` is set when half of it was sent, the rest comes after `go_on` is.

    While `down` is set it hangs up on everybody, in the middle of a layer too; while `locked` is, it wants a password.
    """

    address: str
    half_way: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    down: threading.Event = field(default_factory=threading.Event)
    locked: threading.Event = field(default_factory=threading.Event)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""

    @property
    def image(self) -> str:
        return f"{self.address}/team/runtime:1"

    def fill(self) -> None:
        """Make an image of one layer that does not compress."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo("noise")
            entry.size = LAYER_BYTES
            tar.addfile(entry, io.BytesIO(os.urandom(LAYER_BYTES)))
        layer = gzip.compress(packed.getvalue(), 1)
        unpacked = f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}"
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": [unpacked]},
        }
        parts = [self._keep(json.dumps(config).encode(), CONFIG), self._keep(layer, LAYER)]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        self.manifest = json.dumps(manifest).encode()

    def _keep(self, blob: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        self.blobs[digest] = blob
        return {"mediaType": kind, "size": len(blob), "digest": digest}


@contextmanager
def registry(host: str) -> Iterator[Registry]:
    """Serve while inside."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            last = self.path.rpartition("/")[2]
            if served.down.is_set():
                self.close_connection = True
                return
            if served.locked.is_set():
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="a registry"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.path == "/v2/":
                body, kind = b"{}", "application/json"
            elif "/manifests/" in self.path and (last == "1" or last.startswith("sha256:")):
                body, kind = served.manifest, MANIFEST
            elif last in served.blobs:
                body, kind = served.blobs[last], "application/octet-stream"
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
            self.end_headers()
            for begin in range(0, len(body) if with_body else 0, CHUNK_BYTES):
                if begin >= LAYER_BYTES // 2:
                    served.half_way.set()
                    served.go_on.wait()
                if served.down.is_set():
                    self.close_connection = True
                    return
                self.wfile.write(body[begin : begin + CHUNK_BYTES])

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    served = Registry(f"{host}:{server.server_address[1]}")
    served.fill()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.go_on.set()
        server.shutdown()
        server.server_close()
