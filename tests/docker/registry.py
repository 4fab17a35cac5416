"""A registry: it serves one small image as slowly as a test wants, and takes and serves what is pushed to it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

LAYER_BYTES = 12 << 20
CHUNK_BYTES = 1 << 20
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
NOISE = "team/runtime:1"


@dataclass
class Registry:
    """`image` is its small image, for an engine; `half_way` is set when half of it was sent, the rest comes after `go_on` is.

    While `down` is set it hangs up on everybody, in the middle of a layer too; while `locked` is, it wants a password. `tags` says
    which manifest a name and tag mean: it may be changed, as whoever may push can. What it holds lies in `folder`, below its digest.
    """

    address: str
    folder: Path
    half_way: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    down: threading.Event = field(default_factory=threading.Event)
    locked: threading.Event = field(default_factory=threading.Event)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        return f"{self.address}/{NOISE}"

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
        parts = [self._part(json.dumps(config).encode(), CONFIG), self._part(layer, LAYER)]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        self.tags[NOISE] = self.keep(json.dumps(manifest).encode())

    def _part(self, blob: bytes, kind: str) -> dict[str, object]:
        return {"mediaType": kind, "size": len(blob), "digest": self.keep(blob)}

    def keep(self, blob: bytes) -> str:
        """Keep a blob and return its digest."""
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        self.blob(digest).write_bytes(blob)
        return digest

    def blob(self, digest: str) -> Path:
        return self.folder / digest.replace(":", "-")

    def manifest(self, name: str, reference: str) -> Path | None:
        """Return the manifest that a tag or digest of `name` means, None when there is none."""
        digest = reference if reference.startswith("sha256:") else self.tags.get(f"{name}:{reference}", "")
        path = self.blob(digest)
        return path if digest and path.is_file() else None


class _Handler(BaseHTTPRequestHandler):
    """The distribution API, as far as an engine pulls and pushes."""

    protocol_version = "HTTP/1.1"
    served: Registry

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        number = tempfile.mkstemp(prefix="upload-", dir=self.served.folder)[1].rpartition("-")[2]
        self._read_body(None)
        self._say(202, Location=f"{urlsplit(self.path).path.rstrip('/')}/{number}", Range="0-0")

    def do_PATCH(self) -> None:
        with self._upload().open("ab") as file:
            self._read_body(file)
            size = file.tell()
        self._say(202, Location=urlsplit(self.path).path, Range=f"0-{max(0, size - 1)}")

    def do_PUT(self) -> None:
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", self.path):
            body = io.BytesIO()
            self._read_body(body)
            digest = self.served.keep(body.getvalue())
            self.served.tags[f"{match[1]}:{match[2]}"] = digest
        else:
            [digest] = parse_qs(urlsplit(self.path).query)["digest"]
            with self._upload().open("ab") as file:
                self._read_body(file)
            self._upload().replace(self.served.blob(digest))
        self._say(201, Location=self.path, **{"Docker-Content-Digest": digest})

    def _upload(self) -> Path:
        return self.served.folder / f"upload-{Path(urlsplit(self.path).path).name}"

    def _read_body(self, into: IO[bytes] | None) -> None:
        """Read what the client sends, in one piece or in chunks."""
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        left = 0 if chunked else int(self.headers.get("Content-Length", 0))
        while chunked and (size := int(self.rfile.readline(), 16)):
            self._copy(size, into)
            self.rfile.readline()
        if chunked:
            self.rfile.readline()
        self._copy(left, into)

    def _copy(self, count: int, into: IO[bytes] | None) -> None:
        while count > 0 and (part := self.rfile.read(min(count, CHUNK_BYTES))):
            count -= len(part)
            if into is not None:
                into.write(part)

    def _say(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _answer(self, *, with_body: bool) -> None:
        if self.served.down.is_set():
            self.close_connection = True
            return
        if self.served.locked.is_set():
            self._say(401, **{"WWW-Authenticate": 'Basic realm="a registry"'})
            return
        found, kind = self._find()
        if found is None:
            self._say(404)
            return
        size = found.stat().st_size
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("Docker-Content-Digest", found.name.replace("-", ":"))
        self.end_headers()
        if not with_body:
            return
        with found.open("rb") as file:
            sent = 0
            while part := file.read(CHUNK_BYTES):
                if sent >= LAYER_BYTES // 2:
                    self.served.half_way.set()
                    self.served.go_on.wait()
                if self.served.down.is_set():
                    self.close_connection = True
                    return
                self.wfile.write(part)
                sent += len(part)

    def _find(self) -> tuple[Path | None, str]:
        if self.path == "/v2/":
            return self.served.blob(self.served.keep(b"{}")), "application/json"
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", self.path):
            return self.served.manifest(match[1], match[2]), MANIFEST
        path = self.served.blob(self.path.rpartition("/")[2])
        return (path if path.is_file() else None), "application/octet-stream"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def registry(host: str) -> Iterator[Registry]:
    """Serve while inside."""
    folder = Path(tempfile.mkdtemp(prefix="mc-registry-"))
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    served = Registry(f"{host}:{server.server_address[1]}", folder)
    handler.served = served  # type: ignore[attr-defined]
    served.fill()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.go_on.set()
        server.shutdown()
        server.server_close()
        shutil.rmtree(folder, ignore_errors=True)
