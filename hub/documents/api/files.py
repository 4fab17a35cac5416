"""Files and folders: make, list, look, rename, move, copy, find."""

from __future__ import annotations

import json
from typing import Any

from hub.documents.api.base import DriveHandler, entry_model
from hub.documents.examples import PREFIX
from hub.web.body import dump_json, only_fields, text_field
from hub.web.errors import bad_request, printable
from storage_mount.model import FileType, Order, SortKey

NAME_LENGTH = 4096  # the Drive's own rule says 255 bytes, with its own words
QUERY_LENGTH = 256
DEFAULT_LIMIT, MAX_LIMIT = 100, 200


class FilesHandler(DriveHandler):
    """`files`"""

    @classmethod
    def body_limit(cls, settings: dict[str, Any]) -> int:
        return int(settings["max_notebook"])

    async def get(self) -> None:
        offset, limit = self.page(default_limit=DEFAULT_LIMIT, max_limit=MAX_LIMIT)
        sort = _choice(self.get_query_argument("sort", "name"), "sort", SortKey)
        order = _choice(self.get_query_argument("order", "asc"), "order", Order)
        parent = self.get_query_argument("parent", "root")
        page = await self.run(
            self.files.list_folder, parent, sort=SortKey(sort), order=Order(order), offset=offset, limit=limit
        )
        self.reply(
            {
                "items": [entry_model(e) for e in page.items],
                "total": page.total,
                "offset": offset,
                "limit": limit,
            }
        )

    async def post(self) -> None:
        body = self.json_body()
        only_fields(body, {"parent", "name", "type", "content"})
        kind = FileType(_choice(text_field(body, "type"), "type", FileType))
        parent = text_field(body, "parent", default="root")
        name = text_field(body, "name", max_length=NAME_LENGTH) if body.get("name") is not None else None
        content = _content(body, kind)
        key = self.request.headers.get("Idempotency-Key")
        if key is not None:
            earlier = await self._earlier(key, body)
            if earlier is not None:
                self.reply_entry(await self.entry(earlier), 201)
                return
        entry = await self.run(self.files.create, parent, name, kind, content)
        if key is not None:
            await self.run(self.files.remember_key, key, dump_json(body), entry.id)
        self.set_header("Location", f"/services/documents/api/v1/files/{entry.id}")
        self.reply_entry(entry, 201)

    async def _earlier(self, key: str, body: dict[str, Any]) -> str | None:
        if not key or len(key) > 255 or not key.isascii() or not key.isprintable():
            raise bad_request(
                "bad_idempotency_key", "Idempotency-Key must be 1 to 255 printable ASCII characters."
            )
        found: str | None = await self.run(self.files.find_key, key, dump_json(body))
        return found


def _content(body: dict[str, Any], kind: FileType) -> bytes | None:
    if body.get("content") is None:
        return None
    content = body["content"]
    if kind is FileType.FOLDER:
        raise bad_request("bad_type", "A folder has no content.", field="content")
    if kind is FileType.NOTEBOOK and isinstance(content, dict):
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode("utf-8")
    if isinstance(content, str):
        return content.encode("utf-8")
    raise bad_request("bad_type", "content must be a notebook's JSON object or a string.", field="content")


def _choice(value: str, name: str, allowed: Any) -> str:
    if value not in set(allowed):
        raise bad_request(f"bad_{name}", f"{name} must be one of: {', '.join(allowed)}.", field=name)
    return value


class FileHandler(DriveHandler):
    """`files/<id>`"""

    async def get(self, file_id: str) -> None:
        entry = await self.entry(file_id)
        above = [] if file_id.startswith(PREFIX) else await self.run(self.files.ancestors, file_id)
        self.reply_entry(entry, ancestors=[{"id": i, "name": n} for i, n in above])

    async def patch(self, file_id: str) -> None:
        body = self.json_body()
        only_fields(body, {"name", "parent"})
        if not body:
            raise bad_request("missing_field", "name or parent is required.")
        self.refuse_example(file_id)
        name = text_field(body, "name", max_length=NAME_LENGTH) if "name" in body else None
        parent = text_field(body, "parent") if "parent" in body else None
        self.reply_entry(await self.run(self.files.change, file_id, name=name, parent=parent))

    async def delete(self, file_id: str) -> None:
        self.refuse_example(file_id)
        await self.rooms.settle(file_id)
        self.reply_entry(await self.run(self.files.trash, file_id))


class CopyHandler(DriveHandler):
    """`files/<id>/copy`"""

    async def post(self, file_id: str) -> None:
        body = self.json_body() if self.request.body else {}
        only_fields(body, {"name", "parent"})
        name = text_field(body, "name", max_length=NAME_LENGTH) if "name" in body else None
        parent = text_field(body, "parent") if "parent" in body else None
        if file_id.startswith(PREFIX):
            entry = await self.entry(file_id)
            raw = self.examples.read(file_id)
            made = await self.run(self.files.upload, parent or "root", name or f"Copy of {entry.name}", [raw])
        else:
            await self.rooms.settle(file_id)
            made = await self.run(self.files.copy, file_id, name=name, parent=parent)
        self.set_header("Location", f"/services/documents/api/v1/files/{made.id}")
        self.reply_entry(made, 201)


class SearchHandler(DriveHandler):
    """`search?q=`"""

    async def get(self) -> None:
        text = self.get_query_argument("q", "")
        if len(text) > QUERY_LENGTH:
            raise bad_request("too_long", f"q is longer than {QUERY_LENGTH} characters.", field="q")
        found = await self.run(self.files.search, printable(text, QUERY_LENGTH)) if text.strip() else []
        self.reply(
            {"items": [entry_model(e) for e in found], "total": len(found), "offset": 0, "limit": len(found)}
        )


class RecentHandler(DriveHandler):
    """`recent`"""

    async def get(self) -> None:
        found = await self.run(self.files.recent)
        self.reply(
            {"items": [entry_model(e) for e in found], "total": len(found), "offset": 0, "limit": len(found)}
        )


class ExamplesHandler(DriveHandler):
    """`examples`"""

    def get(self) -> None:
        items = [
            {"id": e.id, "name": e.file.name, "title": e.title, "summary": e.summary}
            for e in self.examples.list()
        ]
        self.reply({"items": items, "total": len(items), "offset": 0, "limit": len(items)})


class MeHandler(DriveHandler):
    """`me`"""

    def get(self) -> None:
        self.reply({"name": self.user.name, "admin": self.user.admin})
