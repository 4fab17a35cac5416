"""Strict JSON: what a request body may be, and nothing else.

Refused with a precise 400/413/415: other content types, bytes that are not UTF-8, NaN and Infinity, duplicate keys,
nesting deeper than 64 levels, unpaired surrogates, bodies that are not an object.
"""

from __future__ import annotations

import json
import math
from typing import Any

from hub.web.errors import ApiError, bad_request, printable

MAX_DEPTH = 64
MAX_BODY_BYTES = 1 << 20


def parse_json_object(raw: bytes, content_type: str, *, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Return the JSON object in `raw`, or raise ApiError."""
    if len(raw) > max_bytes:
        raise ApiError(413, "too_large", f"Request body is larger than {max_bytes} bytes.")
    if content_type.split(";", 1)[0].strip().lower() != "application/json":
        raise ApiError(415, "bad_content_type", "Content-Type must be application/json.")
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise bad_request("bad_body", "Request body must be a JSON object.")
    return value


def parse_json(raw: bytes) -> Any:
    """Return the JSON value in `raw`, parsed strictly, or raise ApiError 400."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request("bad_utf8", "Request body is not valid UTF-8.") from None
    if _depth(text) > MAX_DEPTH:
        raise bad_request("too_deep", f"Request body is nested deeper than {MAX_DEPTH} levels.")
    try:
        value = json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_duplicates
        )
    except ApiError:
        raise
    except (ValueError, RecursionError):
        raise bad_request("bad_json", "Request body is not valid JSON.") from None
    where = _surrogate(value, "")
    if where is not None:
        raise bad_request("bad_unicode", f"Unpaired surrogate at {where or 'the top level'}.")
    return value


def _depth(text: str) -> int:
    """Return the nesting depth of brackets outside strings; cheap, before the recursive parser runs."""
    depth = deepest = 0
    in_string = escaped = False
    for c in text:
        if in_string:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                in_string = False
        elif c == '"':
            in_string = True
        elif c in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return depth
            deepest = max(deepest, depth)
        elif c in "]}":
            depth -= 1
    return deepest


def _no_constant(_: str) -> Any:
    raise bad_request("bad_number", "NaN and Infinity are not valid JSON numbers.")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise bad_request("bad_number", "NaN and Infinity are not valid JSON numbers.")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise bad_request("duplicate_key", f"Duplicate key: {printable(key)}.")
        out[key] = value
    return out


def _surrogate(value: Any, where: str) -> str | None:
    if isinstance(value, str):
        return where if any("\ud800" <= c <= "\udfff" for c in value) else None
    if isinstance(value, dict):
        for k, v in value.items():
            here = f"{where}.{printable(k, 40)}" if where else printable(k, 40)
            found = _surrogate(k, here) if isinstance(k, str) else None
            found = found if found is not None else _surrogate(v, here)
            if found is not None:
                return found
    if isinstance(value, list):
        for i, v in enumerate(value):
            found = _surrogate(v, f"{where}[{i}]")
            if found is not None:
                return found
    return None


def text_field(body: dict[str, Any], name: str, *, default: str | None = None, max_length: int = 255) -> str:
    """Return the string `body[name]`; raise 400 when absent (without default), not a string, or too long."""
    if name not in body:
        if default is not None:
            return default
        raise bad_request("missing_field", f"{name} is required.", field=name)
    value = body[name]
    if not isinstance(value, str):
        raise bad_request("bad_type", f"{name} must be a string.", field=name)
    if len(value) > max_length:
        raise bad_request("too_long", f"{name} is longer than {max_length} characters.", field=name)
    return value


def only_fields(body: dict[str, Any], allowed: set[str]) -> None:
    """Raise 400 `unknown_field` when `body` has a key outside `allowed`."""
    for key in body:
        if key not in allowed:
            raise bad_request("unknown_field", f"Unknown field: {printable(key)}.", field=printable(key))


def int_argument(text: str, name: str, low: int, high: int, code: str) -> int:
    """Return the integer in `text`, from `low` to `high`; raise 400 `code` otherwise."""
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and low <= int(text) <= high):
        raise bad_request(code, f"{name} must be an integer from {low} to {high}.", field=name)
    return int(text)


def dump_json(value: Any) -> bytes:
    """Return strict JSON bytes; NaN can not leave the house either."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )
