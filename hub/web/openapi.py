"""Make an OpenAPI 3.1 document from a table of operations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]

ERROR: Schema = {
    "type": "object",
    "required": ["status", "code", "message"],
    "properties": {
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable"},
        "message": {"type": "string", "description": "one sentence"},
        "field": {"type": "string"},
    },
}


@dataclass(frozen=True)
class Parameter:
    """A path, query or header parameter."""

    name: str
    place: str
    schema: Schema
    required: bool = False


@dataclass(frozen=True)
class Operation:
    """One method of one path. `answers` maps a status to a schema name, "" for no JSON body; `errors` are further statuses.

    `other_type`: a text form of the same answer that a parameter asks for, such as `text/csv`.
    """

    method: str
    path: str
    summary: str
    answers: Mapping[int, str]
    errors: Sequence[int] = (400, 401, 403, 404)
    parameters: Sequence[Parameter] = ()
    body: Schema | None = None
    body_type: str = "application/json"
    body_required: bool = True
    answer_type: str = "application/json"
    other_type: str = ""
    public: bool = False


@dataclass(frozen=True)
class Api:
    """A service's description. `prefix` such as `/services/control/api/v1`."""

    title: str
    prefix: str
    schemas: Mapping[str, Schema]
    operations: Sequence[Operation] = field(default_factory=tuple)


def paging(limit: int = 200) -> tuple[Parameter, Parameter]:
    """Return the parameters of a paged list."""
    return (
        Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": limit}),
        Parameter("offset", "query", {"type": "integer", "minimum": 0, "maximum": 10**9}),
    )


def page_of(name: str) -> Schema:
    """Return the schema of a page of things."""
    return {
        "type": "object",
        "required": ["items", "total", "offset", "limit"],
        "properties": {
            "items": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}},
            "total": {"type": "integer"},
            "offset": {"type": "integer"},
            "limit": {"type": "integer"},
        },
    }


def document(api: Api) -> dict[str, Any]:
    """Return the OpenAPI document."""
    paths: dict[str, Any] = {}
    for operation in api.operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": api.title, "version": "1"},
        "servers": [{"url": api.prefix}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, **api.schemas},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    named = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [
        *(
            {"name": n, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for n in named
        ),
        *(
            {"name": p.name, "in": p.place, "required": p.required, "schema": p.schema}
            for p in operation.parameters
        ),
    ]
    out: dict[str, Any] = {"summary": operation.summary, "responses": {}}
    if parameters:
        out["parameters"] = parameters
    if operation.body is not None:
        out["requestBody"] = {
            "required": operation.body_required,
            "content": {operation.body_type: {"schema": operation.body}},
        }
    for status, name in operation.answers.items():
        answer: dict[str, Any] = {"description": operation.summary}
        if name:
            schema = (
                {"$ref": f"#/components/schemas/{name}"}
                if operation.answer_type == "application/json"
                else {"type": "string"}
            )
            answer["content"] = {operation.answer_type: {"schema": schema}}
            if operation.other_type:
                answer["content"][operation.other_type] = {"schema": {"type": "string"}}
        out["responses"][str(status)] = answer
    for status in sorted({*operation.errors, 405, 413, 414, 415, 503} - set(operation.answers)):
        reference = {"$ref": "#/components/schemas/Error"}
        out["responses"][str(status)] = {
            "description": "refused",
            "content": {"application/json": {"schema": reference}},
        }
    if operation.public:
        out["security"] = []
    return out


def write(api: Api, path: Path) -> None:
    """Write the document as it is committed."""
    path.write_text(render(api), "utf-8")


def render(api: Api) -> str:
    """Return the document as committed text."""
    return json.dumps(document(api), indent=1, ensure_ascii=False) + "\n"
