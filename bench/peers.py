"""The two sides of the comparison, each started from nothing below a scratch folder."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import requests

from hub.setup.node import find_node
from hub.setup.npm_package import proxy_script

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

PLAIN_CONFIG = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://{hub_address}:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.command = ["{node}", "{proxy}"]
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Spawner.environment = {{"JUPYTERHUB_ALLOW_TOKEN_IN_URL": "1"}}
c.Spawner.start_timeout = c.Spawner.http_timeout = 300
c.JupyterHub.db_url = "sqlite:///{state}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{state}/cookie"
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "tokens", "access:servers"]}}]
"""
LOCAL_SPAWNER = f"""
import os
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = os.getcwd() + "/home-{{username}}"
c.Spawner.cmd = ["{BIN}/jupyterhub-singleuser", "--allow-root"]
"""
OWN_PROCESSES = "runtimes: {{environment: {environment}}}\nquota: {{max_runtimes: 100}}\n"


NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "id": "one",
            "execution_count": None,
            "metadata": {},
            "outputs": [],
            "source": "print(1)",
        }
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_for(url: str, seconds: float = 60.0) -> float:
    """Poll every 10 ms until `url` answers 200; return the seconds it took."""
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return time.perf_counter() - started
        except requests.ConnectionError:
            pass
        time.sleep(0.01)
    raise TimeoutError(url)


def tree_pss(pids: list[int]) -> int:
    """Return the proportional set size in bytes of the processes and their descendants."""
    total = 0
    seen: set[int] = set()
    for pid in pids:
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            if member.pid not in seen:
                seen.add(member.pid)
                total += member.memory_full_info().pss
    return total


class PlainHub:
    """JupyterHub 6.1 as its documentation starts it.

    `spawner` is the part of its configuration that is about the spawner, `programs` the folder of the environment it is installed
    in, `hub_address` where servers reach the hub, `environment` what its process is told besides.
    """

    def __init__(
        self,
        state: Path,
        *,
        spawner: str = LOCAL_SPAWNER,
        programs: Path = BIN,
        hub_address: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        state.mkdir(parents=True)
        self.state, self.token = state, secrets.token_hex(16)
        self._programs, self._environment = programs, dict(environment or {})
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        node = find_node()
        config = PLAIN_CONFIG.format(
            port=self.port,
            hub_address=hub_address,
            hub_port=free_port(),
            api_port=free_port(),
            node=node.node,
            proxy=proxy_script(),
            state=state,
            token=self.token,
        )
        (state / "config.py").write_text(config + spawner, "utf-8")

    def start(self) -> float:
        """Start the hub; return seconds until its login page answers."""
        with (self.state / "hub.log").open("ab") as log:
            command = [self._programs / "jupyterhub", "-f", self.state / "config.py"]
            path = {"PATH": f"{self._programs}:{os.environ['PATH']}"}
            environment = {**os.environ, **path, **self._environment}
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.state, start_new_session=True, env=environment
            )
        return wait_for(self.url + "/hub/login")

    def api(self, method: str, path: str, body: object = None) -> requests.Response:
        headers = {"Authorization": f"token {self.token}"}
        return requests.request(method, f"{self.url}/hub/api{path}", headers=headers, json=body, timeout=60)

    def document(self, user: str) -> str:
        """Return what `click` opens; here that is the server itself."""
        return user

    def click(self, user: str, document: str) -> tuple[str, str]:
        """Start the user's server; return its URL and a token, once it is ready."""
        self.api("POST", f"/users/{user}/server").raise_for_status()
        progress = f"{self.url}/hub/api/users/{user}/server/progress"
        with requests.get(
            progress, headers={"Authorization": f"token {self.token}"}, stream=True, timeout=300
        ) as events:
            for line in events.iter_lines():
                event = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if event.get("failed"):
                    raise RuntimeError(event)
                if event.get("ready"):
                    break
        token = self.api("POST", f"/users/{user}/tokens", {}).json()["token"]
        return f"{self.url}/user/{user}/", token

    @property
    def sign_in_page(self) -> str:
        return self.url + "/hub/login?next=%2Fhub%2Fhome"

    def notebook_page(self, user: str) -> str:
        """Return the address of a new notebook; the hub starts the server first, and leads there."""
        name = f"bench-{secrets.token_hex(4)}.ipynb"
        home = self.state / f"home-{user}"
        (home / name).write_text(json.dumps(NOTEBOOK), "utf-8")
        return f"{self.url}/hub/spawn/{user}?next=/user/{user}/notebooks/{name}"

    def server_pids(self, user: str) -> list[int]:
        home = f"{self.state}/home-{user}"
        return [
            p.pid for p in psutil.process_iter() if _cwd(p) == home and "singleuser" in " ".join(p.cmdline())
        ]

    def leave(self, user: str) -> None:
        self.api("DELETE", f"/users/{user}/server")  # 400 when there is none
        while self.api("GET", f"/users/{user}").json()["servers"]:
            time.sleep(0.05)

    def add_user(self, user: str) -> None:
        self.api("POST", f"/users/{user}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


class Minicolab:
    """This checkout, started by its own command with the settings `config`."""

    def __init__(self, state: Path, config: str) -> None:
        state.mkdir(parents=True)
        self.state = state
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.tokens: dict[str, str] = {}
        self.config = state / "minicolab.yaml"
        self.config.write_text(config, "utf-8")

    def command(self, *arguments: str, text: str = "") -> str:
        command = [str(BIN / "minicolab"), *arguments, "--state", str(self.state)]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout

    def start(self) -> float:
        """Run `minicolab up --detach`; return the seconds until its Ready line."""
        started = time.perf_counter()
        self.command("up", "--detach", "--port", str(self.port), "--config", str(self.config))
        return time.perf_counter() - started

    def add_user(self, user: str) -> None:
        self.command("user", "add", user, text="bench password\n")
        self.tokens[user] = self.command("token", user).splitlines()[-1]

    def api(self, user: str, method: str, path: str, body: object = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        return requests.request(method, self.url + path, headers=headers, json=body, timeout=60)

    def document(self, user: str) -> str:
        """Return a new notebook, which `click` makes a runtime for."""
        return self.notebook(user)

    def click(self, user: str, document: str) -> tuple[str, str]:
        """Make a notebook's runtime; return its URL and ticket, once it is ready."""
        control = "/services/control/api/v1/runtimes"
        reply = self.api(user, "POST", control, {"file_id": document})
        reply.raise_for_status()
        runtime = reply.json()["id"]
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        with requests.get(
            f"{self.url}{control}/{runtime}/events", headers=headers, stream=True, timeout=300
        ) as events:
            for line in events.iter_lines():
                if line.startswith(b"data:"):
                    state = json.loads(line[5:])["state"]
                    if state == "ready":
                        break
                    if state in ("failed", "ended"):
                        raise RuntimeError(line)
        ticket = self.api(user, "POST", f"{control}/{runtime}/token", {}).json()
        return ticket["url"], ticket["token"]

    @property
    def sign_in_page(self) -> str:
        return f"http://localhost:{self.port}/drive"

    def notebook_page(self, user: str) -> str:
        """Return the address of a new notebook."""
        return f"http://localhost:{self.port}/d/{self.notebook(user)}"

    def notebook(self, user: str) -> str:
        documents = "/services/documents/api/v1/files"
        name = f"bench-{secrets.token_hex(4)}.ipynb"
        body = {"parent": "root", "name": name, "type": "notebook", "content": NOTEBOOK}
        reply = self.api(user, "POST", documents, body)
        reply.raise_for_status()
        identity: str = reply.json()["id"]
        return identity

    def server_pids(self, user: str) -> list[int]:
        """Return the supervisors of the user's runtimes (everything else is below them)."""
        live = self.api(user, "GET", "/services/control/api/v1/runtimes").json()["items"]
        folders = [str(self.state / "runtimes" / r["id"]) for r in live]
        return [
            p.pid
            for p in psutil.process_iter()
            if "spawner.local.supervisor" in (c := " ".join(_cmd(p))) and any(f in c for f in folders)
        ]

    def leave(self, user: str) -> None:
        for runtime in self.api(user, "GET", "/services/control/api/v1/runtimes").json()["items"]:
            self.api(user, "DELETE", f"/services/control/api/v1/runtimes/{runtime['id']}")
        while self.api(user, "GET", "/services/control/api/v1/runtimes").json()["items"]:
            time.sleep(0.02)

    def stop(self) -> None:
        self.command("down")


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def _cmd(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
