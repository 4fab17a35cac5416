"""The chart installed as an administrator would, and what people do with it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
import yaml

from cluster.harness import storage
from cluster.harness.cluster import Cluster
from hub.installation import free_port
from support.archives import NoArchives, image_archives
from support.kernel import Kernel, run_cell
from support.patience import PATIENCE, until
from tests.cluster.admin_shell import AdminShell, documented

CONTROL = "/services/control/api/v1"
RUNTIMES = f"{CONTROL}/runtimes"
FILES = "/services/documents/api/v1/files"
DRIVER = "drive.minicolab.dev"
CELL = "cell-1"
# It prints while the file is not there, so that whoever watches sees whether a connection was dropped.
UNTIL_TOLD = """
import os, time
count = 0
while not os.path.exists('/content/enough'):
    count += 1
    print('tick', count, flush=True)
    time.sleep(0.2)
print('told after', count)
"""


@dataclass
class Release:
    """An installed release and a way to it from here."""

    cluster: Cluster
    namespace: str
    runtimes: str
    values: Path
    port: int
    token: str = ""
    example: str = ""  # values it was installed with besides
    forward: subprocess.Popen[bytes] | None = None
    files: dict[str, str] = field(default_factory=dict)  # of runtimes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def app(self) -> str:
        """What a browser opens."""
        return f"http://localhost:{self.port}"

    @property
    def shell(self) -> AdminShell:
        return AdminShell(self.cluster, self.namespace)

    def install(self) -> str:
        """Install as the page's ten minutes do."""
        line = documented("helm install minicolab")
        (self.example,) = re.findall(r"--values \S+", line)
        return self._deploy(line, f"--values {self.values}")

    def upgrade(self, *arguments: str) -> str:
        """Upgrade as the page says, with the values it was installed with, or install what is not there."""
        mine = f"{self.example} --values {self.values}"
        line = documented("helm upgrade minicolab").replace("--values my.yaml", mine)
        return self._deploy(line, "--install", shlex.join(arguments))

    def _deploy(self, line: str, *more: str) -> str:
        return self.shell.run(" ".join((line, "--timeout 400s", *more)))

    def kubectl(self, *arguments: str, text: str = "") -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, text=text)

    def minicolab(self, *arguments: str) -> str:
        """Run the command in the hub's container."""
        return self.kubectl("exec", "deployment/minicolab-hub", "--", "minicolab", *arguments)

    def connect(self) -> None:
        """Make a way to the public service; again after its pod has changed, as kubectl follows one pod."""
        self.disconnect()
        line = documented("kubectl --namespace minicolab port-forward").replace("8000:", f"{self.port}:")
        self.forward = self.shell.start(line)
        until(lambda: self.get("/hub/api/") == 200, "the service does not answer")

    def disconnect(self) -> None:
        if self.forward is not None:
            self.forward.kill()
            self.forward.wait()
            self.forward = None

    def get(self, path: str) -> int:
        try:
            return self.api("GET", path).status_code
        except requests.RequestException:
            return 0

    def api(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return requests.request(method, self.url + path, headers=headers, timeout=PATIENCE, **more)

    def answers(self) -> dict[str, int]:
        """Return what every service answers to a person; 0 is nothing."""
        return {path: self.get(path) for path in ("/hub/api/user", FILES + "?parent=root", RUNTIMES)}

    def works(self) -> bool:
        return set(self.answers().values()) == {200}

    def wait(self) -> None:
        """Wait until every service answers a person."""
        try:
            until(self.works)
        except AssertionError:
            raise AssertionError(f"not every service answers: {self.answers()}") from None

    def make_notebook(self) -> str:
        """Make a notebook with one cell; return its id."""
        made = self.api("POST", FILES, json=notebook(f"n{time.monotonic_ns()}.ipynb"))
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def written(self, runtime: str) -> str:
        """Return the outputs of the cell as they are in the document of the runtime's notebook."""
        cell = self.api("GET", f"{FILES}/{self.files[runtime]}/content").json()["cells"][0]
        return "".join("".join(output.get("text", "")) for output in cell["outputs"])

    def begin_runtime(self, file: str = "", **wanted: str) -> str:
        """Ask for a runtime for a notebook, a new one if none is named; return the runtime's id."""
        file = file or self.make_notebook()
        asked = self.api("POST", RUNTIMES, json={"file_id": file, **wanted})
        assert asked.status_code == 202, asked.text
        runtime = str(asked.json()["id"])
        self.files[runtime] = file
        return runtime

    def start_runtime(self, file: str = "", **wanted: str) -> str:
        """The same; return once it is ready."""
        runtime = self.begin_runtime(file, **wanted)
        until(lambda: self.state(runtime) in ("ready", "failed", "ended"), f"{runtime} is never ready")
        assert self.state(runtime) == "ready", self.model(runtime)
        return runtime

    def model(self, runtime: str) -> dict[str, Any]:
        reply = self.api("GET", f"{RUNTIMES}/{runtime}")
        assert reply.status_code == 200, reply.text
        model: dict[str, Any] = reply.json()
        return model

    def state(self, runtime: str) -> str:
        try:
            return str(self.model(runtime)["state"])
        except (requests.RequestException, AssertionError):
            return "unknown"

    def sessions(self) -> set[str]:
        """Return the runtimes that live, as their user's list says."""
        return {item["id"] for item in self.api("GET", RUNTIMES).json()["items"]}

    def run(self, runtime: str, code: str, *, timeout: float = PATIENCE) -> str:
        """Run a cell on a new kernel, through the proxy."""
        ticket = self.ticket(runtime)
        return run_cell(ticket["url"], ticket["token"], code, timeout=timeout)

    def ticket(self, runtime: str) -> dict[str, Any]:
        ticket: dict[str, Any] = self.api("POST", f"{RUNTIMES}/{runtime}/token", json={}).json()
        return ticket

    def pod(self, runtime: str) -> str:
        """Return what tells the runtime's pod from one that took its place."""
        return self.of_pod(runtime, "{.metadata.uid}")

    def of_pod(self, runtime: str, path: str) -> str:
        """Return a value of the runtime's pod."""
        return self.in_runtimes("get", "pod", runtime, "-o", f"jsonpath={path}")

    def in_runtimes(self, *arguments: str) -> str:
        """Run kubectl in the namespace of the runtimes."""
        return self.cluster.kubectl("-n", self.runtimes, *arguments)

    def pods_of(self, component: str) -> set[str]:
        """Return the names of a service's pods."""
        return set(self.kubectl("get", "pods", "-l", selector(component), "-o", "name").split())

    def kill(self, *pods: str) -> None:
        """Take pods away as a lost node would: at once, without a word to what is in them."""
        self.kubectl("delete", *pods, "--grace-period=0", "--force", "--wait=false")

    def be_impatient_with(self, component: str) -> None:
        """Have the node start a service again once it has been silent for seconds, not minutes, by the probe that the chart has."""
        probe = {
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
            "terminationGracePeriodSeconds": 1,
        }
        container = {"name": component, "livenessProbe": probe}
        patch = json.dumps({"spec": {"template": {"spec": {"containers": [container]}}}})
        self.kubectl("patch", f"deployment/minicolab-{component}", "-p", patch)
        self.kubectl("rollout", "status", f"deployment/minicolab-{component}", "--timeout=300s")

    def restarts(self, component: str) -> int:
        """Return how often the containers of a service were started again in their pods."""
        path = "{.items[*].status.containerStatuses[*].restartCount}"
        return sum(
            map(int, self.kubectl("get", "pods", "-l", selector(component), "-o", f"jsonpath={path}").split())
        )

    def processes(self, component: str) -> list[int]:
        """Return the processes in a service's pods, as this machine numbers them; it must be the node."""
        path = "{.items[*].status.containerStatuses[*].containerID}"
        said = self.kubectl("get", "pods", "-l", selector(component), "-o", f"jsonpath={path}").split()
        containers = [name.rpartition("/")[2] for name in said]
        found = []
        for group in Path("/proc").glob("[0-9]*/cgroup"):
            with suppress(OSError):
                text = group.read_text()
                if any(container in text for container in containers):
                    found.append(int(group.parent.name))
        assert found, f"no process of {component} is on this machine"
        return found

    def end(self, runtime: str) -> None:
        self.api("DELETE", f"{RUNTIMES}/{runtime}")


def notebook(name: str, source: str = "") -> dict[str, Any]:
    """Return what makes a notebook with one cell."""
    cell = {
        "cell_type": "code",
        "id": CELL,
        "metadata": {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    return {"parent": "root", "name": name, "type": "notebook", "content": content}


def selector(component: str) -> str:
    """Return the labels of a service's pods."""
    return f"app.kubernetes.io/component={component},app.kubernetes.io/instance=minicolab"


def image_in(archive: Path) -> str:
    """Return the name of the image that `docker save` has written."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        return str(json.load(manifest)[0]["RepoTags"][0])


@contextmanager
def installed(
    cluster: Cluster,
    folder: Path,
    namespace: str,
    values: Mapping[str, Any],
    install: Callable[[Release], object] = Release.upgrade,
) -> Iterator[Release]:
    """Install minicolab with its images in a namespace, and let a first administrator `ada` in; all is gone afterwards.

    `values` are added to what every release of the tests needs. Skip where the images can not be had.
    """
    try:
        archives = image_archives()
    except NoArchives as why_not:
        pytest.skip(str(why_not))
    if DRIVER in cluster.kubectl("get", "csidrivers", "-o", "name"):
        pytest.skip(f"the cluster has the driver {DRIVER} of another installation")
    if cluster.layout is not None:
        storage.replenish(cluster, cluster.layout.state / "volumes")
    elif "(default)" not in cluster.kubectl("get", "storageclass"):
        pytest.skip("the cluster has no default storage class")
    for archive in archives.values():
        cluster.import_image(archive)
    hub_image, tag = image_in(archives["hub"]).rsplit(":", 1)
    port, runtimes = free_port(), f"{namespace}-runtimes"
    basic = {
        "images": {
            "hub": {"repository": hub_image, "tag": tag},
            "pause": {"repository": "docker.io/local/pause", "tag": "1"},
        },
        # Nodes that are only objects are tainted, and cannot have a volume of the real one.
        "drive": {"plugin": {"tolerations": []}},
        "config": {
            "service": {"public_port": port},
            "runtimes": {
                "kubernetes": {"namespace": runtimes, "installation": namespace, "image": image_in(archives["minimal"])},
                "shapes": {"STANDARD": {"memory": "1GiB", "cpus": 1, "processes": 1024}},
            },
        },
    }  # fmt: skip
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(merged(basic, values)))
    it = Release(cluster, namespace, runtimes, file, port)
    try:
        install(it)
        it.connect()
        it.minicolab("user", "add", "ada", "--admin", "--link")
        it.token = it.minicolab("token", "ada").split()[-1]
        it.wait()
        yield it
    finally:
        it.disconnect()
        cluster.helm("uninstall", "minicolab", "--namespace", namespace, "--ignore-not-found", "--wait")


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as helm merges them: the other's win."""
    out = dict(one)
    for key, value in other.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


class LongCell:
    """A cell that runs until it is told to end, on one connection that is kept open as long as it lasts."""

    def __init__(self, release: Release, runtime: str) -> None:
        self._release, self._runtime = release, runtime
        self.heard: str | None = None  # all its output, once it ended on the connection of the beginning
        self.dropped = threading.Event()
        ticket = release.ticket(runtime)
        self._kernel = Kernel(ticket["url"], ticket["token"], timeout=5 * PATIENCE)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: "tick" in release.written(runtime), "its first output is not in the document")

    def _run(self) -> None:
        try:
            self.heard = self._kernel.run(UNTIL_TOLD, metadata={"cellId": CELL})
        except (OSError, websocket.WebSocketException):
            self.dropped.set()

    @property
    def running(self) -> bool:
        return self.heard is None and "told after" not in self._release.written(self._runtime)

    def end(self) -> None:
        """Tell it to end, and return once its last output is in the document."""
        self._release.run(self._runtime, "open('/content/enough', 'w').close()")
        until(lambda: "told after" in self._release.written(self._runtime), "its last output never came")
        self._thread.join(PATIENCE)
        lines = self._release.written(self._runtime).splitlines()
        count = len(lines) - 1
        assert lines == [*(f"tick {n}" for n in range(1, count + 1)), f"told after {count}"]
