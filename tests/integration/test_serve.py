"""`minicolab serve`: each process as it runs in a pod of its own, on an address of its own, with PostgreSQL behind."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import create_engine, text

from hub.installation import free_port
from support.patience import PATIENCE, Stopwatch, until
from support.postgresql import new_database
from support.service import BIN, run_command

# Every process listens on an address of its own: one that looked for another on plain loopback would not find it.
HOSTS = {
    "proxy": "127.0.0.21",
    "hub": "127.0.0.22",
    "documents": "127.0.0.23",
    "control": "127.0.0.24",
    "control-2": "127.0.0.25",
}
CONTROL = "/services/control/api/v1/runtimes"


@dataclass
class Pods:
    """The processes, each with a state folder of its own; only drives and databases are shared."""

    folder: Path
    databases: dict[str, str]
    ports: dict[str, int]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def state(self, name: str) -> Path:
        return self.folder / name

    @property
    def url(self) -> str:
        return f"http://{HOSTS['proxy']}:{self.ports['public']}"

    def write(self) -> None:
        for name in ("ticket", "session", "hub-cookie", "operator"):
            (self.folder / "secrets" / f"{name}.key").write_bytes(secrets.token_bytes(32))
        for name in ("documents", "control", "proxy"):
            (self.folder / "secrets" / f"{name}.token").write_text(secrets.token_hex(32))
        (self.folder / "secrets" / "pgpass").write_text("*:*:*:postgres:unused\n")
        lines = [f"{name}: {{database: '{url}'}}\n" for name, url in self.databases.items()]
        service = (
            f"service: {{port: {self.ports['public']}, app_host: app.test, api_host: {HOSTS['proxy']}, "
            "runtime_host: '{user}.app.test'}\n"
        )
        (self.folder / "minicolab.yaml").write_text(service + "".join(lines))

    def arguments(self, pod: str) -> list[str]:
        process = pod.partition("-")[0]
        places = {
            name: f"{HOSTS[name.partition('_')[0]]}:{port}"
            for name, port in self.ports.items()
            if name != "public"
        }
        more = [word for name, place in places.items() for word in ("--at", f"{name}={place}")]
        if process == "control":
            more += ["--standby", "--own", f"{HOSTS[pod]}:{self.ports['control']}"]
        folder = self.folder
        given = {
            "--config": folder / "minicolab.yaml",
            "--state": self.state(pod),
            "--secrets": folder / "secrets",
        }
        given |= {"--drive": folder / "volume", "--bind": HOSTS[pod]}
        return ["serve", process, *(str(word) for pair in given.items() for word in pair), *more]

    def start(self, pod: str) -> None:
        with (self.folder / f"{pod}.log").open("ab") as log:
            self.running[pod] = subprocess.Popen(
                [str(BIN / "minicolab"), *self.arguments(pod)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end(self, pod: str, number: int) -> int:
        process = self.running.pop(pod)
        process.send_signal(number)
        return process.wait(PATIENCE)

    def log(self, pod: str) -> str:
        return (self.folder / f"{pod}.log").read_text("utf-8", "replace")

    def get(self, path: str, *, at: str | None = None, user: str | None = "ada", **more: Any) -> int:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user is not None else {}
        try:
            reply = requests.get((at or self.url) + path, headers=headers, timeout=PATIENCE, **more)
        except requests.RequestException:
            return 0
        return reply.status_code

    def control_at(self, pod: str) -> str:
        return f"http://{HOSTS[pod]}:{self.ports['control']}"

    def acting(self) -> str:
        """Return which control pod acts: the only one that has not said that it stands by since it was started."""
        engine = create_engine(self.databases["control"])
        with engine.connect() as connection:
            holder = connection.scalar(text("SELECT holder FROM quota_epoch"))
        engine.dispose()
        return next(pod for pod in ("control", "control-2") if f" at {HOSTS[pod]}:" in str(holder))


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory, postgresql: str) -> Iterator[Pods]:
    folder = tmp_path_factory.mktemp("pods")
    for name in ("secrets", "volume"):
        (folder / name).mkdir()
    databases = {name: new_database(postgresql, f"serve_{name}") for name in ("hub", "documents", "control")}
    taken: set[int] = set()
    ports = {}
    for name in ("public", "proxy_api", "hub", "documents", "control"):
        ports[name] = free_port(taken)
        taken.add(ports[name])
    pods = Pods(folder, databases, ports)
    pods.write()
    with ExitStack() as stack:
        for pod in ("hub", "proxy", "documents", "control", "control-2"):  # the hub first: it must wait
            pods.start(pod)
        stack.callback(lambda: [p.kill() for p in pods.running.values()])
        until(lambda: pods.get("/hub/api/", user=None) == 200, lambda: pods.log("hub"))
        run_command("user", "add", "ada", "--admin", "--state", str(pods.state("hub")), text="pass phrase\n")
        pods.tokens["ada"] = run_command("token", "ada", "--state", str(pods.state("hub"))).stdout.split()[-1]
        until(lambda: pods.get(CONTROL) == 200, lambda: pods.log("control"))
        until(lambda: pods.get("/services/documents/healthz") == 200, lambda: pods.log("documents"))
        yield pods


def test_a_person_signs_in_through_the_proxy_and_sees_the_drive(pods: Pods) -> None:
    browser = requests.Session()
    browser.headers["Host"] = f"app.test:{pods.ports['public']}"

    def go(url: str, **more: Any) -> requests.Response:
        """Follow redirects of the app's host by hand: nobody resolves it here."""
        for _ in range(12):
            path = re.sub(r"^http://app\.test:\d+", "", url)
            reply = browser.request(
                more.pop("method", "GET"), pods.url + path, allow_redirects=False, timeout=PATIENCE, **more
            )
            more = {}
            for cookie in list(browser.cookies):
                cookie.domain = HOSTS["proxy"]
            if reply.status_code not in (301, 302, 303, 307):
                return reply
            url = reply.headers["Location"]
        raise AssertionError(f"too many redirects, the last to {url}")

    link = run_command("user", "link", "ada", "--state", str(pods.state("hub"))).stdout.strip()
    page = go(link)
    assert page.status_code == 200, page.text
    assert "minicolab" in page.text
    listing = requests.get(
        pods.url + "/services/documents/api/v1/files?parent=root",
        headers={"Authorization": f"Bearer {pods.tokens['ada']}"},
        timeout=PATIENCE,
    )
    assert listing.status_code == 200, listing.text


def test_documents_knows_control_by_asking_the_hub(pods: Pods) -> None:
    """Documents does not hold control's token; what cells printed while no page was open must reach it all the same."""
    path = "/services/documents/api/v1/files/nobodys/outputs"
    body = {"runtime_id": "r-aaaaaaaaaaaa", "user": "ada", "ended": False, "executions": []}
    control = (pods.folder / "secrets" / "control.token").read_text("ascii").strip()
    for token, status in ((control, 404), (pods.tokens["ada"], 403), ("f" * 64, 403)):
        reply = requests.post(
            pods.url + path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE
        )
        assert reply.status_code == status, reply.text


def test_files_lie_on_the_volume_and_their_identities_in_postgresql(pods: Pods) -> None:
    body = {"parent": "root", "name": "note.txt", "type": "file"}
    made = requests.post(
        pods.url + "/services/documents/api/v1/files",
        json=body,
        headers={"Authorization": f"Bearer {pods.tokens['ada']}"},
        timeout=PATIENCE,
    )
    assert made.status_code == 201, made.text
    assert [path.name for path in (pods.folder / "volume" / "drive").glob("*/note.txt")]
    engine = create_engine(pods.databases["documents"])
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM drive_files WHERE path = 'note.txt'")) == 1
    engine.dispose()
    assert not list(pods.folder.glob("*/databases/documents.sqlite"))
    assert not list(pods.folder.glob("*/databases/hub.sqlite"))


def test_the_password_file_is_copied_so_that_postgresql_accepts_it(pods: Pods) -> None:
    copy = pods.state("hub") / "run" / "pgpass"
    assert copy.read_text() == "*:*:*:postgres:unused\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_a_pod_needs_no_secret_of_another(tmp_path: Path) -> None:
    (tmp_path / "minicolab.yaml").write_text("{}\n")
    given = (
        "--config",
        str(tmp_path / "minicolab.yaml"),
        "--state",
        str(tmp_path / "s"),
        "--secrets",
        str(tmp_path),
    )
    refused = run_command("serve", "documents", *given, check=False)
    assert refused.returncode == 78
    assert "session.key" in refused.stderr
    (tmp_path / "session.key").write_bytes(b"short")
    assert "has 5 bytes; 32 are needed" in run_command("serve", "documents", *given, check=False).stderr
    refused = run_command("serve", "proxy", *given, check=False)
    assert refused.returncode == 78
    assert "proxy.token" in refused.stderr


@pytest.mark.parametrize("place", ["hub", "hub=h", "hub=h:x", "hub=h:0", "hb=h:1", "hub=:8081"])
def test_a_place_that_can_not_be_is_refused(tmp_path: Path, place: str) -> None:
    given = ("--config", str(tmp_path / "none"), "--state", str(tmp_path), "--secrets", str(tmp_path))
    refused = run_command("serve", "proxy", *given, "--at", place, check=False)
    assert refused.returncode == 2
    assert place in refused.stderr


def test_an_address_that_nobody_answers_from_is_given_up_in_seconds(pods: Pods) -> None:
    """As that of a pod that has just gone: no packet comes back. Here from a listener whose queue is full."""
    api = f"http://{HOSTS['proxy']}:{pods.ports['proxy_api']}/api/routes"
    authorization = f"token {(pods.folder / 'secrets' / 'proxy.token').read_text()}"
    with socket.socket() as listener, ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        target = f"http://127.0.0.1:{listener.getsockname()[1]}"
        host = f"gone.{secrets.token_hex(4)}.test"
        headers = {"Authorization": authorization}
        added = requests.post(f"{api}/{host}/", json={"target": target}, headers=headers, timeout=PATIENCE)
        assert added.status_code == 201, added.text
        with Stopwatch() as watch:
            reply = requests.get(pods.url + "/", headers={"Host": host}, timeout=PATIENCE)
        assert reply.status_code == 503
        assert watch.seconds < 15
        requests.delete(f"{api}/{host}/", headers=headers, timeout=PATIENCE)


def test_a_new_proxy_gets_its_routes_back_from_the_hub(pods: Pods) -> None:
    told = "the hub has added its routes"
    until(lambda: pods.log("proxy").count(told) == 1)
    assert pods.end("proxy", signal.SIGKILL) == -signal.SIGKILL
    until(lambda: pods.get("/services/documents/healthz") == 0, "the proxy lives on without its parent")
    pods.start("proxy")
    until(lambda: pods.get("/services/documents/healthz") == 200 and pods.get(CONTROL) == 200)
    until(lambda: pods.log("proxy").count(told) == 2, "the hub was not asked, but looked for itself later")


def test_the_one_that_stands_by_answers_through_the_one_that_acts_and_takes_over(pods: Pods) -> None:
    until(lambda: all(pods.get(CONTROL, at=pods.control_at(pod)) == 200 for pod in ("control", "control-2")))
    first = pods.acting()
    other = "control-2" if first == "control" else "control"
    assert "stands by" in pods.log(other)
    pods.end(first, signal.SIGKILL)
    until(
        lambda: pods.acting() == other and pods.get(CONTROL, at=pods.control_at(other)) == 200,
        lambda: pods.log(other),
    )
    pods.start(first)
    until(lambda: pods.get(CONTROL, at=pods.control_at(first)) == 200, lambda: pods.log(first))
    assert pods.acting() == other


def test_a_request_waits_while_the_place_changes_hands(pods: Pods) -> None:
    first = pods.acting()
    other = "control-2" if first == "control" else "control"
    until(lambda: pods.get(CONTROL, at=pods.control_at(other)) == 200)
    os.kill(pods.running[first].pid, signal.SIGTERM)
    until(lambda: pods.acting() == other and pods.get(CONTROL, at=pods.control_at(other)) == 200)
    assert pods.running.pop(first).wait(PATIENCE) == 0
    pods.start(first)
    until(lambda: pods.get(CONTROL, at=pods.control_at(first)) == 200)


@pytest.mark.parametrize("pod", ["documents", "control", "control-2", "proxy", "hub"])
def test_sigterm_ends_it_with_success(pods: Pods, pod: str) -> None:
    assert pods.end(pod, signal.SIGTERM) == 0, pods.log(pod)
