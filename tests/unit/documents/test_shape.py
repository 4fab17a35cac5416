"""A file that nobody touched stays as it is, to the byte; a file that somebody touched changes there only (D7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.documents.rooms import shape
from hub.documents.rooms.form import dump, parse
from hub.documents.rooms.ydoc import SharedNotebook

ODD = {
    "top_level_nobody_knows": {"a": [1, 2.0, None]},
    "cells": [
        {
            "cell_type": "code",
            "execution_count": 3,
            "metadata": {
                "x": 1.0,
                "big": 10**30,
                "exact": 2**53 + 1,
                "trusted": True,
                "nested": {"a": 1, "b": [1.0]},
            },
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"], "unknown": 7},
                {
                    "output_type": "execute_result",
                    "execution_count": 3,
                    "metadata": {},
                    "data": {
                        "text/plain": "one string\n",
                        "application/json": ["stays", "a list"],
                        "image/png": "aGk=",
                    },
                },
            ],
            "source": ["import x\n", "x"],
            "unknown_cell_key": {"k": 1.0},
        },
        {"cell_type": "markdown", "metadata": {"id": "colab-id"}, "source": "one string\nof two lines"},
        {"cell_type": "raw", "metadata": {}, "source": []},
    ],
    "metadata": {
        "colab": {"provenance": [], "toc": 1.0},
        "kernelspec": {"name": "python3", "display_name": "P"},
    },
    "nbformat": 4,
    "nbformat_minor": 0,
}


def shared_after(document: dict[str, Any]) -> tuple[dict[str, Any], SharedNotebook]:
    before = shape.to_shared(document, shape.cell_ids(document))
    shared = SharedNotebook(lambda _: None)
    shared.replace(before)
    return before, shared


@pytest.mark.parametrize("minor", [0, 4, 5])
def test_a_notebook_nobody_touched_is_written_back_to_the_byte(minor: int) -> None:
    document = json.loads(json.dumps({**ODD, "nbformat_minor": minor}))
    raw = dump(document)
    before, shared = shared_after(parse(raw))
    assert shape.same(shared.read(), before)
    assert dump(shape.to_file(document, before, shared.read())) == raw


def test_an_edit_changes_its_cell_and_nothing_else() -> None:
    before, shared = shared_after(ODD)
    now = shared.read()
    now["cells"][0]["source"] = "import y\nx"
    written = shape.to_file(ODD, before, now)
    wanted = json.loads(json.dumps(ODD))
    wanted["cells"][0]["source"] = ["import y\n", "x"]
    assert dump(written) == dump(wanted)


def test_a_file_can_not_make_its_outputs_trusted_but_keeps_what_it_says() -> None:
    before, shared = shared_after(ODD)
    assert "trusted" not in before["cells"][0]["metadata"]
    now = shared.read()
    now["cells"][0]["metadata"]["new"] = True
    metadata = shape.to_file(ODD, before, now)["cells"][0]["metadata"]
    assert metadata["trusted"] is True
    assert metadata["new"] is True
    assert metadata["big"] == 10**30
    assert repr(metadata["x"]) == "1.0"


def test_a_page_can_not_make_outputs_trusted_for_other_readers() -> None:
    _, shared = shared_after(ODD)
    page = SharedNotebook(lambda _: None)
    page.merge(shared.updates_since())
    hostile = page.read()
    hostile["cells"].append(
        {
            "id": "evil",
            "cell_type": "code",
            "source": "",
            "outputs": [],
            "metadata": {},
            "execution_count": None,
        }
    )
    page.replace(hostile)
    page._cells[3]["metadata"]["trusted"] = True  # type: ignore[index,call-overload]
    shared.merge(page.updates_since(shared.state_vector()))
    assert len(shared.read()["cells"]) == 4
    assert "trusted" not in shared._cells[3]["metadata"]  # type: ignore[index,call-overload,operator]


def test_cells_without_ids_keep_none_before_format_4_5() -> None:
    before, shared = shared_after(ODD)
    now = shared.read()
    now["cells"].insert(
        1,
        {
            "id": "new",
            "cell_type": "code",
            "source": "1",
            "outputs": [],
            "metadata": {},
            "execution_count": None,
        },
    )
    written = shape.to_file(ODD, before, now)
    assert all("id" not in cell for cell in written["cells"])
    assert written["cells"][1]["source"] == ["1"]
    assert written["cells"][2] == ODD["cells"][1]


def test_an_empty_notebook_gets_a_cell_to_type_in_and_stays_empty_on_disk() -> None:
    empty = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    before, shared = shared_after(empty)
    assert len(shared.read()["cells"]) == 1
    assert shape.same(shared.read(), before)


def test_a_cell_that_two_people_moved_at_once_is_there_once() -> None:
    _, shared = shared_after(ODD)
    now = shared.read()
    doubled = {**now, "cells": [*now["cells"], now["cells"][0]]}
    assert len(shape.normal(doubled)["cells"]) == 3


def test_two_cells_with_one_id_and_other_content_are_both_kept() -> None:
    _, shared = shared_after(ODD)
    now = shared.read()
    other = {**now["cells"][0], "source": "other"}
    cells = shape.normal({**now, "cells": [*now["cells"], other]})["cells"]
    assert len(cells) == 4
    assert len({c["id"] for c in cells}) == 4


def test_outputs_that_stay_keep_their_form_when_one_is_added() -> None:
    before, shared = shared_after(ODD)
    now = shared.read()
    now["cells"][0]["outputs"].append({"output_type": "stream", "name": "stderr", "text": "x\ny"})
    outputs = shape.to_file(ODD, before, now)["cells"][0]["outputs"]
    assert outputs[:2] == ODD["cells"][0]["outputs"]
    assert outputs[2]["text"] == ["x\n", "y"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
).filter(lambda v: "\ud800" not in json.dumps(v, ensure_ascii=True))


@given(
    metadata=st.dictionaries(st.text(max_size=6), json_values, max_size=4),
    cell_metadata=st.dictionaries(st.text(max_size=6), json_values, max_size=4),
    source=st.text(max_size=30) | st.lists(st.text(max_size=10), max_size=4),
)
def test_whatever_the_metadata_it_survives(metadata: Any, cell_metadata: Any, source: Any) -> None:
    document = {
        "cells": [{"cell_type": "markdown", "metadata": cell_metadata, "source": source}],
        "metadata": metadata,
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    before, shared = shared_after(document)
    now = shared.read()
    assert shape.same(now, before)
    assert dump(shape.to_file(document, before, now)) == dump(document)
