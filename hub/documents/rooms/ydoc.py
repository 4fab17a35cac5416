"""The co-edited form of a notebook inside a Y document, in the schema the page uses (`meta`, `cells`, `state`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from pycrdt import Array, Doc, Map, Text, TransactionEvent

from hub.documents.rooms.shape import Json, NotShareable, Object, normal, same, shared_output

T = TypeVar("T")


class SharedNotebook:
    """A Y document that holds one notebook. `on_update` gets every update, whoever made it."""

    def __init__(self, on_update: Callable[[bytes], None]) -> None:
        self._doc: Doc[Any] = Doc()
        self._state: Map[object] = self._doc.get("state", type=Map)
        self._meta: Map[object] = self._doc.get("meta", type=Map)
        self._cells: Array[object] = self._doc.get("cells", type=Array)

        def forward(event: TransactionEvent) -> None:
            on_update(event.update)

        self._subscription = self._doc.observe(forward)
        self._outputs_touched = False
        self._cells.observe_deep(self._note_outputs)

    def close(self) -> None:
        """Stop telling about updates."""
        self._doc.unobserve(self._subscription)

    def _note_outputs(self, events: list[Any]) -> None:
        if not self._outputs_touched:
            self._outputs_touched = any(not event.path[1:] or event.path[1] == "outputs" for event in events)

    # -- merging ------------------------------------------------------------------------------------------------

    def state_vector(self) -> bytes:
        """Return what this document has seen."""
        return self._doc.get_state()

    def updates_since(self, state_vector: bytes | None = None) -> bytes:
        """Return what somebody who has seen `state_vector` (None: nothing) is missing; raise NotShareable."""
        if state_vector is None:
            return self._doc.get_update()
        return _guarded(lambda: self._doc.get_update(state_vector), "not a state vector")

    def merge(self, update: bytes) -> None:
        """Merge an update from elsewhere; raise NotShareable when it is none."""
        _guarded(lambda: self._doc.apply_update(update), "the update can not be merged")
        if b"trusted" in update:
            self._distrust()

    def _distrust(self) -> None:
        """Take away any claim that outputs are trusted: it would run their scripts in every reader's page."""
        with self._doc.transaction():
            for cell in self._cells:
                if not isinstance(cell, Map):
                    continue
                metadata = cell.get("metadata")
                if isinstance(metadata, Map):
                    if "trusted" in metadata:
                        del metadata["trusted"]
                elif isinstance(metadata, dict) and "trusted" in metadata:
                    cell["metadata"] = Map({k: v for k, v in metadata.items() if k != "trusted"})

    # -- the notebook -------------------------------------------------------------------------------------------

    def read(self) -> Object:
        """Return the notebook in the spelling of `shape.to_shared`; raise NotShareable."""
        meta = _guarded(self._meta.to_py, "the metadata can not be read") or {}
        cells: list[Json] = []
        for cell in self._cells:
            if not isinstance(cell, Map):
                raise NotShareable("a cell is not an object")
            cells.append(cast("Json", cell.to_py()))
        return normal({**cast("Object", meta), "cells": cells})

    def replace(self, shared: Object) -> None:
        """Become `shared`, touching only what differs."""
        with self._doc.transaction():
            for key in ("nbformat", "nbformat_minor"):
                if not same(cast("Json", self._meta.get(key)), shared[key]):
                    self._meta[key] = _numbers(shared[key])
            metadata = self._meta.get("metadata")
            now = cast("Json", metadata.to_py() if isinstance(metadata, Map) else metadata)
            if not same(now, shared["metadata"]):
                self._meta["metadata"] = Map(cast("dict[str, object]", _numbers(shared["metadata"])))
            self._replace_cells(cast("list[Object]", shared["cells"]))

    def _replace_cells(self, wanted: list[Object]) -> None:
        keep = {str(c["id"]) for c in wanted}
        order = [self._id_at(i) for i in range(len(self._cells))]
        for i in reversed(range(len(order))):
            if order[i] not in keep:
                del self._cells[i]
                del order[i]
        for i, cell in enumerate(wanted):
            name = cell["id"]
            if i < len(order) and order[i] == name:
                self._update_cell(i, cell)
                continue
            if name in order[i:]:
                at = order.index(name, i)
                del self._cells[at]  # the page's library knows no move
                del order[at]
            self._cells.insert(i, new_cell(cell))
            order.insert(i, name)
        if len(order) > len(wanted):
            del self._cells[len(wanted) :]

    def _id_at(self, i: int) -> object:
        cell = self._cells[i]
        return cell.get("id") if isinstance(cell, Map) else None

    def _update_cell(self, i: int, wanted: Object) -> None:
        cell = cast("Map[object]", self._cells[i])
        now = cast("Object", cell.to_py() or {})
        now.pop("execution_state", None)
        read = cast("list[Object]", normal({"metadata": {}, "cells": [now]})["cells"])[0]
        different = [
            k
            for k in {*read, *wanted}
            if not same(read.get(k), wanted.get(k)) or (k in read) != (k in wanted)
        ]
        source = cell.get("source")
        if different == ["source"] and isinstance(source, Text):
            edit_text(source, str(now["source"]), str(wanted["source"]))
        elif different:
            self._cells[i] = new_cell(wanted)

    # -- what the page is told beside the notebook --------------------------------------------------------------

    def tell(self, **values: Json) -> None:
        """Set values of the shared state (`path`, `dirty`, `hash`, `saveState`, `notice`); None takes one away."""
        with self._doc.transaction():
            for key, value in values.items():
                if value is None:
                    if key in self._state:
                        del self._state[key]
                elif not same(cast("Json", self._state.get(key)), value) or key == "dirty":
                    self._state[key] = value

    def told(self, key: str) -> Json:
        """Return a value of the shared state, None when it is not set."""
        return cast("Json", self._state.get(key))

    def state_keys(self) -> list[str]:
        """Return the names of all values of the shared state."""
        return list(self._state.keys())

    # -- outputs of one cell ------------------------------------------------------------------------------------

    def take_outputs_touched(self) -> bool:
        """Return whether outputs of any cell may have changed since this was last asked."""
        touched, self._outputs_touched = self._outputs_touched, False
        return touched

    def has_code_cell(self, cell_id: str) -> bool:
        """Return whether there is a code cell with this id."""
        return self._code_cell(cell_id) is not None

    def outputs(self, cell_id: str) -> list[Object] | None:
        """Return the outputs of a code cell in the spelling of `shape.to_shared`, None when there is no such cell."""
        cell = self._code_cell(cell_id)
        if cell is None:
            return None
        found = cell.get("outputs")
        plain = found.to_py() if isinstance(found, Array) else []
        return [shared_output(cast("Object", o)) for o in plain or [] if isinstance(o, dict)]

    def execution_count(self, cell_id: str) -> int | None:
        """Return the number a code cell shows, None when it shows none."""
        cell = self._code_cell(cell_id)
        count = cell.get("execution_count") if cell is not None else None
        return int(count) if isinstance(count, int | float) else None

    def write_outputs(self, cell_id: str, wanted: list[Object]) -> None:
        """Make `wanted` the outputs of a code cell, touching only what differs; text that grew is added to."""
        cell = self._code_cell(cell_id)
        if cell is None:
            return
        with self._doc.transaction():
            outputs = cell.get("outputs")
            if not isinstance(outputs, Array):
                cell["outputs"] = Array([])
                outputs = cast("Array[object]", cell["outputs"])
            now = self.outputs(cell_id) or []
            if len(now) != len(outputs):  # something in there is no output
                del outputs[:]
                now = []
            for i, output in enumerate(wanted):
                if i >= len(now):
                    outputs.append(_new_output(output))
                elif not same(now[i], output) and not _grow(outputs[i], now[i], output):
                    outputs[i] = _new_output(output)
            if len(now) > len(wanted):
                del outputs[len(wanted) :]

    def write_end(self, cell_id: str, execution_count: int | None) -> None:
        """Show that a code cell has run; `execution_count` None leaves its number alone."""
        cell = self._code_cell(cell_id)
        if cell is None:
            return
        with self._doc.transaction():
            if execution_count is not None and self.execution_count(cell_id) != execution_count:
                cell["execution_count"] = float(execution_count)
            if cell.get("execution_state") != "idle":
                cell["execution_state"] = "idle"

    def _code_cell(self, cell_id: str) -> Map[object] | None:
        for cell in self._cells:
            if isinstance(cell, Map) and cell.get("id") == cell_id and cell.get("cell_type") == "code":
                return cell
        return None


def _grow(output: object, now: Object, wanted: Object) -> bool:
    """Change the end of a stream's text; return whether that made it what is wanted."""
    if not (isinstance(output, Map) and now.get("output_type") == wanted["output_type"] == "stream"):
        return False
    text, old, new = output.get("text"), str(now.get("text", "")), str(wanted["text"])
    if not isinstance(text, Text) or now.get("name") != wanted["name"]:
        return False
    same_start = _common_start(old, new)
    if same_start < len(old) // 2:
        return False
    first, end = len(old[:same_start].encode()), len(old.encode())  # positions in `text` count UTF-8 bytes
    if first < end:
        del text[first:end]
    if same_start < len(new):
        text.insert(first, new[same_start:])
    return True


def _common_start(a: str, b: str) -> int:
    """Return how many characters two texts have in common at their start, by halving: texts are long, and differ at their end."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def new_cell(cell: Object) -> Map[object]:
    """Return a cell as the page's library lays it out."""
    out: dict[str, object] = dict(cast("dict[str, object]", _numbers(cell)))
    out["source"] = Text(str(cell["source"]))
    out["metadata"] = Map(cast("dict[str, object]", _numbers(cell["metadata"])))
    if cell["cell_type"] == "code":
        outputs: list[Map[object]] = []
        for output in cast("list[Json]", cell.get("outputs") or []):
            outputs.append(_new_output(cast("Object", output)))
        out["outputs"] = Array(outputs)
        out["execution_state"] = "idle"
    return Map(out)


def _new_output(output: Object) -> Map[object]:
    item = dict(cast("dict[str, object]", _numbers(output)))
    if item.get("output_type") == "stream":
        item["text"] = Text(str(item.get("text", "")))
    return Map(item)


def edit_text(text: Text, old: str, new: str) -> None:
    """Turn `old`, the content of `text`, into `new` by one small edit, so that cursors elsewhere stay where they are."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    # Positions in `text` count UTF-8 bytes.
    first = len(old[:start].encode())
    gone = len(old[start : len(old) - end].encode())
    if gone:
        del text[first : first + gone]
    added = new[start : len(new) - end]
    if added:
        text.insert(first, added)


def _numbers(value: Json) -> Json:
    """Return `value` with whole numbers as the page's library stores them."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return float(value)
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return value


def _guarded(call: Callable[[], T], message: str) -> T:
    """Call into the merge library; its panics are no ordinary exceptions, and bytes from a page may cause one."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise NotShareable(f"{message}: {type(error).__name__}") from error
