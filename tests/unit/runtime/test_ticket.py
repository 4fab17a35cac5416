"""Tickets are verified against the vector that control's side is held to as well."""

import json
from pathlib import Path
from typing import Any

import pytest

from minicolab_runtime import ticket
from quota import ticket as control_ticket

VECTOR: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "ticket.json").read_text())
KEY = bytes.fromhex(VECTOR["runtime_key_hex"])


def test_the_key_of_a_runtime_comes_from_the_master_key() -> None:
    master = bytes.fromhex(VECTOR["master_key_hex"])
    assert ticket.runtime_key(master, VECTOR["runtime_id"]).hex() == VECTOR["runtime_key_hex"]


def test_a_good_ticket_says_who_comes() -> None:
    found = ticket.verify(VECTOR["token"], KEY, runtime_id=VECTOR["runtime_id"], now=VECTOR["now"])
    assert found == ticket.Ticket(VECTOR["runtime_id"], VECTOR["user"], VECTOR["expires"], VECTOR["nonce"])


@pytest.mark.parametrize("case", VECTOR["refused"], ids=lambda case: case["why"])
def test_a_ticket_that_is_not_right_is_refused_with_its_code(case: dict[str, Any]) -> None:
    with pytest.raises(ticket.TicketError) as refused:
        ticket.verify(case["token"], KEY, runtime_id=VECTOR["runtime_id"], now=case["now"])
    assert (refused.value.status, refused.value.code) == (case["status"], case["code"])


def test_every_single_changed_character_spoils_a_ticket() -> None:
    token = VECTOR["token"]
    for i, character in enumerate(token):
        changed = token[:i] + ("A" if character != "A" else "B") + token[i + 1 :]
        with pytest.raises(ticket.TicketError):
            ticket.verify(changed, KEY, runtime_id=VECTOR["runtime_id"], now=VECTOR["now"])


def test_control_mints_the_same_bytes() -> None:
    minted = control_ticket.mint(
        control_ticket.runtime_key(bytes.fromhex(VECTOR["master_key_hex"]), VECTOR["runtime_id"]),
        VECTOR["runtime_id"],
        VECTOR["user"],
        VECTOR["expires"],
        VECTOR["nonce"],
    )
    assert minted == VECTOR["token"]
