"""Between a notebook as a file and the notebook as it is co-edited. Pure.

A file may hold what the co-edited form can not (unknown top-level keys, `1.0` beside `1`, text as one string or as lines,
cells without ids). So a file is not rewritten from the co-edited form: `to_file` takes the file as it was, what the co-edited
form looked like then, and what it looks like now, and changes only what differs. A part nobody touched stays as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Object: TypeAlias = "dict[str, Json]"

_EXACT = 2**53  # whole numbers beyond this are not the same in every JSON reader
_SPLIT_MIMES = frozenset({"application/javascript", "image/svg+xml"})
_EPHEMERAL = frozenset({"execution_state"})


class NotShareable(ValueError):
    """The co-edited form does not hold a notebook."""


def cell_ids(document: Object, known: Sequence[str] = ()) -> list[str]:
    """Return one id for each cell: `known` when it fits, else the cell's own, else one made from place and content."""
    cells = _cells(document)
    if len(known) == len(cells):
        return list(known)
    ids: list[str] = []
    seen: set[str] = set()
    for i, cell in enumerate(cells):
        own = cell.get("id")
        name = own if isinstance(own, str) and own not in seen else _made_id(i, cell, seen)
        seen.add(name)
        ids.append(name)
    return ids


def _made_id(place: int, cell: Object, seen: set[str]) -> str:
    salt = 0
    while True:
        text = f"{place}:{salt}:{cell.get('cell_type')}:{_joined(cell.get('source'))}"
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        if name not in seen:
            return name
        salt += 1


def to_shared(document: Object, ids: Sequence[str]) -> Object:
    """Return the co-edited form of a notebook file of format 4: joined text, plain numbers, nothing trusted.

    A notebook without cells gets an empty one to type in, and one without a kernel gets the place for its name; neither is
    written to the file unless something else changes.
    """
    out = _shared(document, ids)
    if not out["cells"]:
        blank: Object = {"cell_type": "code", "source": "", "metadata": {}, "outputs": []}
        out["cells"] = [_shared_cell(blank, _made_id(0, blank, set()))]
    metadata = out["metadata"]
    if isinstance(metadata, dict):
        metadata.setdefault("language_info", {"name": ""})
        metadata.setdefault("kernelspec", {"name": "", "display_name": ""})
    return out


def _shared(document: Object, ids: Sequence[str]) -> Object:
    metadata = document.get("metadata")
    cells: list[Json] = [_shared_cell(cell, name) for cell, name in zip(_cells(document), ids, strict=True)]
    return {
        "metadata": _plain(metadata) if isinstance(metadata, dict) else {},
        "nbformat": _plain(document.get("nbformat", 4)),
        "nbformat_minor": _plain(document.get("nbformat_minor", 5)),
        "cells": cells,
    }


def _shared_cell(cell: Object, name: str) -> Object:
    out: Object = {k: _plain(v) for k, v in cell.items() if k not in _EPHEMERAL}
    out["id"] = name
    out["source"] = _joined(cell.get("source"))
    metadata = out.get("metadata")
    # A file may claim that its outputs are trusted. Only the reader's own run makes them so.
    out["metadata"] = (
        {k: v for k, v in metadata.items() if k != "trusted"} if isinstance(metadata, dict) else {}
    )
    if cell.get("cell_type") == "code":
        outputs = out.get("outputs")
        out["outputs"] = [_joined_output(o) for o in outputs] if isinstance(outputs, list) else []
        out.setdefault("execution_count", None)
    elif isinstance(out.get("attachments"), dict):
        out["attachments"] = _joined_bundles(out["attachments"])
    return out


def shared_output(output: Object) -> Object:
    """Return one output in the spelling of `to_shared`."""
    found = _joined_output(_plain(output))
    assert isinstance(found, dict)
    return found


def _joined_output(output: Json) -> Json:
    if not isinstance(output, dict):
        return output
    out = dict(output)
    if out.get("output_type") == "stream":
        out["text"] = _joined(out.get("text"))
    data = out.get("data")
    if isinstance(data, dict):
        out["data"] = _joined_bundle(data)
    return out


def _joined_bundles(attachments: Json) -> Json:
    if not isinstance(attachments, dict):
        return attachments
    return {k: _joined_bundle(v) if isinstance(v, dict) else v for k, v in attachments.items()}


def _joined_bundle(bundle: Object) -> Object:
    return {k: v if _is_json_mime(k) else _joined_or_same(v) for k, v in bundle.items()}


def _joined(value: Json) -> str:
    if isinstance(value, list):
        return "".join(v for v in value if isinstance(v, str))
    return value if isinstance(value, str) else ""


def _joined_or_same(value: Json) -> Json:
    return _joined(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value


def _is_json_mime(mime: str) -> bool:
    return mime == "application/json" or (mime.startswith("application/") and mime.endswith("+json"))


def _plain(value: Json) -> Json:
    """Return `value` with one spelling for each number: whole when it is whole and exact, else a float."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _EXACT else float(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _EXACT else value
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value]


def normal(shared: Json) -> Object:
    """Return what was read back from the co-edited form in the spelling of `to_shared`; raise NotShareable."""
    if not isinstance(shared, dict):
        raise NotShareable("not a notebook")
    cells = shared.get("cells")
    if not isinstance(cells, list) or not all(isinstance(c, dict) for c in cells):
        raise NotShareable("cells are not objects")
    out = _shared(shared, [str(c["id"]) if isinstance(c, dict) and c.get("id") else "" for c in cells])
    names: set[str] = set()
    kept: list[Json] = []
    for i, cell in enumerate(_cells(out)):
        if cell.get("cell_type") not in ("code", "markdown", "raw"):
            raise NotShareable(f"cells[{i}] has no known type")
        name = cell["id"]
        if not isinstance(name, str) or not name or name in names:
            if any(same(cell, k) for k in kept):
                continue  # two people moved the same cell at once: it is one cell
            name = _made_id(i, cell, names)
            cell["id"] = name
        names.add(name)
        kept.append(cell)
    out["cells"] = kept
    return out


def same(a: Json, b: Json) -> bool:
    """Return whether two values are equal as JSON; `1` is not `true`."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return a == b


# -- back to a file -------------------------------------------------------------------------------------------------


def to_file(base: Object, before: Object, now: Object) -> Object:
    """Return the file that `now` makes of `base`, whose co-edited form was `before`."""
    minor = now.get("nbformat_minor")
    with_ids = isinstance(minor, int) and minor >= 5
    olds = {str(c["id"]): (c, b) for c, b in zip(_cells(before), _cells(base), strict=False)}
    cells: list[Json] = []
    for cell in _cells(now):
        old, origin = olds.get(str(cell["id"]), ({}, {}))
        if origin and same(cell, old):
            cells.append(origin)
        else:
            cells.append(_file_cell(origin, old, cell, with_ids=with_ids))
    parts: Object = {
        "cells": cells,
        "metadata": _merged(base.get("metadata"), before["metadata"], now["metadata"]),
        "nbformat": _merged(base.get("nbformat"), before["nbformat"], now["nbformat"]),
        "nbformat_minor": _merged(base.get("nbformat_minor"), before["nbformat_minor"], minor),
    }
    out: Object = {k: parts.pop(k) if k in parts else v for k, v in base.items()}
    out.update(parts)
    return out


def _file_cell(origin: Object, old: Object, now: Object, *, with_ids: bool) -> Object:
    out: Object = {}
    for key, value in origin.items():
        if key == "id":
            if with_ids:
                out["id"] = now["id"]
        elif key in now:
            out[key] = _file_part(key, value, old.get(key), now[key], exists=True)
        elif key not in old:
            out[key] = value  # the co-edited form never held it, so nobody can have removed it
    for key, value in now.items():
        if key not in out and (key != "id" or with_ids) and key not in _EPHEMERAL:
            out[key] = _file_part(key, None, None, value, exists=False)
    if not origin:
        out = {k: out[k] for k in sorted(out)}
    return out


def _file_part(key: str, origin: Json, old: Json, now: Json, *, exists: bool) -> Json:
    if exists and same(old, now):
        return origin
    if key == "source":
        return now if isinstance(origin, str) else _lines(now)
    if key == "metadata":
        return _merged(origin, old, now)
    if key == "outputs" and isinstance(now, list):
        olds = old if isinstance(old, list) else []
        origins = origin if isinstance(origin, list) else []
        pairs = [(o, f) for o, f in zip(olds, origins, strict=False)]
        return [
            pairs[i][1] if i < len(pairs) and same(pairs[i][0], output) else _file_output(output)
            for i, output in enumerate(now)
        ]
    if key == "attachments" and isinstance(now, dict):
        return {k: _file_bundle(v) if isinstance(v, dict) else v for k, v in now.items()}
    return now


def _file_output(output: Json) -> Json:
    if not isinstance(output, dict):
        return output
    out = dict(output)
    if out.get("output_type") == "stream":
        out["text"] = _lines(out.get("text"))
    data = out.get("data")
    if isinstance(data, dict):
        out["data"] = _file_bundle(data)
    return {k: out[k] for k in sorted(out)}


def _file_bundle(bundle: Object) -> Object:
    return {
        k: _lines(v) if isinstance(v, str) and (k.startswith("text/") or k in _SPLIT_MIMES) else v
        for k, v in bundle.items()
    }


def _lines(value: Json) -> Json:
    return list(value.splitlines(keepends=True)) if isinstance(value, str) else value


def _merged(origin: Json, old: Json, now: Json) -> Json:
    """Return `origin` with the differences between `old` and `now` made, key by key."""
    if same(old, now):
        return origin
    if not (isinstance(origin, dict) and isinstance(old, dict) and isinstance(now, dict)):
        return now
    out: Object = {}
    for key, value in origin.items():
        if key in now:
            out[key] = _merged(value, old.get(key), now[key])
        elif key not in old:
            out[key] = value
    for key, value in now.items():
        if key not in origin and not (key in old and same(old[key], value)):
            out[key] = value
    return out


def _cells(document: Object) -> list[Object]:
    cells = document.get("cells")
    return [c for c in cells if isinstance(c, dict)] if isinstance(cells, list) else []
