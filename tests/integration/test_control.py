"""Control over the real hub and the real local backend: whatever is killed when, nothing leaks and nothing is doubled (R1, R6)."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from support.patience import PATIENCE, until
from support.pictures import CONTROL, ask, kill, processes_of, state_of, until_all_agree
from support.service import Running, running

CONFIG = "runtimes: {environment: minimal}\nquota: {max_runtimes: 20}\n"
SEED = int(os.environ.get("MINICOLAB_TEST_SEED", "4"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An installation whose processes these tests may kill."""
    with running(tmp_path_factory.mktemp("control") / "state", CONFIG) as service:
        service.add_user("ada")
        yield service


def test_control_killed_again_and_again_while_runtimes_start_leaves_each_notebook_one_runtime(
    own: Running,
) -> None:
    chance = random.Random(SEED)
    made = {}
    for _ in range(4):
        file = own.make_file("ada")["id"]
        reply = own.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": file})
        assert reply.status_code == 202, reply.text
        made[file] = reply.json()["id"]
        time.sleep(chance.uniform(0, 1.0))
        kill(own, "hub.control")
        until(lambda: ask(own, "GET", "/runtimes") is not None, "control did not come back")
    for file, runtime in made.items():
        until(lambda r=runtime: state_of(own, r) == "ready", f"{runtime} did not become ready")
        again = own.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": file})
        assert (again.status_code, again.json()["id"]) == (200, runtime)
    until_all_agree(own)
    for runtime in made.values():
        assert own.api("ada", "DELETE", f"{CONTROL}/runtimes/{runtime}").json()["state"] == "ended"
    until_all_agree(own)


def test_hub_killed_while_a_runtime_starts_is_begun_again_once(own: Running) -> None:
    file = own.make_file("ada")["id"]
    runtime = own.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": file}).json()["id"]
    until(lambda: bool(processes_of(own, "spawner.local.supervisor", runtime)), "no supervisor began")
    kill(own, "hub.jupyterhub_process")
    until(lambda: state_of(own, runtime) == "ready", "the runtime did not become ready")
    assert own.execute("ada", runtime, "print(6*7)") == "42\n"
    until_all_agree(own)
    own.api("ada", "DELETE", f"{CONTROL}/runtimes/{runtime}")


@pytest.mark.parametrize("wait", [0.0, 0.15, 0.5, 1.0])
def test_a_runtime_ended_while_it_starts_leaves_nothing(own: Running, wait: float) -> None:
    file = own.make_file("ada")["id"]
    runtime = own.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": file}).json()["id"]
    time.sleep(wait)
    reply = own.api("ada", "DELETE", f"{CONTROL}/runtimes/{runtime}")
    assert (reply.status_code, reply.json()["state"]) == (200, "ended")
    until_all_agree(own)
    assert not processes_of(own, "spawner.local.supervisor", runtime)


def test_while_the_hub_is_stopped_running_ones_go_on_and_new_ones_are_told_when_to_try_again(
    own: Running,
) -> None:
    file, other = own.make_file("ada")["id"], own.make_file("ada")["id"]
    runtime = own.start_runtime("ada", file)["id"]
    (hub,) = processes_of(own, "hub.jupyterhub_process")
    os.kill(hub, signal.SIGSTOP)
    try:
        refused = own.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": other})
        assert (refused.status_code, refused.json()["code"]) == (503, "hub_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert own.execute("ada", runtime, "print('undisturbed')") == "undisturbed\n"
    finally:
        os.kill(hub, signal.SIGCONT)
    own.start_runtime("ada", other)


def test_a_second_control_refuses_and_names_the_holder(own: Running) -> None:
    (holder,) = processes_of(own, "hub.control")
    done = subprocess.run(
        [sys.executable, "-m", "hub.control", "--state", str(own.state)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 75
    assert f"process {holder}" in done.stderr


def test_the_stream_of_events_survives_a_restart_of_control(own: Running) -> None:
    runtime = own.start_runtime("ada", own.make_file("ada")["id"])["id"]
    path = f"{CONTROL}/runtimes/{runtime}/events"
    with own.api("ada", "GET", path, stream=True) as events:
        first = next(line for line in events.iter_lines() if line.startswith(b"id:"))
    kill(own, "hub.control")
    until(lambda: ask(own, "GET", "/runtimes") is not None, "control did not come back")
    with own.api("ada", "GET", path, stream=True, headers={"Last-Event-ID": first[4:].decode()}) as events:
        lines = events.iter_lines()
        assert b"event: ready" in (next(lines), next(lines)), (
            "an old instance's number is not taken for a new one's"
        )
        os.kill(processes_of(own, "spawner.local.supervisor", runtime)[0], signal.SIGKILL)
        ended = next(
            json.loads(line[5:])
            for line in lines
            if line.startswith(b"data:")
            and b'"ended"' in line[:2000]
            and json.loads(line[5:])["state"] == "ended"
        )
    assert ended["reason"]["message"]
