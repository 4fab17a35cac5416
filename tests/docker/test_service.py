"""The whole service with containers: sign in, start a runtime, run a cell, mount the Drive, and come back after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.installation import read_holder
from hub.settings import Service, load_service
from hub.setup.images import image_called
from hub.wiring import make_backend, runtime_spec_builder
from spawner.model import RuntimeSpec
from spawner.ports import BackendError
from support.docker_engine import MACHINE_SIDE, Engine
from support.patience import until
from support.service import Running, running

IMAGE = image_called("minimal").tag
pytestmark = pytest.mark.docker
CONFIG = """\
quota: {{max_runtimes: 20}}
runtimes:
  backend: docker
  environment: minimal
  shapes: {{STANDARD: {{memory: 1GiB, cpus: 1, processes: 300}}}}
  docker: {{url: "{url}", disk: 64MiB, pull: false, control_url: "http://{machine}:{port}/services/control/"}}
"""


@pytest.fixture(scope="module")
def containers(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running installation whose runtimes are containers."""
    state = tmp_path_factory.mktemp("docker-service") / "state"
    config = CONFIG.format(url=engine.url, machine=MACHINE_SIDE, port=1)
    with running(state, config) as service:
        service.add_user("ada", admin=True)
        service.add_user("bob")
        yield service
    left = engine.docker("ps", "-aq", "--filter", "label=app.kubernetes.io/managed-by=minicolab").stdout
    assert left == ""


def test_a_signed_in_user_runs_a_cell_in_a_container(containers: Running) -> None:
    file = containers.make_file("ada")
    model = containers.start_runtime("ada", file["id"])
    text = containers.execute(
        "ada", model["id"], "import socket, os; print(socket.gethostname(), os.getuid())"
    )
    assert text == f"{model['id']} 0\n"
    containers.end_runtimes("ada")
    containers.wait_for_state("ada", model["id"], {"ended"})


def test_a_drive_is_mounted_after_consent_and_is_the_users_own(containers: Running) -> None:
    file = containers.make_file("bob")
    model = containers.start_runtime("bob", file["id"])
    path = f"/services/control/api/v1/runtimes/{model['id']}/mounts"
    reply = containers.api("bob", "POST", path, json={"path": "/content/drive", "readonly": False})
    assert reply.status_code in (200, 201), reply.text
    text = containers.execute("bob", model["id"], "import os; print(os.listdir('/content/drive/MyDrive'))")
    assert file["name"] in text
    containers.end_runtimes("bob")
    containers.wait_for_state("bob", model["id"], {"ended"})


def test_a_runtime_outlives_a_killed_hub_and_control(containers: Running) -> None:
    file = containers.make_file("ada")
    model = containers.start_runtime("ada", file["id"])
    containers.execute("ada", model["id"], "open('here.txt', 'w').write('still')")
    holder = read_holder(containers.state)
    assert holder is not None
    for name in ("hub", "control"):
        os.kill(holder.processes[name], signal.SIGKILL)
    until(lambda: containers.answers("ada"))
    assert containers.execute("ada", model["id"], "print(open('here.txt').read())") == "still\n"
    containers.end_runtimes("ada")
    containers.wait_for_state("ada", model["id"], {"ended"})
    until(lambda: not list(Path(containers.state / "runtimes").glob("r-*")))


def test_a_runtime_whose_disk_is_full_keeps_nobody_from_saving(containers: Running) -> None:
    file = containers.make_file("ada")
    model = containers.start_runtime("ada", file["id"])
    fill = (
        "try:\n    open('big', 'wb').write(b'x' * (100 << 20))\nexcept OSError as e:\n    print(e.strerror)"
    )
    assert containers.execute("ada", model["id"], fill) == "No space left on device\n"
    path = f"/services/documents/api/v1/files/{file['id']}/content"
    before = containers.api("ada", "GET", path)
    notebook = {**before.json(), "cells": [], "metadata": {"saved": "with a full disk"}}
    headers = {"If-Match": before.headers["ETag"]}
    assert containers.api("ada", "PUT", path, json=notebook, headers=headers).status_code in (200, 204)
    assert containers.api("ada", "GET", path).json()["metadata"]["saved"] == "with a full disk"
    containers.end_runtimes("ada")
    containers.wait_for_state("ada", model["id"], {"ended"})


def test_a_container_without_a_session_is_ended_and_a_strangers_is_left_alone(
    containers: Running, engine: Engine
) -> None:
    service = load_service(containers.state)
    spec = runtime_spec_builder(service)(
        "ada",
        "/user/ada/r-orphan/",
        {
            "runtime_id": "r-orphan",
            "file_id": "f-1",
            "accelerator": "NONE",
            "shape": "STANDARD",
            "max_lifetime_seconds": 600,
            "idle_limit_seconds": 600,
        },
    )
    engine.docker("run", "-d", "--name", "stranger", "--entrypoint", "/bin/sleep", IMAGE, "infinity")
    try:
        asyncio.run(start_unasked(service, spec))
        until(lambda: "r-orphan" not in engine.docker("ps", "-a", "--format", "{{.Names}}").stdout)
        assert engine.docker("inspect", "--format", "{{.State.Running}}", "stranger").stdout == "true\n"
    finally:
        engine.docker("rm", "-f", "stranger")


async def start_unasked(service: Service, spec: RuntimeSpec) -> None:
    """Start a runtime behind control's back. It may be ended before it is ready: that is what is wanted."""
    with contextlib.suppress(BackendError):
        await make_backend(service).start(spec, lambda phase, sentence="": None)
