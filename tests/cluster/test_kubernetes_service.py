"""The whole service with its runtimes on a cluster: sign in, run a cell, wait for an accelerator, restart everything under a cell."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.harness import storage
from cluster.harness.cluster import Cluster
from support.kernel import Kernel
from support.patience import until
from support.service import Running, running
from tests.cluster.kubernetes_support import IMAGE, have_runtime_image

pytestmark = pytest.mark.cluster

CONFIG = """
runtimes:
  environment: minimal
  backend: kubernetes
  kubernetes:
    namespace: {namespace}
    installation: service
    image: {image}
    {drives}
    kubeconfig: {kubeconfig}
    cpu_share: 0.1
    memory_share: 0.5
  shapes: {{STANDARD: {{memory: 512MiB, cpus: 0.5}}}}
accelerators:
  flavors:
    T4: {{title: Tesla T4, resource: {resource}}}
quota: {{max_runtimes: 20}}
"""


@dataclass
class OnCluster:
    service: Running
    cluster: Cluster
    namespace: str

    def get_pods(self) -> list[dict[str, Any]]:
        text = self.cluster.kubectl("-n", self.namespace, "get", "pods", "-o", "json")
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return items

    def pods(self) -> dict[str, str]:
        """Return the phase of every pod."""
        return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in self.get_pods()}


@pytest.fixture(scope="module")
def on_cluster(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnCluster]:
    """A service beside the cluster, and one accelerator of a kind that nobody else has."""
    have_runtime_image(cluster)
    resource = f"test.minicolab.dev/t4-{secrets.token_hex(4)}"
    capacity = "/status/capacity/" + resource.replace("/", "~1")
    node = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"][0]["metadata"]["name"]

    def offer(patch: list[dict[str, str]]) -> None:
        cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(patch))

    with cluster.namespace("kube") as namespace:
        cluster.kubectl("-n", namespace, "create", "serviceaccount", "runtime")
        offer([{"op": "add", "path": capacity, "value": "1"}])
        state, drives = tmp_path_factory.mktemp("service") / "state", "drives: none"
        if cluster.layout is not None:  # else the service's folder is on no node
            cluster.apply(*storage.static_claim(namespace, "drive", {"hostPath": {"path": str(state)}}))
            drives = "drives: subpath\n    drive_claim: drive"
        config = CONFIG.format(
            namespace=namespace, image=IMAGE, kubeconfig=cluster.kubeconfig, resource=resource, drives=drives
        )
        try:
            with running(state, config) as service:
                service.add_user("ada")
                service.add_user("bob")
                yield OnCluster(service, cluster, namespace)
        finally:
            offer([{"op": "remove", "path": capacity}])
            cluster.kubectl("delete", "pv", f"{namespace}-drive", "--wait=false", check=False)


def test_a_cell_runs_in_a_pod_and_the_pod_goes_with_the_runtime(on_cluster: OnCluster) -> None:
    service = on_cluster.service
    runtime = service.start_runtime("ada", service.make_file("ada")["id"])
    assert on_cluster.pods() == {runtime["id"]: "Running"}
    assert (
        service.execute("ada", runtime["id"], "import os; print(os.uname().nodename)") == f"{runtime['id']}\n"
    )
    reply = service.api("ada", "DELETE", f"/services/control/api/v1/runtimes/{runtime['id']}")
    assert reply.json()["state"] == "ended"
    assert on_cluster.pods() == {}


def test_an_accelerator_is_waited_for_in_order_with_position_and_reason(on_cluster: OnCluster) -> None:
    service = on_cluster.service

    def offered() -> bool:
        items = service.api("ada", "GET", "/services/control/api/v1/accelerators").json()["items"]
        return any(item["name"] == "T4" and item["available"] for item in items)

    until(offered, "the node's accelerator was not found")
    first = service.start_runtime("ada", service.make_file("ada")["id"], accelerator="T4")
    (pod,) = on_cluster.get_pods()
    assert not pod["spec"].get("schedulingGates")
    body = {"file_id": service.make_file("bob")["id"], "accelerator": "T4"}
    reply = service.api("bob", "POST", "/services/control/api/v1/runtimes", json=body)
    assert reply.status_code == 202, reply.text
    second = reply.json()["id"]

    def told() -> str:
        model = service.api("bob", "GET", f"/services/control/api/v1/runtimes/{second}").json()
        return json.dumps(model)

    until(lambda: "you are next" in told() and "The only one is in use." in told(), told())
    assert set(on_cluster.pods()) == {first["id"]}, "who waits has no pod"
    service.api("ada", "DELETE", f"/services/control/api/v1/runtimes/{first['id']}")
    service.wait_for_state("bob", second, {"ready"})
    assert service.execute("bob", second, "print('my turn')") == "my turn\n"
    service.end_runtimes("bob")


def test_a_cell_never_notices_that_hub_documents_and_control_were_killed(on_cluster: OnCluster) -> None:
    service = on_cluster.service
    runtime = service.start_runtime("ada", service.make_file("ada")["id"])
    ticket = service.ticket("ada", runtime["id"])
    kernel = Kernel(ticket["url"], ticket["token"])
    kernel.run(
        "import threading, time\nn = 0\ndef count():\n    global n\n    while True:\n        n += 1\n"
        "        time.sleep(0.05)\nthreading.Thread(target=count, daemon=True).start()"
    )
    before = int(kernel.run("print(n)"))
    kernel.close()
    ours = str(service.state).encode()
    words = (b"hub.jupyterhub_process", b"hub.control", b"hub.documents")
    killed = [pid for word in words for pid in _processes(word, ours)]
    assert len(killed) == 3
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: service.answers("ada"), "not all of the services came back")
    model = service.api("ada", "GET", f"/services/control/api/v1/runtimes/{runtime['id']}").json()
    assert model["state"] == "ready"
    ticket = service.ticket("ada", runtime["id"])
    kernel = Kernel(ticket["url"], ticket["token"], kernel_id=kernel.id)
    assert int(kernel.run("print(n)")) > before
    kernel.close()
    service.end_runtimes("ada")
    assert on_cluster.pods() == {}


def test_a_drive_by_sub_path_is_asked_for_once_and_there_from_the_next_start_until_it_is_taken_away(
    on_cluster: OnCluster,
) -> None:
    if on_cluster.cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    service = on_cluster.service
    notebook = service.make_file("ada")["id"]
    service.make_file("ada", "from-drive.txt", kind="file", content="hello from Drive")
    for path in (service.state / "drive").rglob("*"):
        os.chown(path, 1000, 1000)  # as everything on a volume of minicolab is

    def again() -> str:
        service.end_runtimes("ada")
        return str(service.start_runtime("ada", notebook)["id"])

    look = "import os; print(os.listdir('/drives'), os.path.exists('/content/drive'))"
    runtime = again()
    assert service.execute("ada", runtime, look) == "[] False\n"
    refused = service.api("ada", "POST", f"/services/control/api/v1/runtimes/{runtime}/mounts", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "restart_needed")

    runtime = again()
    code = "print(open('/content/drive/MyDrive/from-drive.txt').read())"
    assert service.execute("ada", runtime, code) == "hello from Drive\n"
    mount = "from google.colab import drive; drive.mount('/content/drive')"
    assert "already mounted" in service.execute("ada", runtime, mount)
    service.api("ada", "DELETE", f"/services/control/api/v1/runtimes/{runtime}/mounts")

    assert service.execute("ada", again(), look) == "[] False\n"
    service.end_runtimes("ada")


def _processes(*words: bytes) -> list[int]:
    """Return the processes whose command line has all the words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = path.read_bytes()
            if all(word in text for word in words):
                found.append(int(path.parent.name))
    return found
