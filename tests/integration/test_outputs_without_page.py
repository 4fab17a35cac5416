"""A cell's outputs reach the document although no page is open, whatever is restarted meanwhile, and once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.kernel import Kernel
from support.patience import until
from support.service import Running, running

CELL = "cell-1"
UNTIL_GO = "while not os.path.exists('/content/go'): time.sleep(0.02)\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An installation of the module's own: its processes are killed here."""
    with running(tmp_path_factory.mktemp("scribe") / "state") as service:
        service.add_user("ada")
        yield service


@pytest.fixture
def file_id(own: Running) -> Iterator[str]:
    cell = {
        "cell_type": "code",
        "id": CELL,
        "metadata": {},
        "source": "",
        "outputs": [],
        "execution_count": None,
    }
    document = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    yield str(own.make_file("ada", content=document)["id"])
    own.end_runtimes("ada")


def cell_of(service: Running, file_id: str) -> dict[str, Any]:
    reply = service.api("ada", "GET", f"/services/documents/api/v1/files/{file_id}/content")
    cell: dict[str, Any] = reply.json()["cells"][0]
    return cell


def text_of(service: Running, file_id: str) -> str:
    return "".join("".join(o.get("text", "")) for o in cell_of(service, file_id)["outputs"])


def run_and_leave(service: Running, runtime_id: str, code: str) -> None:
    """Start a cell as a page does, and close the connection at once when it runs."""
    ticket = service.ticket("ada", runtime_id)
    kernel = Kernel(ticket["url"], ticket["token"])
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    kernel.send("execute_request", content, metadata={"cellId": CELL})
    while kernel.receive()["msg_type"] != "execute_input":
        pass
    kernel.close()


def kill(service: Running, name: str) -> int:
    """Kill a process of the installation; return its id."""
    wanted = {"hub": b"hub.jupyterhub_process", "control": b"hub.control", "documents": b"hub.documents"}[
        name
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in words and str(service.state).encode() in words:
            os.kill(int(process.name), signal.SIGKILL)
            return int(process.name)
    raise AssertionError(f"{name} does not run")


def test_a_cell_writes_into_the_document_with_no_page_and_every_service_killed_meanwhile(
    own: Running, file_id: str
) -> None:
    runtime = own.start_runtime("ada", file_id)["id"]
    code = "import os, time\nprint('begin')\n" + UNTIL_GO + "print('end')\n1 + 41"
    run_and_leave(own, runtime, code)
    until(lambda: text_of(own, file_id) == "begin\n", "the first output never came")
    assert cell_of(own, file_id)["execution_count"] is None  # it runs still
    for name in ("control", "documents", "hub"):
        kill(own, name)
    until(lambda: own.answers("ada"), "the services did not come back")
    assert text_of(own, file_id) == "begin\n"
    own.execute("ada", runtime, "open('/content/go', 'w').close()")
    until(lambda: cell_of(own, file_id)["execution_count"] == 1, "the end never came")
    found = cell_of(own, file_id)["outputs"]
    assert [o["output_type"] for o in found] == ["stream", "execute_result"]
    assert "".join(found[0]["text"]) == "begin\nend\n"
    assert found[1]["data"]["text/plain"] == ["42"]


def test_the_last_outputs_of_a_runtime_that_is_ended_are_in_the_document(own: Running, file_id: str) -> None:
    runtime = own.start_runtime("ada", file_id)["id"]
    run_and_leave(
        own, runtime, "import time\nfor n in range(10**6):\n    print(n, flush=True); time.sleep(0.01)"
    )
    until(lambda: text_of(own, file_id) != "", "nothing came")
    own.end_runtimes("ada")
    left = own.state / "runtimes" / ".ended"
    until(lambda: not list(left.glob(f"{runtime}*")), "what it left was not taken over")
    until(lambda: not list((own.state / "pending-outputs").glob("*.json")), "outputs still wait")
    lines = text_of(own, file_id).split()
    assert lines == [str(n) for n in range(len(lines))]
    # Nothing printed after the first lines was lost but what the kernel itself had not said yet.
    assert len(lines) > 1


def test_an_end_while_documents_and_control_are_dead_loses_nothing(own: Running, file_id: str) -> None:
    runtime = own.start_runtime("ada", file_id)["id"]
    run_and_leave(
        own, runtime, "print('said before the end')\nimport google.colab.runtime as r\nr.unassign()"
    )
    kill(own, "documents")
    kill(own, "control")
    until(lambda: own.answers("ada"), "the services did not come back")
    until(lambda: text_of(own, file_id) == "said before the end\n", "the last output never came")
    path = f"/services/control/api/v1/runtimes/{runtime}"
    until(lambda: own.api("ada", "GET", path).json().get("state") == "ended")
    assert own.api("ada", "GET", path).json()["reason"]["code"] == "unassigned"


def test_two_writers_of_one_cell_are_never_both_there(own: Running, file_id: str) -> None:
    """The same cell run again and again without a page: the document shows the last run alone."""
    runtime = own.start_runtime("ada", file_id)["id"]
    for number in range(3):
        run_and_leave(own, runtime, f"print('run {number}')")
    until(lambda: text_of(own, file_id) == "run 2\n", "the last run is not what is shown")
    assert json.dumps(cell_of(own, file_id)).count("run ") == 1
