"""The bytes of files: read, replace, download, upload. User bytes never run on the app's origin."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import quote

from tornado.web import stream_request_body

from hub.documents.api.base import DriveHandler
from hub.documents.examples import PREFIX
from hub.documents.rooms.shape import NotShareable
from hub.documents.rooms.shelf import ShelfError
from hub.web.errors import ApiError, bad_request, conflict
from hub.web.storage import as_api_errors
from storage_mount import notebook
from storage_mount.model import FileEntry, FileType

CHUNK_BYTES = 1 << 20
QUEUED_CHUNKS = 16  # how far the network may run ahead of the disk

# Uploads wait for the network, so they have threads of their own and keep nobody else waiting.
_UPLOADS = ThreadPoolExecutor(32, thread_name_prefix="upload")


class BytesHandler(DriveHandler):
    """Sends a file's bytes."""

    async def send(self, entry: FileEntry, name: str | None = None) -> None:
        """Stream the file, the whole or the asked range, as something to save, never to show as a page."""
        fd, entry = await self._open(entry)
        try:
            size = os.fstat(fd).st_size
            start, end = self._range(size, entry.etag)
            self.set_header("Content-Type", mimetypes.guess_type(entry.name)[0] or "application/octet-stream")
            if self.get_header("Content-Type").startswith(
                ("text/html", "image/svg", "application/xhtml", "text/xml")
            ):
                self.set_header("Content-Type", "application/octet-stream")
            self.set_header("Content-Security-Policy", "sandbox; default-src 'none'")
            self.set_header(
                "Content-Disposition", f"attachment; filename*=UTF-8''{quote(name or entry.name)}"
            )
            self.set_header("Accept-Ranges", "bytes")
            self.set_header("ETag", entry.etag)
            if self.request.headers.get("If-None-Match") == entry.etag:
                self.set_status(304)
                return
            self.set_header("Content-Length", str(end - start))
            if (start, end) != (0, size):
                self.set_status(206)
                self.set_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            while start < end:
                chunk = await asyncio.to_thread(os.pread, fd, min(CHUNK_BYTES, end - start), start)
                if not chunk:
                    break
                start += len(chunk)
                self.write(chunk)
                await self.flush()
        finally:
            os.close(fd)

    def get_header(self, name: str) -> str:
        return str(self._headers[name])

    async def _open(self, entry: FileEntry) -> tuple[int, FileEntry]:
        if entry.id.startswith(PREFIX):
            return os.open(self.examples.get(entry.id).file, os.O_RDONLY), entry
        opened: tuple[int, FileEntry] = await self.run(self.files.open_read, entry.id)
        return opened

    def _range(self, size: int, etag: str) -> tuple[int, int]:
        """Return (start, end) of a single byte range. Raise 416. Anything but one plain range means the whole."""
        header = self.request.headers.get("Range", "")
        if (
            not header.startswith("bytes=")
            or "," in header
            or self.request.headers.get("If-Range", etag) != etag
        ):
            return 0, size
        first, dash, last = header[6:].strip().partition("-")
        if (
            not dash
            or not all(
                part.isascii() and (part.isdigit() or not part) and len(part) < 20 for part in (first, last)
            )
            or not (first or last)
        ):
            return 0, size
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= end:
            raise ApiError(
                416,
                "bad_range",
                "The range lies outside the file.",
                headers={"Content-Range": f"bytes */{size}"},
            )
        return start, end


class ContentHandler(BytesHandler):
    """`files/<id>/content`"""

    @classmethod
    def body_limit(cls, settings: dict[str, Any]) -> int:
        return int(settings["max_notebook"])

    async def get(self, file_id: str) -> None:
        entry = await self.entry(file_id)
        if entry.type is FileType.FOLDER:
            raise bad_request("is_a_folder", "A folder has no content.")
        await self._settle(file_id)
        await self.send(entry)

    async def put(self, file_id: str) -> None:
        self.refuse_example(file_id)
        raw = self.request.body
        entry = await self.entry(file_id)
        if_match = self.request.headers.get("If-Match")
        await self._settle(file_id)
        if entry.type is FileType.NOTEBOOK and if_match is not None:
            with as_api_errors():
                await asyncio.to_thread(notebook.check, raw)
            try:
                with as_api_errors():
                    in_room = await self.rooms.replace(file_id, raw, None if if_match == "*" else if_match)
            except (ShelfError, NotShareable) as error:
                raise conflict("changed", str(error)) from error
            if in_room:
                self.reply_entry(await self.entry(file_id))
                return
        self.reply_entry(await self.run(self.files.write, file_id, raw, if_match=if_match))

    async def _settle(self, file_id: str) -> None:
        """Have an open room write what it holds, so that what is read is what was last acknowledged."""
        try:
            await self.rooms.settle(file_id)
        except ShelfError as error:
            raise ApiError(503, "storage_error", str(error), headers={"Retry-After": "5"}) from error


class DownloadHandler(BytesHandler):
    """`files/<id>/download?format=`: as it is, or a notebook as a Python script."""

    async def get(self, file_id: str) -> None:
        entry = await self.entry(file_id)
        if entry.type is FileType.FOLDER:
            raise bad_request(
                "is_a_folder", "Folders can not be downloaded yet; open it and download its files."
            )
        kind = self.get_query_argument("format", "")
        if kind not in ("", "ipynb", "py"):
            raise bad_request("bad_format", "format must be ipynb or py.", field="format")
        await self.rooms.settle(file_id)
        if kind != "py":
            await self.send(entry)
            return
        if entry.type is not FileType.NOTEBOOK:
            raise bad_request(
                "not_a_notebook", "Only notebooks can be downloaded as a script.", field="format"
            )
        with as_api_errors():
            raw, _ = await self.library.read(entry)
            text = await asyncio.to_thread(as_script, raw)
        self.set_header("Content-Type", "text/x-python; charset=utf-8")
        self.set_header("Content-Security-Policy", "sandbox; default-src 'none'")
        self.set_header(
            "Content-Disposition",
            f"attachment; filename*=UTF-8''{quote(entry.name.removesuffix('.ipynb') + '.py')}",
        )
        self.finish(text)


def as_script(raw: bytes) -> str:
    """Return a notebook as a Python script (nbconvert). Raise BadNotebook."""
    import nbformat
    from nbconvert import PythonExporter

    notebook.check(raw)
    document = nbformat.reads(raw.decode("utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    text: str = PythonExporter().from_notebook_node(document)[0]  # type: ignore[no-untyped-call]
    return text


@stream_request_body
class UploadHandler(DriveHandler):
    """`files/upload?parent=&name=`: a file of any size, written as it arrives."""

    def initialize(self) -> None:
        self._chunks: queue.Queue[bytes | None] = queue.Queue(QUEUED_CHUNKS)
        self._writing: asyncio.Future[Any] | None = None
        self._refusal: ApiError | None = None

    @classmethod
    def body_limit(cls, settings: dict[str, Any]) -> int:
        return int(settings["max_upload"])

    async def prepare(self) -> None:
        limit = self.body_limit(self.settings)
        if "Content-Length" in self.request.headers:
            self.request.connection.set_max_body_size(limit)  # type: ignore[union-attr]  # tornado's HTTP1Connection
        try:
            await super().prepare()
        except ApiError as refusal:
            # Told once the body was read: an answer before that would reach the client as a broken connection.
            self._refusal = refusal
            return
        name, parent = self.get_query_argument("name", ""), self.get_query_argument("parent", "root")
        upload = partial(self.files.upload, self.user.name, parent, name, self._arriving())
        self._writing = asyncio.get_running_loop().run_in_executor(_UPLOADS, upload)

    def _arriving(self) -> Iterator[bytes]:
        while (chunk := self._chunks.get()) is not None:
            if chunk == b"":
                raise ConnectionAbortedError("the upload was broken off")
            yield chunk

    async def data_received(self, chunk: bytes) -> None:
        if self._writing is not None and not self._writing.done():
            await self._put(chunk)

    async def _put(self, chunk: bytes | None) -> None:
        """Hand a chunk to the writing thread; wait while it is behind, unless it gave up."""
        assert self._writing is not None
        while not self._writing.done():
            try:
                self._chunks.put_nowait(chunk)
                return
            except queue.Full:
                await asyncio.wait({self._writing}, timeout=0.01)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._writing is not None and not self._writing.done():
            self._ending = asyncio.ensure_future(self._put(b""))

    async def post(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        assert self._writing is not None
        await self._put(None)
        with as_api_errors():
            entry = await self._writing
        self.set_header("Location", f"/services/documents/api/v1/files/{entry.id}")
        self.reply_entry(entry, 201)
