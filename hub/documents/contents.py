"""The Contents addresses that the notebook page asks for, in Jupyter's words.

A file's path is `<file id>/<name>`; only the id finds it. The page reads through here, renames through here (which renames in
the Drive), and saves through its room; every other change goes through `api/v1/files`, so those methods do not exist here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import mimetypes
from typing import Any
from urllib.parse import quote

from hub.documents.examples import PREFIX
from hub.documents.jupyter_api import JupyterHandler
from hub.documents.library import Library
from hub.documents.pages import BASE
from hub.documents.rooms import shape
from hub.documents.rooms.form import parse
from hub.documents.rooms.rooms import Rooms
from hub.documents.rooms.shape import NotShareable
from hub.web.body import only_fields, text_field
from hub.web.errors import ApiError, bad_request, denied, not_found
from hub.web.storage import as_api_errors
from storage_mount.model import FileEntry, FileType, Role

MAX_TEXT_BYTES = 32 << 20  # what the page may load at once; larger files are downloaded


class ContentsBase(JupyterHandler):
    """Finds the file of a path."""

    @property
    def library(self) -> Library:
        library: Library = self.settings["library"]
        return library

    async def entry(self, path: str) -> FileEntry:
        """Return the file `<id>/<anything>`; raise ApiError."""
        with as_api_errors():
            return await self.library.entry(self.user.name, path.strip("/").split("/")[0])


class ContentsHandler(ContentsBase):
    """`api/contents/<id>/<name>`."""

    async def get(self, path: str) -> None:
        parts = path.strip("/").split("/")
        content = self.get_query_argument("content", "1")
        if content not in ("0", "1"):
            raise bad_request("bad_argument", "content must be 0 or 1.", field="content")
        wanted = self.get_query_argument("type", None)
        if wanted not in (None, "file", "directory", "notebook"):
            raise bad_request("bad_argument", "type must be file, directory or notebook.", field="type")
        if parts == [""]:
            self.reply(_folder("", "", [] if content == "1" else None))
            return
        entry = await self.entry(path)
        if len(parts) == 1:
            children = [await self.model(entry, content=False)] if content == "1" else None
            self.reply(_folder(entry.id, entry.id, children))
            return
        if entry.type is FileType.FOLDER or wanted == "directory":
            raise bad_request("not_a_file", "Folders are shown on the Drive page.")
        if wanted == "notebook" and entry.type is not FileType.NOTEBOOK:
            raise bad_request("not_a_notebook", "This file is no notebook.")
        self.reply(await self.model(entry, content=content == "1", as_file=wanted == "file"))

    async def patch(self, path: str) -> None:
        """Rename."""
        body = self.json_body()
        only_fields(body, {"path"})
        target = text_field(body, "path", max_length=1024).strip("/")
        entry = await self.entry(path)
        if entry.id.startswith(PREFIX) or not entry.role.allows(Role.EDITOR):
            raise denied("denied", "You may not rename this file.")
        folder, _, name = target.rpartition("/")
        if folder != entry.id:
            raise bad_request("bad_path", "A file is moved on the Drive page.", field="path")
        with as_api_errors():
            renamed = await self.library.rename(self.user.name, entry.id, name)
        self.reply(await self.model(renamed, content=False))

    async def model(self, entry: FileEntry, *, content: bool, as_file: bool = False) -> dict[str, Any]:
        """Return Jupyter's model of a file."""
        notebook = entry.type is FileType.NOTEBOOK and not as_file
        out: dict[str, Any] = {
            "name": entry.name,
            "path": f"{entry.id}/{entry.name}",
            "created": entry.created.isoformat(),
            "last_modified": entry.modified.isoformat(),
            "size": entry.size,
            "writable": entry.role.allows(Role.EDITOR),
            "type": "notebook" if notebook else "file",
            "mimetype": None
            if notebook
            else mimetypes.guess_type(entry.name)[0] or "application/octet-stream",
            "format": None,
            "content": None,
            "hash": None,
            "hash_algorithm": None,
        }
        if not content:
            return out
        if not notebook and (entry.size or 0) > MAX_TEXT_BYTES:
            raise ApiError(413, "too_large", f"Files larger than {MAX_TEXT_BYTES >> 20} MiB are downloaded.")
        rooms: Rooms = self.settings["rooms"]
        try:
            await rooms.settle(entry.id)
            with as_api_errors():
                raw, entry = await self.library.read(entry)
            out["hash"] = hashlib.sha256(raw).hexdigest()
            out["hash_algorithm"] = "sha256"
            if notebook:
                document = await asyncio.to_thread(parse, raw)
                shared = await asyncio.to_thread(shape.to_shared, document, shape.cell_ids(document))
                out |= {"format": "json", "content": shared}
            else:
                out |= _as_text(raw)
        except NotShareable as error:
            raise ApiError(422, "bad_notebook", str(error)) from error
        return out


def _as_text(raw: bytes) -> dict[str, Any]:
    try:
        return {"format": "text", "content": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"format": "base64", "content": base64.b64encode(raw).decode()}


def _folder(name: str, path: str, children: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {
        "name": name,
        "path": path,
        "created": "1970-01-01T00:00:00+00:00",
        "last_modified": "1970-01-01T00:00:00+00:00",
        "size": None,
        "writable": False,
        "type": "directory",
        "mimetype": None,
        "format": None if children is None else "json",
        "content": children,
        "hash": None,
        "hash_algorithm": None,
    }


class CheckpointsHandler(ContentsBase):
    """`.../checkpoints`: the page asks for one after a manual save. A save is durable by itself; earlier versions are the Drive's."""

    async def get(self, path: str) -> None:
        await self.entry(path)
        self.reply([])

    async def post(self, path: str) -> None:
        entry = await self.entry(path)
        self.reply({"id": "saved", "last_modified": entry.modified.isoformat()}, 201)


class FilesHandler(ContentsBase):
    """`files/<id>/<name>`: the address the page makes for a download."""

    async def get(self, path: str) -> None:
        parts = path.strip("/").split("/")
        entry = await self.entry(path)
        if len(parts) != 2 or parts[1] != entry.name or entry.type is FileType.FOLDER:
            raise not_found()
        self.redirect(f"{BASE}api/v1/files/{quote(entry.id)}/content")
