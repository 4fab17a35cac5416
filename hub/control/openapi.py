"""Control's REST API as one table; `python -m hub.control.openapi` writes hub/control/openapi.json."""

from __future__ import annotations

from pathlib import Path

from hub.web.openapi import Api, Operation, Parameter, Schema, page_of, paging, write
from quota.model import State

TARGET = Path(__file__).parent / "openapi.json"
_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
_KEY = Parameter("Idempotency-Key", "header", {"type": "string", "pattern": "^[!-~]{1,255}$"})

RUNTIME: Schema = {
    "type": "object",
    "required": [
        "id",
        "file_id",
        "user",
        "state",
        "phase",
        "accelerator",
        "shape",
        "backend",
        "created",
        "ready",
        "last_activity",
        "deadline",
        "idle_deadline",
        "reason",
    ],
    "properties": {
        "id": {"type": "string", "pattern": "^r-[a-z2-7]{12}$"},
        "file_id": _TEXT,
        "file_name": _TEXT,
        "user": _TEXT,
        "server_name": _TEXT,
        "state": {"enum": list(State)},
        "phase": _TEXT,
        "phase_message": _TEXT,
        "accelerator": _TEXT,
        "shape": _TEXT,
        "backend": _TEXT,
        "created": {"type": "string", "format": "date-time"},
        "ready": _TIME,
        "last_activity": _TIME,
        "deadline": _TIME,
        "idle_deadline": _TIME,
        "ended": _TIME,
        "reason": {
            "type": ["object", "null"],
            "required": ["code", "message"],
            "properties": {"code": _TEXT, "message": _TEXT},
        },
    },
}
_NEW: Schema = {
    "type": "object",
    "required": ["file_id"],
    "additionalProperties": False,
    "properties": {
        "file_id": {"type": "string", "maxLength": 255},
        "accelerator": {"type": "string", "maxLength": 64, "default": "NONE"},
        "shape": {"type": "string", "maxLength": 64, "default": "STANDARD"},
    },
}
_MOUNT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "path": {
            "type": "string",
            "maxLength": 1024,
            "pattern": r"^/content/\S+$",
            "default": "/content/drive",
        },
        "readonly": {"type": "boolean", "default": False},
    },
}
_REASON: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"reason": {"type": "string", "maxLength": 200}},
}
_ANY: Schema = {"type": "object"}
_LIVE = (400, 401, 403, 404, 409, 410)

API = Api(
    "minicolab control",
    "/services/control/api/v1",
    {
        "Runtime": RUNTIME,
        "Runtimes": page_of("Runtime"),
        "Token": {
            "type": "object",
            "required": ["url", "browser_url", "token", "expires_at"],
            "properties": {
                "url": _TEXT,
                "browser_url": _TEXT,
                "token": _TEXT,
                "expires_at": {"type": "string", "format": "date-time"},
            },
        },
        "Resources": {
            "type": "object",
            "required": ["memory", "disk"],
            "properties": {"memory": _ANY, "disk": _ANY, "processes": {"type": "integer"}},
        },
        "Mount": {
            "type": "object",
            "required": ["path"],
            "properties": {"path": _TEXT, "readonly": {"type": "boolean"}},
        },
        "Mounts": {
            "type": "object",
            "required": ["items"],
            "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Mount"}}},
        },
        "Accelerators": {
            "type": "object",
            "required": ["items", "shapes"],
            "properties": {"items": {"type": "array"}, "shapes": {"type": "array"}},
        },
        "Environment": {
            "type": "object",
            "required": ["state", "message"],
            "properties": {"state": _TEXT, "message": _TEXT},
        },
        "Isolation": {
            "type": "object",
            "required": ["rung", "isolates", "does_not"],
            "properties": {"rung": _TEXT},
        },
    },
    (
        Operation(
            "POST",
            "/runtimes",
            "Start, or find, the runtime of a notebook",
            {202: "Runtime", 200: "Runtime"},
            _LIVE,
            parameters=(_KEY,),
            body=_NEW,
        ),
        Operation(
            "GET",
            "/runtimes",
            "List my live runtimes, or with all=true past ones too",
            {200: "Runtimes"},
            parameters=(
                Parameter("file_id", "query", _TEXT),
                Parameter("state", "query", {"enum": list(State)}),
                Parameter("all", "query", {"enum": ["true", "false"]}),
                *paging(),
            ),
        ),
        Operation("GET", "/runtimes/{id}", "Show a runtime", {200: "Runtime"}),
        Operation("DELETE", "/runtimes/{id}", "End a runtime", {200: "Runtime"}, _LIVE),
        Operation(
            "GET",
            "/runtimes/{id}/events",
            "Follow a runtime (server-sent events)",
            {200: "Runtime"},
            answer_type="text/event-stream",
        ),
        Operation("POST", "/runtimes/{id}/token", "Get a ticket for the runtime", {200: "Token"}, _LIVE),
        Operation("POST", "/runtimes/{id}/keep", "Say that somebody is there", {200: "Runtime"}, _LIVE),
        Operation("GET", "/runtimes/{id}/resources", "What the runtime uses", {200: "Resources"}, _LIVE),
        Operation("GET", "/runtimes/{id}/mounts", "List mounted drives", {200: "Mounts"}, _LIVE),
        Operation("POST", "/runtimes/{id}/mounts", "Mount my Drive", {201: "Mount"}, _LIVE, body=_MOUNT),
        Operation(
            "DELETE",
            "/runtimes/{id}/mounts",
            "Take my Drive away",
            {200: "Mount"},
            _LIVE,
            parameters=(Parameter("path", "query", _TEXT),),
        ),
        Operation(
            "GET",
            "/sessions",
            "The record of runtimes",
            {200: "Runtimes"},
            parameters=(Parameter("user", "query", _TEXT), *paging()),
        ),
        Operation("GET", "/accelerators", "What one may choose", {200: "Accelerators"}),
        Operation("GET", "/environment", "How far the runtime environment is", {200: "Environment"}),
        Operation("GET", "/isolation", "What is kept apart on this machine", {200: "Isolation"}),
        Operation("GET", "/admin/runtimes", "Every live runtime", {200: "Runtimes"}, parameters=paging()),
        Operation(
            "DELETE",
            "/admin/runtimes/{id}",
            "End anybody's runtime",
            {200: "Runtime"},
            _LIVE,
            body=_REASON,
            body_required=False,
        ),
    ),
)

if __name__ == "__main__":
    write(API, TARGET)
