"""Short limits on a running installation: what ends, when, and what it says; also with every service dead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from support.kernel import Kernel
from support.patience import PATIENCE, Stopwatch, until
from support.service import Running, running

CONFIG = "runtimes: {{environment: minimal}}\nquota: {{max_lifetime: {life}, idle_limit: {idle}, warn_before: [1s]}}\n"
CONTROL = "/services/control/api/v1"


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("idle") / "state", CONFIG.format(life="1h", idle="4s")) as service:
        service.add_user("ada")
        yield service


def state_of(service: Running, runtime: str) -> str:
    state: str = service.api("ada", "GET", f"{CONTROL}/runtimes/{runtime}").json()["state"]
    return state


@contextlib.contextmanager
def kept(service: Running, runtime: str) -> Iterator[None]:
    """Keep a runtime alive, as a person does who is there."""
    over = threading.Event()

    def keep() -> bool:
        while not over.wait(0.2):
            if service.api("ada", "POST", f"{CONTROL}/runtimes/{runtime}/keep", json={}).status_code != 200:
                return False
        return True

    with ThreadPoolExecutor() as pool:
        keeping = pool.submit(keep)
        try:
            yield
        finally:
            over.set()
        assert keeping.result()


def test_an_unused_runtime_ends_and_says_why(idle: Running) -> None:
    runtime = idle.start_runtime("ada", idle.make_file("ada")["id"])
    ended = idle.wait_for_state("ada", runtime["id"], {"ended"})
    assert ended["reason"] == {"code": "idle", "message": "Idle for 4 seconds (limit 4 seconds)."}


def test_a_silent_busy_cell_is_use_and_polling_is_not(idle: Running) -> None:
    runtime = idle.start_runtime("ada", idle.make_file("ada")["id"])
    ticket = idle.ticket("ada", runtime["id"])
    with kept(idle, runtime["id"]):  # a kernel takes its time to start
        kernel = Kernel(ticket["url"], ticket["token"])
        kernel.run("import time")
    assert kernel.run("time.sleep(9); print('done')") == "done\n"
    headers = {"Authorization": f"token {ticket['token']}"}

    def ended_though_polled() -> bool:
        requests.get(ticket["url"] + "api/kernels", headers=headers, timeout=PATIENCE)
        idle.api("ada", "GET", f"{CONTROL}/runtimes/{runtime['id']}/resources")
        return state_of(idle, runtime["id"]) != "ready"

    until(ended_though_polled, "polling kept the runtime alive")
    kernel.close()


def test_keep_begins_the_idle_time_anew(idle: Running) -> None:
    runtime = idle.start_runtime("ada", idle.make_file("ada")["id"])
    with kept(idle, runtime["id"]):
        time.sleep(7)
        assert state_of(idle, runtime["id"]) == "ready"
    idle.api("ada", "DELETE", f"{CONTROL}/runtimes/{runtime['id']}")


def test_with_every_service_killed_a_runtime_still_ends_at_its_limit(tmp_path: Path) -> None:
    with running(tmp_path / "state", CONFIG.format(life="8s", idle="1h")) as service:
        service.add_user("ada")
        status = json.loads(service.command("status", "--json").stdout)
        runtime = service.start_runtime("ada", service.make_file("ada")["id"])
        folder = service.state / "runtimes" / runtime["id"]
        os.kill(status["pid"], signal.SIGKILL)
        for pid in status["processes"].values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert folder.exists()
        with Stopwatch() as watch:
            until(lambda: not folder.exists(), "the runtime outlived its limit")
        late = datetime.now(UTC) - datetime.fromisoformat(runtime["deadline"])
        assert timedelta(seconds=-1) < late < timedelta(seconds=5 * watch.slowness)
