"""A whole running installation for tests: the real command, the real processes, users with tokens."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from hub.installation import free_port
from support.kernel import run_cell
from support.patience import PATIENCE

BIN = Path(sys.executable).parent
PASSWORD = "correct horse battery"
DEFAULT_CONFIG = "runtimes: {environment: minimal}\nquota: {max_runtimes: 20}\n"


@dataclass
class Running:
    """An installation that answers. `url` is for API clients, `app` for browsers, `ready` the printed link."""

    state: Path
    port: int
    ready: str
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def app(self) -> str:
        return f"http://localhost:{self.port}"

    def command(
        self, *arguments: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `minicolab ...` on this installation."""
        return run_command(*arguments, "--state", str(self.state), text=text, check=check)

    def add_user(self, name: str, *, admin: bool = False) -> str:
        """Make a user and return an API token."""
        if name not in self.tokens:
            self.command("user", "add", name, *(["--admin"] if admin else []), text=PASSWORD + "\n")
            self.tokens[name] = self.command("token", name).stdout.splitlines()[-1]
        return self.tokens[name]

    def api(self, user: str | None, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Call the service as `user` (None: as nobody)."""
        headers = dict(kwargs.pop("headers", {}))
        if user is not None:
            headers["Authorization"] = f"Bearer {self.tokens[user]}"
        kwargs.setdefault("timeout", PATIENCE)
        return requests.request(method, self.url + path, headers=headers, **kwargs)

    def make_file(
        self,
        user: str,
        name: str | None = None,
        *,
        kind: str = "notebook",
        content: Any = None,
        parent: str = "root",
    ) -> dict[str, Any]:
        """Make a file in the user's Drive and return its model."""
        body: dict[str, Any] = {
            "parent": parent,
            "name": name or f"nb-{secrets.token_hex(4)}.ipynb",
            "type": kind,
        }
        if content is not None:
            body["content"] = content
        reply = self.api(user, "POST", "/services/documents/api/v1/files", json=body)
        assert reply.status_code == 201, reply.text
        model: dict[str, Any] = reply.json()
        return model

    def start_runtime(self, user: str, file_id: str, **body: Any) -> dict[str, Any]:
        """Start (or find) the notebook's runtime and return its model once it is ready."""
        reply = self.api(user, "POST", "/services/control/api/v1/runtimes", json={"file_id": file_id, **body})
        assert reply.status_code in (200, 202), reply.text
        return self.wait_for_state(user, reply.json()["id"], {"ready"})

    def wait_for_state(self, user: str, runtime: str, wanted: set[str]) -> dict[str, Any]:
        """Follow the runtime's events until its state is wanted."""
        path = f"/services/control/api/v1/runtimes/{runtime}/events"
        with self.api(user, "GET", path, stream=True, timeout=3 * PATIENCE) as events:
            assert events.status_code == 200, events.text
            for line in events.iter_lines():
                if line.startswith(b"data:"):
                    model: dict[str, Any] = json.loads(line[5:])
                    if model["state"] in wanted:
                        return model
                    assert model["state"] not in {"failed", "ended"}, model
        raise AssertionError(f"the event stream of {runtime} ended before {wanted}")

    def ticket(self, user: str, runtime: str) -> dict[str, str]:
        """Return the runtime's address and a ticket."""
        reply = self.api(user, "POST", f"/services/control/api/v1/runtimes/{runtime}/token", json={})
        assert reply.status_code == 200, reply.text
        model: dict[str, str] = reply.json()
        return model

    def end_runtimes(self, user: str) -> None:
        """End every runtime of the user, so that the machine does not carry those of earlier tests."""
        path = "/services/control/api/v1/runtimes"
        for model in self.api(user, "GET", path + "?limit=200").json()["items"]:
            reply = self.api(user, "DELETE", f"{path}/{model['id']}")
            assert reply.status_code in (200, 202, 404), reply.text

    def answers(self, user: str) -> bool:
        """Whether the hub, documents and control all answer the user: none of them is still coming back."""
        paths = (
            "/hub/api/user",
            "/services/documents/api/v1/files?parent=root",
            "/services/control/api/v1/runtimes",
        )
        try:
            return all(self.api(user, "GET", path).status_code == 200 for path in paths)
        except requests.RequestException:
            return False

    def execute(self, user: str, runtime: str, code: str, *, timeout: float = PATIENCE) -> str:
        """Run `code` on a kernel of the runtime through the proxy; return its stdout and error text."""
        ticket = self.ticket(user, runtime)
        return run_cell(ticket["url"], ticket["token"], code, timeout=timeout)


def run_command(*arguments: str, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command `minicolab`."""
    command = [str(BIN / "minicolab"), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=5 * PATIENCE)
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return done


@contextmanager
def running(state: Path, config: str = DEFAULT_CONFIG) -> Iterator[Running]:
    """Start an installation, and end it afterwards."""
    state.mkdir(parents=True, exist_ok=True)
    file = state / "minicolab.yaml"
    file.write_text(config, "utf-8")
    port = free_port()
    done = run_command("up", "--detach", "--state", str(state), "--port", str(port), "--config", str(file))
    ready = done.stdout.splitlines()[-1]
    assert ready.startswith("Ready: "), done.stdout + done.stderr
    service = Running(state, port, ready.removeprefix("Ready: "))
    try:
        yield service
    finally:
        service.command("down")
