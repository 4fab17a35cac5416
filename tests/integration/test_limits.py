"""Short limits on a running installation: what ends, when, and what it says; also with every service dead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kernel import Kernel
from support.service import Running, running

CONFIG = "runtimes: {{environment: minimal}}\nquota: {{max_lifetime: {life}, idle_limit: {idle}, warn_before: [1s]}}\n"
CONTROL = "/services/control/api/v1"


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("idle") / "state", CONFIG.format(life="1h", idle="4s")) as service:
        service.add_user("ada")
        yield service


def test_an_unused_runtime_ends_and_says_why(idle: Running) -> None:
    runtime = idle.start_runtime("ada", idle.make_file("ada")["id"])
    ended = idle.wait_for_state("ada", runtime["id"], {"ended"})
    assert ended["reason"] == {"code": "idle", "message": "Idle for 4 seconds (limit 4 seconds)."}


def test_a_silent_busy_cell_is_use_and_polling_is_not(idle: Running) -> None:
    runtime = idle.start_runtime("ada", idle.make_file("ada")["id"])
    ticket = idle.ticket("ada", runtime["id"])
    kernel = Kernel(ticket["url"], ticket["token"])
    started = time.monotonic()
    assert kernel.run("import time; time.sleep(9); print('done')") == "done\n"
    assert time.monotonic() - started > 8
    import requests

    headers = {"Authorization": f"token {ticket['token']}"}
    while idle.api("ada", "GET", f"{CONTROL}/runtimes/{runtime['id']}").json()["state"] == "ready":
        requests.get(ticket["url"] + "api/kernels", headers=headers, timeout=10)
        idle.api("ada", "GET", f"{CONTROL}/runtimes/{runtime['id']}/resources")
        assert time.monotonic() - started < 40, "polling kept the runtime alive"
        time.sleep(0.2)
    kernel.close()


def test_keep_begins_the_idle_time_anew(idle: Running) -> None:
    runtime = idle.start_runtime("ada", idle.make_file("ada")["id"])
    begun = time.monotonic()
    while time.monotonic() - begun < 7:
        assert idle.api("ada", "POST", f"{CONTROL}/runtimes/{runtime['id']}/keep", json={}).status_code == 200
        time.sleep(1)
    assert idle.api("ada", "GET", f"{CONTROL}/runtimes/{runtime['id']}").json()["state"] == "ready"
    idle.api("ada", "DELETE", f"{CONTROL}/runtimes/{runtime['id']}")


def test_with_every_service_killed_a_runtime_still_ends_at_its_limit(tmp_path: Path) -> None:
    with running(tmp_path / "state", CONFIG.format(life="8s", idle="1h")) as service:
        service.add_user("ada")
        runtime = service.start_runtime("ada", service.make_file("ada")["id"])
        ready = time.monotonic()
        folder = service.state / "runtimes" / runtime["id"]
        status = json.loads(service.command("status", "--json").stdout)
        os.kill(status["pid"], signal.SIGKILL)
        for pid in status["processes"].values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert folder.exists()
        while folder.exists():
            assert time.monotonic() - ready < 8 + 5, "the runtime outlived its limit by more than 5 s"
            time.sleep(0.05)
        assert time.monotonic() - ready > 7
