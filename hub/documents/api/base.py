"""What every endpoint of the Drive's API shares."""

from __future__ import annotations

import asyncio
from typing import Any

from hub.documents.examples import PREFIX, Examples
from hub.documents.library import Library
from hub.documents.rooms.rooms import Rooms
from hub.settings import Service
from hub.web.errors import denied
from hub.web.handlers import ApiHandler
from hub.web.storage import as_api_errors
from storage_mount.model import FileEntry
from storage_mount.service import DriveService


class DriveHandler(ApiHandler):
    """An endpoint of the Drive."""

    @property
    def files(self) -> DriveService:
        files: DriveService = self.settings["drive"]
        return files

    @property
    def library(self) -> Library:
        library: Library = self.settings["library"]
        return library

    @property
    def examples(self) -> Examples:
        examples: Examples = self.settings["examples"]
        return examples

    @property
    def rooms(self) -> Rooms:
        rooms: Rooms = self.settings["rooms"]
        return rooms

    @property
    def service(self) -> Service:
        service: Service = self.settings["service"]
        return service

    async def run(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a method of DriveService for the caller; its refusals become HTTP answers."""
        with as_api_errors():
            return await asyncio.to_thread(call, self.user.name, *args, **kwargs)

    async def entry(self, file_id: str) -> FileEntry:
        """Return a file or example the caller may see. Raise 404."""
        with as_api_errors():
            return await self.library.entry(self.user.name, file_id)

    def refuse_example(self, file_id: str) -> None:
        """Raise 403 for an example: it belongs to nobody and is never changed."""
        if file_id.startswith(PREFIX):
            self.examples.get(file_id)
            raise denied("read_only", "Examples can not be changed. Copy it to your Drive first.")

    def reply_entry(self, entry: FileEntry, status: int = 200, **more: Any) -> None:
        self.set_header("ETag", entry.etag)
        self.reply({**entry_model(entry), **more}, status)


def entry_model(entry: FileEntry) -> dict[str, Any]:
    """Return a file as the API shows it. Times are ISO 8601 in UTC."""
    out: dict[str, Any] = {
        "id": entry.id,
        "name": entry.name,
        "path": entry.path,
        "parent": entry.parent,
        "type": entry.type,
        "size": entry.size,
        "created": _iso(entry.created),
        "modified": _iso(entry.modified),
        "role": entry.role,
        "owner": entry.owner,
        "etag": entry.etag,
    }
    if entry.trashed is not None:
        out["trashed"] = _iso(entry.trashed)
    return out


def _iso(value: Any) -> str:
    return str(value.isoformat()).replace("+00:00", "Z")
