"""The chart installed as an administrator would: people work in it, and go on working through upgrades and deaths of its pods."""

from __future__ import annotations

import json
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from cluster.harness import programs, storage
from cluster.harness.cluster import Cluster
from hub.installation import free_port
from support.archives import NoArchives, image_archives
from support.chart import CHART
from support.kernel import run_cell
from support.patience import PATIENCE, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

RUNTIMES = "/services/control/api/v1/runtimes"
FILES = "/services/documents/api/v1/files"
DRIVER = "drive.minicolab.dev"
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
    forward: subprocess.Popen[bytes] | None = None
    more: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def upgrade(self, *arguments: str) -> str:
        return self.cluster.helm(
            *("upgrade", "--install", "minicolab", str(CHART), "--namespace", self.namespace),
            *("--values", str(self.values), "--wait", "--timeout", "400s", *arguments),
        )

    def kubectl(self, *arguments: str, text: str = "") -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, text=text)

    def minicolab(self, *arguments: str) -> str:
        """Run the command in the hub's container."""
        return self.kubectl("exec", "deployment/minicolab-hub", "--", "minicolab", *arguments)

    def connect(self) -> None:
        """Make a way to the public service; again after its pod has changed, as kubectl follows one pod."""
        self.disconnect()
        self.forward = subprocess.Popen(
            [
                *(str(programs.get("kubectl")), "--kubeconfig", str(self.cluster.kubeconfig)),
                *(
                    "-n",
                    self.namespace,
                    "port-forward",
                    "service/minicolab-proxy-public",
                    f"{self.port}:80",
                ),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
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

    def start_runtime(self) -> str:
        body = {"parent": "root", "name": f"n{time.monotonic_ns()}.ipynb", "type": "notebook"}
        made = self.api("POST", FILES, json=body)
        assert made.status_code == 201, made.text
        asked = self.api("POST", RUNTIMES, json={"file_id": made.json()["id"]})
        assert asked.status_code == 202, asked.text
        runtime = str(asked.json()["id"])
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

    def run(self, runtime: str, code: str, *, timeout: float = PATIENCE) -> str:
        """Run a cell on a new kernel, through the proxy."""
        ticket = self.api("POST", f"{RUNTIMES}/{runtime}/token", json={}).json()
        return run_cell(ticket["url"], ticket["token"], code, timeout=timeout)

    def pod(self, runtime: str) -> str:
        """Return what tells the runtime's pod from one that took its place."""
        return self.cluster.kubectl("-n", self.runtimes, "get", "pod", runtime, "-o", "jsonpath={.metadata.uid}")  # fmt: skip

    def end(self, runtime: str) -> None:
        self.api("DELETE", f"{RUNTIMES}/{runtime}")


def image_in(archive: Path) -> str:
    """Return the name of the image that `docker save` has written."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        return str(json.load(manifest)[0]["RepoTags"][0])


@pytest.fixture(scope="module")
def release(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    try:
        archives = image_archives()
    except NoArchives as why_not:
        pytest.skip(str(why_not))
    if DRIVER in cluster.kubectl("get", "csidrivers", "-o", "name"):
        pytest.skip(f"the cluster has the driver {DRIVER} of another installation")
    folder = tmp_path_factory.mktemp("release")
    if cluster.layout is not None:
        storage.replenish(cluster, cluster.layout.state / "volumes")
    elif "(default)" not in cluster.kubectl("get", "storageclass"):
        pytest.skip("the cluster has no default storage class")
    for archive in archives.values():
        cluster.import_image(archive)
    hub_image, tag = image_in(archives["hub"]).rsplit(":", 1)
    port = free_port()
    with cluster.namespace("release", restricted=False) as namespace:
        runtimes = f"{namespace}-runtimes"
        values = {
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
        file.write_text(yaml.safe_dump(values))
        it = Release(cluster, namespace, runtimes, file, port)
        try:
            it.upgrade()
            it.connect()
            it.minicolab("user", "add", "ada", "--admin", "--link")
            it.token = it.minicolab("token", "ada").split()[-1]
            it.wait()
            yield it
        finally:
            it.disconnect()
            cluster.helm("uninstall", "minicolab", "--namespace", namespace, "--ignore-not-found", "--wait")


@contextmanager
def running_cell(release: Release, runtime: str) -> Iterator[list[str]]:
    """A cell that runs the whole time; its output is in the list once it was told to end, and it ended well."""
    out: list[str] = []
    cell = threading.Thread(
        target=lambda: out.append(release.run(runtime, UNTIL_TOLD, timeout=5 * PATIENCE)), daemon=True
    )
    cell.start()
    seen = "import glob; print(glob.glob('/content/*'))"
    assert "enough" not in release.run(runtime, seen)
    yield out
    release.run(runtime, "open('/content/enough', 'w').close()")
    cell.join(PATIENCE)


def test_helm_test_finds_every_service(release: Release) -> None:
    said = release.cluster.helm("test", "minicolab", "--namespace", release.namespace)
    assert "Phase:          Succeeded" in said


def test_the_first_administrator_signs_in_by_the_link(release: Release) -> None:
    link = release.minicolab("user", "link", "ada").strip()
    browser = requests.Session()
    first = browser.get(link, allow_redirects=False, timeout=PATIENCE)
    assert (first.status_code, first.headers["Location"]) == (302, "/drive")
    page = browser.get(link.split("/hub/")[0] + "/drive", timeout=PATIENCE)
    assert page.status_code == 200
    assert "My Drive" in page.text or "minicolab" in page.text


def test_a_cell_runs_in_a_pod_of_the_runtimes_namespace(release: Release) -> None:
    runtime = release.start_runtime()
    assert release.run(runtime, "print(6 * 7)").strip() == "42"
    assert release.pod(runtime)
    release.end(runtime)


def test_a_drive_appears_after_consent_and_what_is_written_is_in_it(release: Release) -> None:
    runtime = release.start_runtime()
    look = "import os; print(os.path.exists('/content/drive/MyDrive'), os.listdir('/drives'))"
    assert release.run(runtime, look).strip() == "False []"
    mounted = release.api("POST", f"{RUNTIMES}/{runtime}/mounts", json={"path": "/content/drive"})
    assert mounted.status_code in (200, 201), mounted.text
    wrote = release.run(runtime, "print(open('/content/drive/MyDrive/from-pod.txt', 'w').write('hello'))")
    assert wrote.strip() == "5"
    names = [f["name"] for f in release.api("GET", FILES + "?parent=root").json()["items"]]
    assert "from-pod.txt" in names
    release.end(runtime)


def test_a_running_cell_survives_upgrade_and_rollback(release: Release) -> None:
    runtime = release.start_runtime()
    pod = release.pod(runtime)
    with running_cell(release, runtime) as out:
        release.upgrade("--set-json", "config.quota.max_runtimes=4")
        release.wait()
        release.cluster.helm("rollback", "minicolab", "--namespace", release.namespace, "--wait")
        release.wait()
        assert not out, out
    assert release.pod(runtime) == pod
    assert "told after" in out[0], out[0][-300:]  # on the connection of before both
    release.end(runtime)


@pytest.mark.parametrize("component", ["hub", "documents", "control", "proxy"])
def test_a_runtime_does_not_notice_the_death_of_a_service(release: Release, component: str) -> None:
    runtime = release.start_runtime()
    pod = release.pod(runtime)
    release.run(runtime, "open('/content/kept', 'w').write('kept')")
    selector = f"app.kubernetes.io/component={component},app.kubernetes.io/instance=minicolab"
    release.kubectl("delete", "pod", "-l", selector, "--grace-period=0", "--force", "--wait=false")
    release.kubectl("rollout", "status", f"deployment/minicolab-{component}", "--timeout=300s")
    release.connect()
    release.wait()
    assert release.state(runtime) == "ready"
    assert release.pod(runtime) == pod
    until(lambda: release.run(runtime, "print(open('/content/kept').read())").strip() == "kept")
    release.end(runtime)


def test_the_secrets_stay_the_same_through_upgrades(release: Release) -> None:
    def data() -> str:
        return release.kubectl("get", "secret", "minicolab-secrets", "-o", "jsonpath={.data}")

    before = data()
    release.upgrade()
    assert data() == before
    assert release.kubectl("get", "jobs", "-o", "name") == ""


def test_an_uninstall_leaves_what_people_made_and_nothing_else(release: Release) -> None:
    runtime = release.start_runtime()  # with a Drive: its pod can only go while the plugin is there
    assert release.api("POST", f"{RUNTIMES}/{runtime}/mounts", json={}).status_code == 201
    release.disconnect()
    release.cluster.helm("uninstall", "minicolab", "--namespace", release.namespace, "--wait")
    kinds = "deployments,daemonsets,services,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,persistentvolumeclaims"
    left = set(
        release.kubectl("get", kinds, "-l", "app.kubernetes.io/part-of=minicolab", "-o", "name").split()
    )
    assert left == {f"persistentvolumeclaim/minicolab-{name}" for name in ("hub", "documents", "drive")}
    mine = "app.kubernetes.io/instance=minicolab"
    for kind in ("clusterroles", "clusterrolebindings", "csidrivers", "priorityclasses"):
        assert release.cluster.kubectl("get", kind, "-l", mine, "-o", "name") == ""
