"""The Drive's REST API as one table; `python -m hub.documents.api.openapi` writes hub/documents/openapi.json."""

from __future__ import annotations

from pathlib import Path

from hub.documents.rooms.outputs import MAX_EXECUTIONS
from hub.web.openapi import Api, Operation, Parameter, Schema, page_of, paging, write
from storage_mount.model import FileType, Order, Role, SortKey

TARGET = Path(__file__).parents[1] / "openapi.json"
_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_KEY = Parameter("Idempotency-Key", "header", {"type": "string", "pattern": "^[!-~]{1,255}$"})
_IF_MATCH = Parameter("If-Match", "header", {"type": "string"})

FILE: Schema = {
    "type": "object",
    "required": ["id", "name", "path", "parent", "type", "size", "created", "modified", "role", "etag"],
    "properties": {
        "id": _TEXT,
        "name": _TEXT,
        "path": _TEXT,
        "parent": _TEXT,
        "type": {"enum": list(FileType)},
        "size": {"type": ["integer", "null"], "description": "bytes"},
        "created": _TIME,
        "modified": _TIME,
        "role": {"enum": list(Role)},
        "owner": _TEXT,
        "etag": _TEXT,
        "trashed": _TIME,
        "ancestors": {"type": "array", "items": {"type": "object"}},
    },
}

_NEW: Schema = {
    "type": "object",
    "required": ["type"],
    "additionalProperties": False,
    "properties": {
        "parent": {"type": "string", "maxLength": 255, "default": "root"},
        "name": {"type": ["string", "null"], "maxLength": 4096},
        "type": {"enum": list(FileType)},
        "content": {"type": ["object", "string", "null"]},
    },
}
_CHANGE: Schema = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "maxLength": 4096},
        "parent": {"type": "string", "maxLength": 255},
    },
}
_COPY: Schema = {**_CHANGE, "minProperties": 0}
_BRING: Schema = {
    "type": "object",
    "required": ["runtime_id", "user", "executions"],
    "additionalProperties": False,
    "properties": {
        "runtime_id": {"type": "string", "maxLength": 255},
        "user": {"type": "string", "maxLength": 255},
        "ended": {"type": "boolean", "default": False},
        "executions": {"type": "array", "maxItems": MAX_EXECUTIONS, "items": {"type": "object"}},
    },
}
_EXAMPLE: Schema = {
    "type": "object",
    "required": ["id", "name", "title"],
    "properties": {"id": _TEXT, "name": _TEXT, "title": _TEXT, "summary": _TEXT},
}
_FULL = (400, 401, 403, 404, 409, 412, 428, 507)

API = Api(
    "minicolab documents",
    "/services/documents/api/v1",
    {
        "File": FILE,
        "Files": page_of("File"),
        "Example": _EXAMPLE,
        "Examples": page_of("Example"),
        "Me": {
            "type": "object",
            "required": ["name", "admin"],
            "properties": {"name": _TEXT, "admin": {"type": "boolean"}},
        },
        "Brought": {
            "type": "object",
            "required": ["settled", "wanted"],
            "properties": {
                "settled": {"type": "array", "items": _TEXT},
                "wanted": {"type": "array", "items": _TEXT},
            },
        },
        "Deleted": {
            "type": "object",
            "required": ["deleted"],
            "properties": {"deleted": {"type": "integer"}},
        },
    },
    (
        Operation(
            "GET",
            "/files",
            "List a folder",
            {200: "Files"},
            parameters=(
                Parameter("parent", "query", _TEXT),
                Parameter("sort", "query", {"enum": list(SortKey)}),
                Parameter("order", "query", {"enum": list(Order)}),
                *paging(),
            ),
        ),
        Operation(
            "POST", "/files", "Make a file or folder", {201: "File"}, _FULL, parameters=(_KEY,), body=_NEW
        ),
        Operation(
            "POST",
            "/files/upload",
            "Upload a file",
            {201: "File"},
            _FULL,
            parameters=(
                Parameter("parent", "query", _TEXT),
                Parameter("name", "query", _TEXT, required=True),
            ),
            body={"type": "string", "format": "binary"},
            body_type="application/octet-stream",
        ),
        Operation("GET", "/files/{id}", "Show a file, with the folders above it", {200: "File"}),
        Operation("PATCH", "/files/{id}", "Rename or move", {200: "File"}, _FULL, body=_CHANGE),
        Operation("DELETE", "/files/{id}", "Put into the trash", {200: "File"}, _FULL),
        Operation(
            "GET",
            "/files/{id}/content",
            "Read the bytes",
            {200: "File", 206: "File", 304: ""},
            (400, 401, 403, 404, 416),
            answer_type="*/*",
        ),
        Operation(
            "PUT",
            "/files/{id}/content",
            "Replace the bytes",
            {200: "File"},
            _FULL,
            parameters=(_IF_MATCH,),
            body={"type": "string", "format": "binary"},
            body_type="application/octet-stream",
        ),
        Operation(
            "GET",
            "/files/{id}/download",
            "Download; a notebook also as a script",
            {200: "File", 206: "File", 304: ""},
            (400, 401, 403, 404, 416),
            parameters=(Parameter("format", "query", {"enum": ["ipynb", "py"]}),),
            answer_type="*/*",
        ),
        Operation(
            "POST",
            "/files/{id}/copy",
            "Copy a file, folder or example",
            {201: "File"},
            _FULL,
            body=_COPY,
            body_required=False,
        ),
        Operation("POST", "/files/{id}/restore", "Bring back from the trash", {200: "File"}, _FULL),
        Operation(
            "POST",
            "/files/{id}/outputs",
            "Bring what cells printed while no page was open (the control service alone)",
            {200: "Brought"},
            (400, 401, 403, 404, 413, 422, 503),
            body=_BRING,
        ),
        Operation("GET", "/trash", "List the trash", {200: "Files"}),
        Operation("DELETE", "/trash", "Empty the trash", {200: "Deleted"}),
        Operation("DELETE", "/trash/{id}", "Delete forever", {204: ""}),
        Operation(
            "GET",
            "/search",
            "Find by name",
            {200: "Files"},
            parameters=(Parameter("q", "query", {"type": "string", "maxLength": 256}),),
        ),
        Operation("GET", "/recent", "What changed last", {200: "Files"}),
        Operation("GET", "/examples", "List the examples", {200: "Examples"}),
        Operation("GET", "/me", "Who am I", {200: "Me"}),
    ),
)

if __name__ == "__main__":
    write(API, TARGET)
