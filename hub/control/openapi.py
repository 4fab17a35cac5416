"""Control's REST API as one table; `python -m hub.control.openapi` writes hub/control/openapi.json."""

from __future__ import annotations

from pathlib import Path

from hub.web.openapi import Api, Operation, Parameter, Schema, page_of, paging, write
from quota.metering import BY
from quota.model import State

TARGET = Path(__file__).parent / "openapi.json"
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
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
        "end",
        "limits",
        "extension",
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
        "device": {"type": ["string", "null"]},
        "budget_deadline": _TIME,
        "used_seconds": {"type": ["number", "null"]},
        "end": {
            "type": ["object", "null"],
            "required": ["kind", "at", "seconds_left"],
            "properties": {
                "kind": {"enum": ["idle", "max_lifetime", "budget"]},
                "at": _TIME,
                "seconds_left": {"type": "number"},
            },
        },
        "limits": {
            "type": "object",
            "required": ["max_lifetime_seconds", "idle_limit_seconds"],
            "properties": {"max_lifetime_seconds": _NUMBER, "idle_limit_seconds": _NUMBER},
        },
        "extension": {
            "type": "object",
            "required": ["left", "by_seconds"],
            "properties": {"left": {"type": "integer"}, "by_seconds": _NUMBER},
        },
        "reason": {
            "type": ["object", "null"],
            "required": ["code", "message"],
            "properties": {"code": _TEXT, "message": _TEXT},
        },
        "content": {
            "description": "What became of an ended runtime's /content, where that was to be kept. Only for a runtime by its id.",
            "type": ["object", "null"],
            "required": ["kept", "message"],
            "properties": {"kept": {"type": "boolean"}, "message": _TEXT},
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
_RESTORE: Schema = {
    "type": "object",
    "required": ["snapshot_id"],
    "additionalProperties": False,
    "properties": {"snapshot_id": {"type": "string", "maxLength": 32}},
}
_KEEP: Schema = {
    "type": "object",
    "required": ["keep"],
    "additionalProperties": False,
    "properties": {"keep": {"type": "boolean"}},
}
_GRANT: Schema = {
    "type": "object",
    "required": ["budget", "holder", "hours"],
    "additionalProperties": False,
    "properties": {
        "budget": {"type": "string", "maxLength": 64},
        "holder": {"type": "string", "minLength": 1, "maxLength": 255},
        "hours": {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000},
        "note": {"type": "string", "maxLength": 200},
    },
}
_SECONDS: Schema = {
    "type": "object",
    "required": ["seconds"],
    "additionalProperties": False,
    "properties": {"seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 2_592_000}},
}
_QUOTA_SETTINGS: Schema = {
    "type": "object",
    "required": ["quota"],
    "additionalProperties": False,
    "properties": {"quota": {"type": "object", "description": "the section `quota` of minicolab.yaml"}},
}
_USED: dict[str, Schema] = {
    "sessions": {"type": "integer"},
    "seconds": _NUMBER,
    "hours": _NUMBER,
    "accelerator_hours": _NUMBER,
    "cpu_hours": _NUMBER,
}
_DAY: Schema = {"type": "string", "format": "date"}
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
        "Quota": {
            "type": "object",
            "required": [
                "user",
                "groups",
                "limits",
                "live",
                "rate_per_hour",
                "budgets",
                "prices",
                "keep_content",
            ],
            "properties": {
                "user": _TEXT,
                "groups": {"type": "array", "items": _TEXT},
                "limits": _ANY,
                "live": {"type": "integer"},
                "rate_per_hour": _ANY,
                "budgets": {"type": "array", "items": {"$ref": "#/components/schemas/Balance"}},
                "prices": _ANY,
                "keep_content": {"type": "boolean"},
                "snapshot_max_bytes": {"type": "integer"},
            },
        },
        "Balance": {
            "type": "object",
            "required": ["name", "per", "holder", "unit", "limit", "granted", "used", "left", "window"],
            "properties": {
                "name": _TEXT,
                "per": {"enum": ["user", "team"]},
                "holder": _TEXT,
                "unit": {"enum": ["accelerator_hours", "cpu_hours"]},
                "limit": _NUMBER,
                "granted": _NUMBER,
                "used": _NUMBER,
                "left": _NUMBER,
                "rate_per_hour": _NUMBER,
                "window": _TEXT,
                "resets_at": _TIME,
                "lasts_until": _TIME,
            },
        },
        "KeepContent": {
            "type": "object",
            "required": ["keep_content"],
            "properties": {"keep_content": {"type": "boolean"}},
        },
        "Usage": {
            "type": "object",
            "required": ["by", "since", "until", "items", "total"],
            "properties": {
                "by": {"enum": list(BY)},
                "since": _DAY,
                "until": _DAY,
                "items": {"type": "array", "items": {"type": "object", "required": list(_USED)}},
                "total": {"type": "object", "required": list(_USED), "properties": _USED},
            },
        },
        "Snapshots": {
            "type": "object",
            "required": ["items"],
            "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Snapshot"}}},
        },
        "Snapshot": {
            "type": "object",
            "required": ["id", "name", "file_id", "size_bytes", "created"],
            "properties": {
                "id": _TEXT,
                "name": _TEXT,
                "file_id": _TEXT,
                "size_bytes": {"type": "integer"},
                "created": {"type": "string", "format": "date-time"},
            },
        },
        "Restored": {
            "type": "object",
            "required": ["files"],
            "properties": {"files": {"type": "integer"}},
        },
        "Grant": {
            "type": "object",
            "required": ["budget", "holder", "hours", "note", "by", "at"],
            "properties": {"budget": _TEXT, "holder": _TEXT, "hours": _NUMBER, "note": _TEXT, "by": _TEXT},
        },
        "Grants": page_of("Grant"),
        "Reloaded": {
            "type": "object",
            "required": ["changed"],
            "properties": {"changed": {"type": "integer"}},
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
            "POST", "/runtimes/{id}/extend", "Live longer, as often as is allowed", {200: "Runtime"}, _LIVE
        ),
        Operation(
            "POST",
            "/runtimes/{id}/restore",
            "Put the files of an earlier runtime into /content",
            {200: "Restored"},
            _LIVE,
            body=_RESTORE,
        ),
        Operation("GET", "/snapshots", "Files of my ended runtimes", {200: "Snapshots"}),
        Operation("GET", "/quota", "My limits, and what is left of my budgets", {200: "Quota"}),
        Operation(
            "PUT",
            "/quota/keep_content",
            "Whether /content is kept when my runtimes end",
            {200: "KeepContent"},
            (400, 401, 403, 409),
            body=_KEEP,
        ),
        Operation(
            "GET",
            "/usage",
            "What was used",
            {200: "Usage"},
            parameters=(
                Parameter("by", "query", {"enum": list(BY)}),
                Parameter("user", "query", _TEXT),
                Parameter("since", "query", _DAY),
                Parameter("until", "query", _DAY),
                Parameter("format", "query", {"enum": ["json", "csv"]}),
            ),
            other_type="text/csv",
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
        Operation(
            "POST",
            "/admin/runtimes/{id}/extend",
            "Lengthen the life of anybody's runtime",
            {200: "Runtime"},
            _LIVE,
            body=_SECONDS,
        ),
        Operation(
            "GET",
            "/admin/quota",
            "Anybody's limits and budgets",
            {200: "Quota"},
            parameters=(Parameter("user", "query", {"type": "string", "maxLength": 255}, required=True),),
        ),
        Operation("GET", "/admin/grants", "Hours on top of budgets", {200: "Grants"}, parameters=paging()),
        Operation("POST", "/admin/grants", "Add hours to a budget", {201: "Grant"}, _LIVE, body=_GRANT),
        Operation("POST", "/admin/reload", "Use new limits", {200: "Reloaded"}, _LIVE, body=_QUOTA_SETTINGS),
    ),
)

if __name__ == "__main__":
    write(API, TARGET)
