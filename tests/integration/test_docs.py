"""What README and docs tell people to type works as written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from hub.setup.node import find_node
from hub.setup.npm_package import JUPYTER_CLIENT
from support.patience import PATIENCE
from support.service import DEFAULT_CONFIG, PASSWORD, Running, free_port

ROOT = Path(__file__).parents[2]

# Commands of README.md and CONTRIBUTING.md that CI or other tests run, and where.
RUN_ELSEWHERE = {
    "make up": "test_make_up_starts_the_service_and_prints_its_link",
    "make test": ".ci/run",
    "make test-all": ".ci/run runs its two halves",
    "make setup": ".ci/run (minicolab setup)",
    "make test-cluster": ".ci/run",
    "make lint": ".ci/run, by make test",
    "make test-docker": ".ci/run",
    "make cluster-up": "tests/cluster/test_commands.py",
    "make -s cluster-token USER=ada": "tests/cluster/test_commands.py",
    "make cluster-down": "tests/cluster/test_commands.py",
    "sudo make cluster-up": "tests/cluster/test_commands.py",
    "PYTHONPATH=tests .venv/bin/python -m cluster.harness exec -- /bin/sh": "tests/cluster/test_commands.py",
    "MINICOLAB_CLUSTER_STATE=DIR .venv/bin/pytest -m cluster -k drive": ".ci/run, without the folder",
    "MINICOLAB_KUBECONFIG=~/.kube/config MINICOLAB_CLUSTER_LOAD='kind load image-archive' .venv/bin/pytest -m cluster": "on an administrator's cluster",
}


def shell_lines(path: Path) -> list[str]:
    """Return the commands of a page's shell blocks, without comments, continued lines joined."""
    lines = []
    for block in re.findall(r"```sh\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
        text = block.replace("\\\n", " ")
        lines += [re.sub(r"\s+#.*$", "", line).strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def lines_until(script: str, wanted: str) -> str:
    """Run a shell script that does not end by itself until it has said what is wanted; return what it said."""
    process = subprocess.Popen(
        ["bash", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    said = ""
    try:
        while wanted not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        return said
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_command_of_the_page_is_run_somewhere(page: str) -> None:
    for line in shell_lines(ROOT / page):
        known = line in RUN_ELSEWHERE or line.startswith((".venv/bin/minicolab", ".venv/bin/pytest"))
        assert known, f"{page}: nothing runs '{line}'"


def test_the_commands_of_the_readme_work(service: Running) -> None:
    answers = {"user add": PASSWORD + "\n"}
    for line in shell_lines(ROOT / "README.md"):
        if not line.startswith(".venv/bin/minicolab") or line.endswith(" down"):
            continue  # down has a test of its own: it would end the service the other tests use
        words = line.split()[1:]
        name = " ".join(words[:2])
        words = ["readme-user" if w == "ada" else w for w in words]
        done = service.command(*words, text=answers.get(name, ""))
        assert done.returncode == 0


def test_the_commands_for_other_clients_work_as_written(service: Running) -> None:
    token = service.add_user("docs-user")
    file = runtime = ""
    for line in shell_lines(ROOT / "docs" / "clients.md"):
        if not line.startswith("curl"):
            continue
        command = line.replace("ID OF THE NOTEBOOK", file).replace("ID-OF-THE-RUNTIME", runtime)
        script = f'BASE={service.url}; AUTH="Authorization: Bearer {token}"; {command}'
        if "/events" in command:
            assert "event: ready" in lines_until(script, "event: ready")
            continue
        out = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE).stdout
        identity = re.search(r'"id":"([^"]+)"', out)
        if "/files" in command:
            assert identity is not None, out
            file = identity[1]
        elif "/token" in command:
            assert '"token":"mc1.' in out
        else:
            assert identity is not None, out
            runtime = identity[1]
    assert file
    assert runtime


def test_a_client_that_knows_only_jupyters_gateway_protocol_runs_code(service: Running) -> None:
    """What docs/clients.md says of JUPYTER_GATEWAY_URL: jupyter_server's own gateway client against a runtime."""
    service.add_user("docs-user")
    runtime = service.start_runtime("docs-user", service.make_file("docs-user")["id"])
    ticket = service.ticket("docs-user", runtime["id"])
    code = f"""
import asyncio, json, sys
sys.modules["rfc3987_syntax"] = None
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayMappingKernelManager
from jupyter_client.session import Session
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect
async def main():
    client = GatewayClient.instance()
    client.url = {ticket["url"]!r}.rstrip("/")
    client.auth_token = {ticket["token"]!r}
    client.init_connection_args()
    manager = GatewayMappingKernelManager()
    kernel_id = await manager.start_kernel(kernel_name="python3")
    # As jupyter_server's GatewayWebSocketConnection.connect does.
    address = f"{{client.ws_url}}{{client.kernels_endpoint}}/{{kernel_id}}/channels"
    connection = await websocket_connect(HTTPRequest(address, **client.load_connection_args()))
    session = Session()
    content = dict(code="print('through the gateway')", silent=False, store_history=True, user_expressions={{}},
                   allow_stdin=False)
    request = session.msg("execute_request", content)
    request["channel"] = "shell"
    await connection.write_message(json.dumps(request, default=str))
    while True:
        message = json.loads(await asyncio.wait_for(connection.read_message(), {PATIENCE}))
        if message["msg_type"] == "stream":
            print(message["content"]["text"], end="")
            break
    connection.close()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=2 * PATIENCE)
    assert "through the gateway" in done.stdout, done.stdout + done.stderr


def test_the_library_of_vs_code_and_jupyterlab_runs_code(service: Running) -> None:
    """What docs/clients.md says of VS Code: the address with `?token=`, and nothing else."""
    service.add_user("docs-user")
    runtime = service.start_runtime("docs-user", service.make_file("docs-user")["id"])
    ticket = service.ticket("docs-user", runtime["id"])
    code = "print('through the library')\nimport matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"
    script = ROOT / "tests" / "clients" / "jupyterlab_services.cjs"
    address = f"{ticket['url']}?token={ticket['token']}"
    command = [find_node().node, script, JUPYTER_CLIENT.modules, address, code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {"specs": ["python3"], "status": "ok", "text": "through the library\n", "picture": True}


@pytest.mark.slow
def test_make_up_starts_the_service_and_prints_its_link(tmp_path: Path) -> None:
    config = tmp_path / "minicolab.yaml"
    config.write_text(DEFAULT_CONFIG)
    port = free_port()
    command = ["make", "-s", "up", f"STATE={tmp_path}/state", f"PORT={port}", f"CONFIG={config}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    line = ""
    while not line.startswith("Ready: "):
        line = process.stdout.readline()
        assert line, "make up ended without its Ready line"
    assert (
        requests.get(
            line.removeprefix("Ready: ").strip(), timeout=PATIENCE, allow_redirects=False
        ).status_code
        == 302
    )
    make = ["make", "-s", "down", f"STATE={tmp_path}/state"]
    assert (
        "Stopped."
        in subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE).stdout
    )
    assert process.wait(PATIENCE) == 0


def test_the_page_of_settings_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_configuration.py", "--check"], timeout=PATIENCE
    )
    assert done.returncode == 0, "run: python docs/make_configuration.py"
