"""Any of the service's processes is killed at any moment, under a running cell: the cell never notices, and all agree after (R1, R6)."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from support.kernel import Kernel
from support.patience import PATIENCE, until
from support.pictures import CONTROL, ask, state_of, until_all_agree
from support.service import Running, running

SEED = int(os.environ.get("MINICOLAB_TEST_SEED", "4"))
SERVICES = ("hub", "control", "documents", "proxy")
KILLS = 12
COUNT = """
import os, time
count = 0
while not os.path.exists('over'):
    count += 1
    with open('draft', 'w') as file:
        file.write(f'{os.getpid()} {count}')
    os.replace('draft', 'count')
    time.sleep(0.05)
open('ended', 'w').write(f'{os.getpid()} {count}')
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("faults") / "state") as service:
        service.add_user("ada")
        yield service


def numbers(path: Path) -> tuple[int, int]:
    """Return who counts, and how far they are."""
    pid, count = path.read_text().split()
    return int(pid), int(count)


def pid_of(service: Running, name: str) -> int:
    """Return the process of one of the services, by what `status` tells."""
    pid = json.loads(service.command("status", "--json").stdout)["processes"].get(name, 0)
    return int(pid)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(service: Running, name: str) -> None:
    """Kill one of the services; one that is just coming back is waited for."""
    until(lambda: lives(pid_of(service, name)), f"{name} did not come back")
    os.kill(pid_of(service, name), signal.SIGKILL)


@pytest.mark.slow
def test_a_cell_never_notices_that_services_are_killed_and_all_agree_after(own: Running) -> None:
    chance = random.Random(SEED)
    file = own.make_file("ada")["id"]
    runtime = own.start_runtime("ada", file)["id"]
    ticket = own.ticket("ada", runtime)
    kernel = Kernel(ticket["url"], ticket["token"])
    kernel.send("execute_request", {"code": COUNT, "silent": False, "store_history": True})
    content = own.state / "runtimes" / runtime / "content"
    until((content / "count").exists, "the cell did not begin")
    kernel.close()
    first, _ = numbers(content / "count")
    killed: list[str] = []
    for _ in range(KILLS):
        killed.append(chance.choice(SERVICES))
        kill(own, killed[-1])
        time.sleep(chance.uniform(0, 1.5))
        pid, before = numbers(content / "count")
        assert pid == first
        until(lambda b=before: numbers(content / "count")[1] > b, f"the cell stands still after {killed}")
    until(lambda: own.answers("ada"), f"not all came back after {killed}")
    until(lambda: state_of(own, runtime) == "ready", f"the runtime is lost after {killed}")
    until_all_agree(own)
    # One control acts, and it is the one whose number is in the lock.
    holder = (own.state / "run" / "control.lock").read_text()
    assert int(holder) == pid_of(own, "control")
    # The same machine is found, reached through the proxy, and what it did is whole.
    assert own.start_runtime("ada", file)["id"] == runtime
    (content / "over").touch()
    until((content / "ended").exists, "the cell did not end in order")
    assert numbers(content / "ended")[0] == first
    ticket = own.ticket("ada", runtime)
    kernel = Kernel(ticket["url"], ticket["token"], kernel_id=kernel.id)
    assert kernel.run("print(count)") == f"{numbers(content / 'ended')[1]}\n"
    kernel.close()
    until(lambda: own.api("ada", "DELETE", f"{CONTROL}/runtimes/{runtime}").status_code in (200, 404))
    until_all_agree(own)


@pytest.mark.slow
def test_services_killed_while_runtimes_start_and_end_leave_nothing_behind(own: Running) -> None:
    chance = random.Random(SEED + 1)
    until(lambda: own.answers("ada"))
    files = [own.make_file("ada")["id"] for _ in range(3)]
    wanted: dict[str, str] = {}
    for file in files:
        own.api("ada", "POST", f"{CONTROL}/runtimes", json={"file_id": file})
        time.sleep(chance.uniform(0, 1.0))
        kill(own, chance.choice(SERVICES))
    until(lambda: own.answers("ada"), "not all came back")
    for file in files:
        wanted[file] = own.start_runtime("ada", file)["id"]
    assert len(set(wanted.values())) == len(files)
    until_all_agree(own)
    for runtime in wanted.values():
        ask(own, "DELETE", f"/runtimes/{runtime}")
        kill(own, chance.choice(("hub", "control")))
    until(lambda: own.answers("ada"), "not all came back")
    for runtime in wanted.values():
        until(lambda r=runtime: gone(own, r), f"{runtime} did not end")
    until_all_agree(own)


def gone(service: Running, runtime: str) -> bool:
    """Return whether a runtime has ended, asking once more for what may have been lost with who was asked."""
    reply = ask(service, "DELETE", f"/runtimes/{runtime}")
    return reply is not None and (
        reply.status_code == 404 or reply.json().get("state") in ("ended", "failed")
    )


@pytest.mark.slow
def test_lost_keys_mean_signing_in_again_and_nothing_worse(tmp_path: Path) -> None:
    state = tmp_path / "state"
    browser = requests.Session()
    with running(state) as service:
        service.add_user("ada")
        token = service.tokens["ada"]
        file = service.make_file("ada")["id"]
        browser.get(service.ready, timeout=PATIENCE)
        assert browser.get(f"{service.app}/drive", timeout=PATIENCE).url == f"{service.app}/drive"
    for key in (state / "keys").iterdir():
        key.unlink()
    with running(state) as service:
        service.tokens["ada"] = token
        for path in ("/drive", "/hub/account"):
            reply = browser.get(service.app + path, timeout=PATIENCE)
            assert reply.status_code == 200
            assert "/hub/login" in reply.url, "the old cookie still opens"
        reply = browser.get(f"{service.app}{CONTROL}/runtimes", timeout=PATIENCE)
        assert reply.status_code in (401, 403)
        # What is kept in databases and Drive is all there.
        files = service.api("ada", "GET", "/services/documents/api/v1/files?parent=root")
        assert file in {item["id"] for item in files.json()["items"]}
        runtime = service.start_runtime("ada", file)["id"]
        assert service.execute("ada", runtime, "print(6*7)") == "42\n"
