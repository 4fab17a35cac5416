"""What counts as a notebook when it is written through the API, and what a new one looks like.

The check is about shape and JSON, not taste: unknown metadata and unknown fields pass (they must survive a round trip), text
that no JSON reader can agree on (NaN, unpaired surrogates, duplicate keys) does not. Valid bytes are stored exactly as sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from storage_mount.errors import BadNotebook, TooLarge

MAX_BYTES = 100 * 1024 * 1024
MAX_CELLS = 50_000
MAX_DEPTH = 128
_CELL_TYPES = ("code", "markdown", "raw")
_OUTPUT_TYPES = ("stream", "display_data", "execute_result", "error")
_CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(b for b in range(256) if b not in b"[]{}")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


class _BadNumber(float):
    """Marks where a number stood that JSON has no word for."""


def check(raw: bytes) -> dict[str, Json]:
    """Return the notebook in `raw`; raise BadNotebook naming the place, or TooLarge."""
    if len(raw) > MAX_BYTES:
        raise TooLarge(f"Notebook is larger than {MAX_BYTES >> 20} MiB.", MAX_BYTES)
    document = _parse(raw)
    if not isinstance(document, dict):
        raise BadNotebook("The notebook is not a JSON object.")
    check_document(document)
    return document


def check_document(nb: dict[str, Json]) -> None:
    """Raise BadNotebook when `nb` does not have the shape of a notebook of format 3 or 4."""
    major = nb.get("nbformat")
    if isinstance(major, bool) or major not in (3, 4):
        raise BadNotebook("nbformat must be 3 or 4.", "nbformat")
    minor = nb.get("nbformat_minor")
    if not isinstance(minor, int) or isinstance(minor, bool) or not 0 <= minor <= 1000:
        raise BadNotebook("nbformat_minor must be an integer from 0.", "nbformat_minor")
    if not isinstance(nb.get("metadata"), dict):
        raise BadNotebook("metadata must be an object.", "metadata")
    if major == 3:
        sheets = nb.get("worksheets")
        if not isinstance(sheets, list) or not all(
            isinstance(s, dict) and isinstance(s.get("cells", []), list) for s in sheets
        ):
            raise BadNotebook("worksheets must be a list of objects.", "worksheets")
        return
    cells = nb.get("cells")
    if not isinstance(cells, list):
        raise BadNotebook("cells must be a list.", "cells")
    if len(cells) > MAX_CELLS:
        raise BadNotebook(f"The notebook has {len(cells)} cells; at most {MAX_CELLS} are allowed.", "cells")
    for i, cell in enumerate(cells):
        _check_cell(cell, f"cells[{i}]")


def _check_cell(cell: Json, at: str) -> None:
    if not isinstance(cell, dict):
        raise BadNotebook(f"{at} must be an object.", at)
    kind = cell.get("cell_type")
    if kind not in _CELL_TYPES:
        raise BadNotebook(f"{at}.cell_type must be one of: {', '.join(_CELL_TYPES)}.", f"{at}.cell_type")
    if not _is_text(cell.get("source")):
        raise BadNotebook(f"{at}.source must be a string or a list of strings.", f"{at}.source")
    if not isinstance(cell.get("metadata"), dict):
        raise BadNotebook(f"{at}.metadata must be an object.", f"{at}.metadata")
    cell_id = cell.get("id", "x")
    if not isinstance(cell_id, str) or not _CELL_ID.match(cell_id):
        raise BadNotebook(f"{at}.id must be 1 to 64 letters, digits, '-' or '_'.", f"{at}.id")
    if not isinstance(cell.get("attachments", {}), dict):
        raise BadNotebook(f"{at}.attachments must be an object.", f"{at}.attachments")
    if kind != "code":
        return
    count = cell.get("execution_count")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
        raise BadNotebook(f"{at}.execution_count must be an integer or null.", f"{at}.execution_count")
    outputs = cell.get("outputs", [])
    if not isinstance(outputs, list):
        raise BadNotebook(f"{at}.outputs must be a list.", f"{at}.outputs")
    for j, output in enumerate(outputs):
        _check_output(output, f"{at}.outputs[{j}]")


def _check_output(output: Json, at: str) -> None:
    if not isinstance(output, dict) or output.get("output_type") not in _OUTPUT_TYPES:
        allowed = ", ".join(_OUTPUT_TYPES)
        raise BadNotebook(f"{at}.output_type must be one of: {allowed}.", f"{at}.output_type")
    kind = output["output_type"]
    if kind == "stream" and not (_is_text(output.get("text")) and isinstance(output.get("name"), str)):
        raise BadNotebook(f"{at} must have a name and text.", at)
    if kind in ("display_data", "execute_result") and not isinstance(output.get("data"), dict):
        raise BadNotebook(f"{at}.data must be an object.", f"{at}.data")
    if kind == "error" and not isinstance(output.get("traceback"), list):
        raise BadNotebook(f"{at}.traceback must be a list.", f"{at}.traceback")


def _is_text(value: Json) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


# -- strict JSON ----------------------------------------------------------------------------------------------------


def _parse(raw: bytes) -> Json:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise BadNotebook(f"The notebook is not valid UTF-8 (byte {e.start}).") from None
    if _depth(raw) > MAX_DEPTH:
        raise BadNotebook(f"The notebook is nested deeper than {MAX_DEPTH} levels.")
    bad_numbers: list[str] = []

    def constant(word: str) -> float:
        bad_numbers.append(word)
        return _BadNumber("nan")

    def number(digits: str) -> float:
        value = float(digits)
        return value if value - value == 0 else constant(digits)

    def whole(digits: str) -> int | float:
        # Python refuses to turn more than 4,300 digits into an integer; no reader of notebooks needs them
        return int(digits) if len(digits) <= 400 else constant(digits)

    try:
        document: Json = json.loads(
            text, parse_constant=constant, parse_float=number, parse_int=whole, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as e:
        raise BadNotebook(f"The notebook is not valid JSON (line {e.lineno}, column {e.colno}).") from None
    except RecursionError:
        raise BadNotebook(f"The notebook is nested deeper than {MAX_DEPTH} levels.") from None
    if bad_numbers:
        where = find(document, lambda v: isinstance(v, _BadNumber))
        raise BadNotebook(
            f"NaN, Infinity and numbers beyond all range are not valid JSON, at {where}.", where or ""
        )
    if _SURROGATE_ESCAPE.search(raw):
        refuse_surrogates(document)
    return document


def refuse_surrogates(document: Json) -> None:
    """Raise BadNotebook naming the first string that holds half of a surrogate pair."""
    where = find(document, lambda v: isinstance(v, str) and any("\ud800" <= c <= "\udfff" for c in v))
    if where is not None:
        raise BadNotebook(f"Unpaired surrogate at {where or 'the top level'}.", where)


def _unique(pairs: list[tuple[str, Json]]) -> Json:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        name = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise BadNotebook(f"Duplicate key: {_show(name)}.", _show(name))
    return out


def _depth(raw: bytes) -> int:
    """Return how deep brackets nest outside strings. Two passes in C, then a loop over brackets alone."""
    depth = deepest = 0
    for b in _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS):
        if b in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        else:
            depth -= 1
    return deepest


def find(document: Json, wanted: Callable[[Json], bool]) -> str | None:
    """Return the path (`cells[0].source`) of the first value or key that `wanted` holds for, else None."""
    for where, value in _walk(document, ""):
        if wanted(value):
            return where
    return None


def _walk(value: Json, where: str) -> Iterator[tuple[str, Json]]:
    yield where, value
    if isinstance(value, dict):
        for key, item in value.items():
            here = f"{where}.{_show(key)}" if where else _show(key)
            yield here, key
            yield from _walk(item, here)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _walk(item, f"{where}[{i}]")


def _show(key: str) -> str:
    safe = key.encode("ascii", "backslashreplace").decode()
    return (
        safe if len(safe) <= 40 and safe.isprintable() else safe[:39].encode("unicode_escape").decode() + "…"
    )


# -- making one -----------------------------------------------------------------------------------------------------


def new_notebook(name: str, cell_id: str) -> bytes:
    """Return a notebook with one empty code cell."""
    return dump(
        {
            "cells": [
                {
                    "cell_type": "code",
                    "execution_count": None,
                    "id": cell_id,
                    "metadata": {},
                    "outputs": [],
                    "source": [],
                }
            ],
            "metadata": {
                "colab": {"name": name, "provenance": []},
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def dump(document: dict[str, Json]) -> bytes:
    """Return a notebook as nbformat writes it: one space of indent, a newline at the end."""
    return (json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()
