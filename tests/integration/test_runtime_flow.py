"""From a notebook to a runtime and back, through every real process."""

from __future__ import annotations

import json
import os
import secrets
import signal
from pathlib import Path

import pytest
import requests

from support.kernel import Kernel
from support.patience import PATIENCE, Stopwatch, until
from support.service import Running

CONTROL = "/services/control/api/v1"


def test_a_notebooks_runtime_runs_code_and_a_second_request_finds_the_same_one(service: Running) -> None:
    file = service.make_file("ada")
    runtime = service.start_runtime("ada", file["id"])
    again = service.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": file["id"]})
    assert (again.status_code, again.json()["id"]) == (200, runtime["id"])
    assert service.execute("ada", runtime["id"], "import os; print(os.getcwd(), 6*7)") == "/content 42\n"
    assert runtime["backend"] == "local"
    assert runtime["deadline"] > runtime["ready"] >= runtime["created"]


def test_the_same_key_and_body_give_the_same_runtime_and_another_body_is_refused(service: Running) -> None:
    file, other = service.make_file("ada"), service.make_file("ada")
    headers = {"Idempotency-Key": f"key-{file['id']}"}
    first = service.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": file["id"]}, headers=headers)
    second = service.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": file["id"]}, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    third = service.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": other["id"]}, headers=headers)
    assert (third.status_code, third.json()["code"]) == (409, "key_reused")


def test_a_deleted_runtime_leaves_nothing_and_says_why_it_ended(service: Running) -> None:
    file = service.make_file("ada")
    runtime = service.start_runtime("ada", file["id"])
    mark = str(secrets.randbelow(10**9) + 10**6)  # the argument of a process nobody else on this machine has
    service.execute(
        "ada",
        runtime["id"],
        f"import subprocess; subprocess.Popen(['sleep', '{mark}'], start_new_session=True)",
    )
    assert processes(mark)
    reply = service.api("ada", "DELETE", f"{CONTROL}/runtimes/{runtime['id']}")
    assert reply.status_code in (200, 202)
    ended = (
        service.wait_for_state("ada", runtime["id"], {"ended"})
        if reply.json()["state"] != "ended"
        else reply.json()
    )
    assert ended["reason"]["code"] == "user_deleted"
    assert not processes(mark)
    assert not (service.state / "runtimes" / runtime["id"]).exists()
    gone = requests.get(service.url + f"/user/ada/{runtime['id']}/api/status", timeout=PATIENCE)
    assert gone.status_code in (404, 424, 503)


def processes(word: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_runtime_that_is_killed_from_outside_is_told_within_two_seconds(service: Running) -> None:
    file = service.make_file("ada")
    runtime = service.start_runtime("ada", file["id"])
    path = f"{CONTROL}/runtimes/{runtime['id']}/events"
    with service.api("ada", "GET", path, stream=True) as events:
        lines = events.iter_lines()
        for line in lines:
            if line.startswith(b"data:"):
                break
        supervisor = [
            p
            for p in processes("spawner.local.supervisor")
            if runtime["id"] in Path(f"/proc/{p}/cmdline").read_text()
        ]
        with Stopwatch() as watch:
            os.kill(supervisor[0], signal.SIGKILL)
            for line in lines:
                if line.startswith(b"data:") and json.loads(line[5:])["state"] in ("ended", "failed"):
                    break
    assert watch.seconds < 2
    fresh = service.start_runtime("ada", file["id"])
    assert fresh["id"] != runtime["id"]
    assert service.execute("ada", fresh["id"], "print('new machine')") == "new machine\n"


def test_a_running_cell_does_not_notice_that_hub_control_documents_and_proxy_are_restarted(
    service: Running,
) -> None:
    file = service.make_file("ada")
    runtime = service.start_runtime("ada", file["id"])
    ticket = service.ticket("ada", runtime["id"])
    kernel = Kernel(ticket["url"], ticket["token"])
    kernel.run(
        "import threading, time\nn = 0\ndef count():\n    global n\n    while True:\n        n += 1\n        time.sleep(0.05)\nthreading.Thread(target=count, daemon=True).start()"
    )
    before = int(kernel.run("print(n)"))
    kernel.close()
    killed = [
        pid
        for word in ("hub.jupyterhub_process", "hub.control", "hub.documents")
        for pid in processes(word)
        if str(service.state) in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    assert len(killed) == 3
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: service.answers("ada"), "not all of the services came back")
    assert service.api("ada", "GET", f"{CONTROL}/runtimes/{runtime['id']}").json()["state"] == "ready"
    ticket = service.ticket("ada", runtime["id"])
    kernel = Kernel(ticket["url"], ticket["token"], kernel_id=kernel.id)
    assert int(kernel.run("print(n)")) > before
    kernel.close()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({}, 400, "missing_field", id="no-file"),
        pytest.param({"file_id": 5}, 400, "bad_type", id="number"),
        pytest.param({"file_id": "nope"}, 404, "not_found", id="unknown"),
        pytest.param({"file_id": "../../etc/passwd"}, 404, "not_found", id="traversal"),
        pytest.param({"file_id": "FILE", "accelerator": "Z9"}, 400, "unknown_accelerator", id="accelerator"),
        pytest.param({"file_id": "FILE", "shape": "HUGE"}, 400, "unknown_shape", id="shape"),
        pytest.param({"file_id": "FILE", "gpu": 1}, 400, "unknown_field", id="unknown-field"),
    ],
)
def test_a_bad_request_for_a_runtime_gets_a_precise_answer(
    service: Running, body: dict[str, object], status: int, code: str
) -> None:
    file = service.make_file("ada")
    filled = {k: file["id"] if v == "FILE" else v for k, v in body.items()}
    reply = service.api("ada", "POST", f"{CONTROL}/runtimes", json=filled)
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text


def test_the_limit_on_runtimes_is_told_with_its_numbers(tmp_path: Path) -> None:
    from support.service import running

    with running(
        tmp_path / "state", "runtimes: {environment: minimal}\nquota: {max_runtimes: 1}\n"
    ) as service:
        service.add_user("ada")
        service.start_runtime("ada", service.make_file("ada")["id"])
        reply = service.api(
            "ada", "POST", f"{CONTROL}/runtimes", json={"file_id": service.make_file("ada")["id"]}
        )
        assert reply.status_code == 409
        assert reply.json()["code"] == "too_many_runtimes"
        assert (reply.json()["limit"], reply.json()["used"]) == (1, 1)


def test_pip_install_is_private_to_the_runtime_and_gone_after_reset(service: Running) -> None:
    file = service.make_file("ada")
    runtime = service.start_runtime("ada", file["id"])
    out = service.execute(
        "ada",
        runtime["id"],
        "!pip install -q matplotlib-venn\nimport matplotlib_venn; print('imported')",
        timeout=180,
    )
    assert out.strip().endswith("imported"), out
    other = service.start_runtime("bob", service.make_file("bob")["id"])
    assert "ModuleNotFoundError" in service.execute("bob", other["id"], "import matplotlib_venn")
    service.api("ada", "DELETE", f"{CONTROL}/runtimes/{runtime['id']}")
    fresh = service.start_runtime("ada", file["id"])
    assert "ModuleNotFoundError" in service.execute("ada", fresh["id"], "import matplotlib_venn")
