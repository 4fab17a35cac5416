"""Files of the pages: the notebook program, its plug-ins, our own scripts and styles. The same for everybody, no secrets."""

from __future__ import annotations

import asyncio
import gzip
import mimetypes
import re
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

from tornado import web

from hub.web.errors import not_found
from hub.web.handlers import ApiHandler

_HASHED = re.compile(r"(?:^|[.-])[0-9a-f]{12,64}\.")
_COMPRESSIBLE = frozenset(
    {
        "text/html",
        "text/css",
        "text/plain",
        "text/javascript",
        "application/javascript",
        "application/json",
        "image/svg+xml",
        "application/wasm",
    }
)
_SMALLEST_COMPRESSED = 1024
_CACHE_BYTES = 64 << 20
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".woff2": "font/woff2",
}


class AssetCache:
    """Compressed forms of asset files, made once. At most 64 MiB."""

    def __init__(self) -> None:
        self._compressed: dict[tuple[Path, float], bytes] = {}
        self._size = 0

    async def compressed(self, path: Path, modified: float) -> bytes:
        """Return the gzip form of a file."""
        key = (path, modified)
        found = self._compressed.get(key)
        if found is None:
            found = await asyncio.to_thread(lambda: gzip.compress(path.read_bytes(), 6, mtime=0))
            if self._size + len(found) > _CACHE_BYTES:
                self._compressed.clear()
                self._size = 0
            self._compressed[key] = found
            self._size += len(found)
        return found


def inside(folder: Path, path: str) -> Path | None:
    """Return the file `path` below `folder`, None when there is none or the path leaves the folder."""
    if "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        return None
    file = (folder / path).resolve()
    return file if file.is_relative_to(folder.resolve()) and file.is_file() else None


class AssetHandler(ApiHandler):
    """Serves one tree of assets. `find` returns the file for a path, or None."""

    def initialize(self, find: Callable[[str], Path | None]) -> None:
        self._find = find

    def set_default_headers(self) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")

    async def prepare(self) -> None:
        """Assets are for everybody."""

    async def head(self, path: str) -> None:
        await self.get(path)

    async def get(self, path: str) -> None:
        file = self._find(path)
        if file is None:
            raise not_found("No such address.")
        stat = file.stat()
        etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self.set_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.set_header("Etag", etag)
        self.set_header("Last-Modified", formatdate(stat.st_mtime, usegmt=True))
        self.set_header("Vary", "Accept-Encoding")
        lasting = _HASHED.search(file.name) is not None
        self.set_header("Cache-Control", "public, max-age=31536000, immutable" if lasting else "no-cache")
        if self.request.headers.get("If-None-Match") == etag:
            self.set_status(304)
            return
        if (
            kind in _COMPRESSIBLE
            and stat.st_size >= _SMALLEST_COMPRESSED
            and "gzip" in self.request.headers.get("Accept-Encoding", "")
        ):
            cache: AssetCache = self.settings["asset_cache"]
            data = await cache.compressed(file, stat.st_mtime)
            self.set_header("Content-Encoding", "gzip")
        else:
            data = await asyncio.to_thread(file.read_bytes)
        if self.request.method == "HEAD":
            self.set_header("Content-Length", str(len(data)))
            return
        self.write(data)

    def compute_etag(self) -> str | None:
        return None


def asset_route(
    pattern: str, find: Callable[[str], Path | None]
) -> tuple[str, type[web.RequestHandler], dict[str, object]]:
    """Return the route of one tree of assets."""
    return (pattern, AssetHandler, {"find": find})
