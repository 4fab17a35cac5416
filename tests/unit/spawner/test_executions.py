"""What a kernel's words mean for use: a cell that runs, and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from spawner.supervisor.executions import DELIMITER, MOST_RUNNING, Executions, read

KEY = b"k"


def say(
    executions: Executions, state: str, cell: str = "c1", kind: str = "execute_request", **parent: Any
) -> bool:
    return executions.heard(
        {"msg_type": "status"}, {"msg_type": kind, "msg_id": cell, **parent}, {"execution_state": state}
    )


def test_a_cell_is_use_from_its_beginning_to_its_end() -> None:
    executions = Executions()
    assert say(executions, "busy") and executions.busy
    assert say(executions, "idle") and not executions.busy


@pytest.mark.parametrize("kind", ["kernel_info_request", "complete_request", "comm_info_request", "x", None])
def test_what_a_page_asks_that_is_merely_open_is_none(kind: str) -> None:
    executions = Executions()
    assert not say(executions, "busy", kind=kind) and not executions.busy


@pytest.mark.parametrize("kind", ["stream", "display_data", "execute_result", "iopub_welcome"])
def test_only_words_about_the_state_count(kind: str) -> None:
    executions = Executions()
    parent = {"msg_type": "execute_request", "msg_id": "c1"}
    assert not executions.heard({"msg_type": kind}, parent, {"execution_state": "busy"})
    assert not executions.busy


def test_the_end_of_another_request_ends_no_cell() -> None:
    executions = Executions()
    say(executions, "busy", "c1")
    assert not say(executions, "idle", "c0")
    assert not say(executions, "idle", "c1", kind="kernel_info_request")
    assert executions.busy


def test_a_lost_end_is_made_good_by_the_next_cell() -> None:
    executions = Executions()
    say(executions, "busy", "c1")
    say(executions, "busy", "c2")
    say(executions, "idle", "c2")
    assert not executions.busy


def test_cells_on_subshells_run_side_by_side() -> None:
    executions = Executions()
    say(executions, "busy", "c1")
    say(executions, "busy", "c2", subshell_id="s")
    say(executions, "idle", "c1")
    assert executions.busy
    say(executions, "idle", "c2", subshell_id="s")
    assert not executions.busy


def test_a_kernel_can_not_make_us_remember_without_end() -> None:
    executions = Executions()
    for number in range(MOST_RUNNING * 3):
        say(executions, "busy", "c" * 10_000, subshell_id=f"{number}" + "s" * 10_000)
    assert len(executions._running) == MOST_RUNNING
    assert max(map(len, (*executions._running, *executions._running.values()))) <= 200


def signed(header: Any, parent: Any, content: Any, key: bytes = KEY) -> list[bytes]:
    parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
    mac = hmac.new(key, b"".join(parts), hashlib.sha256).hexdigest().encode()
    return [b"kernel.1.status", DELIMITER, mac, *parts]


def test_a_signed_message_is_read() -> None:
    assert read(signed({"a": 1}, {"b": 2}, {"c": 3}), KEY) == ({"a": 1}, {"b": 2}, {"c": 3})


def test_jupyters_own_messages_are_read() -> None:
    from jupyter_client.session import Session

    session = Session(key=KEY)
    message = session.msg("status", {"execution_state": "busy"}, parent=session.msg("execute_request"))
    header, parent, content = read(session.serialize(message, ident=b"kernel.1.status"), KEY)
    assert (header["msg_type"], parent["msg_type"]) == ("status", "execute_request")
    assert content == {"execution_state": "busy"}
    assert read(Session(key=b"").serialize(message), b"")[0]["msg_type"] == "status"


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"kernel"],
        [DELIMITER],
        [DELIMITER, b"", b"{}", b"{}", b"{}"],
        signed({}, {}, {}, key=b"other"),
        signed([], {}, {}),
        signed({}, None, {}),
        signed({}, {}, "x"),
        [*signed({}, {}, {})[:-1], None],
        [*signed({}, {}, {})[:-1], b"[" * 60_000],
        [*signed({}, {}, {})[:-1], b"\xff"],
    ],
    ids=range(11),
)
def test_anything_else_is_refused(parts: list[bytes | None]) -> None:
    with pytest.raises(ValueError):
        read(parts, KEY)


@pytest.mark.parametrize("text", [b"[" * 60_000, b"\xff", b"{", b"NaN"])
def test_anything_else_is_refused_without_a_key(text: bytes) -> None:
    with pytest.raises(ValueError):
        read([DELIMITER, b"", text, b"{}", b"{}", b"{}"], b"")
