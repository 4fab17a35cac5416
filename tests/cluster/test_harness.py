"""The harness itself: what every other test on a cluster leans on."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.harness import cgroups, lifecycle, programs, storage
from cluster.harness.cluster import Cluster
from cluster.harness.errors import ClusterError
from cluster.harness.layout import Layout
from cluster.harness.machine import output
from cluster.harness.mounts import mount_points
from cluster.harness.pods import restricted_pod
from cluster.harness.pretended import TAINT
from support.patience import until

pytestmark = pytest.mark.cluster

SERVE = "mkdir -p /tmp/www && echo hello from a pod > /tmp/www/index.html && exec busybox httpd -f -p 8888 -h /tmp/www"


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace("harness") as name:
        yield name


def pod_of(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("-n", namespace, "get", "pod", name, "-o", "json"))
    return found


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as reply:
        text: str = reply.read().decode()
        return text


def test_a_restricted_pod_runs_and_is_reached_from_the_machine_by_its_address_and_by_its_service(
    own_cluster: Cluster, namespace: str
) -> None:
    ready = {"httpGet": {"path": "/", "port": 8888}, "periodSeconds": 1}
    pod = restricted_pod("web", namespace, ["sh", "-c", SERVE])
    pod["spec"]["containers"][0]["readinessProbe"] = ready
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8888}]},
    }
    own_cluster.apply(pod, service)
    own_cluster.wait(namespace, "pod/web", "condition=Ready")

    address = pod_of(own_cluster, namespace, "web")["status"]["podIP"]
    assert fetch(f"http://{address}:8888/") == "hello from a pod\n"
    cluster_ip = own_cluster.kubectl("-n", namespace, "get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}")

    def answers() -> bool:  # the node's rules follow the pod's readiness
        try:
            return fetch(f"http://{cluster_ip}/") == "hello from a pod\n"
        except OSError:
            return False

    until(answers, "the service's address did not lead to the pod")


def test_a_pod_knows_the_clusters_names_and_reaches_the_machine(cluster: Cluster, namespace: str) -> None:
    look_up = "nslookup kubernetes.default.svc.cluster.local && exec sleep 3600"
    cluster.apply(restricted_pod("names", namespace, ["sh", "-c", look_up]))
    cluster.wait(namespace, "pod/names", "condition=Ready")
    service = cluster.kubectl("-n", "default", "get", "svc", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    until(lambda: service in cluster.kubectl("-n", namespace, "logs", "names"), "the name was not found")

    with http.server.ThreadingHTTPServer(
        (cluster.machine_address, 0), http.server.SimpleHTTPRequestHandler
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{cluster.machine_address}:{server.server_port}/nothing"
        try:
            said = cluster.kubectl(
                *("-n", namespace, "exec", "names", "--", "sh", "-c", f"wget -q -O - {url} 2>&1; true")
            )
        finally:
            server.shutdown()
    assert "404" in said


def test_pod_security_refuses_what_restricted_forbids(cluster: Cluster, namespace: str) -> None:
    pod = restricted_pod("root", namespace, ["sleep", "1"])
    pod["spec"]["securityContext"] = {"runAsUser": 0}
    with pytest.raises(ClusterError, match='violates PodSecurity "restricted'):
        cluster.apply(pod)


def test_a_pod_gets_one_of_the_two_gpus_and_a_third_waits(own_cluster: Cluster, namespace: str) -> None:
    command = ["sh", "-c", "echo has $NVIDIA_VISIBLE_DEVICES; exec sleep 3600"]
    for name in ("first", "second"):
        own_cluster.apply(restricted_pod(name, namespace, command, limits={"nvidia.com/gpu": "1"}))
        own_cluster.wait(namespace, f"pod/{name}", "condition=Ready")
    said = {own_cluster.kubectl("-n", namespace, "logs", name).strip() for name in ("first", "second")}
    assert said == {"has fake-0", "has fake-1"}

    own_cluster.apply(restricted_pod("third", namespace, command, limits={"nvidia.com/gpu": "1"}))
    own_cluster.wait(namespace, "pod/third", "condition=PodScheduled=false")
    conditions = pod_of(own_cluster, namespace, "third")["status"]["conditions"]
    assert any("Insufficient nvidia.com/gpu" in each.get("message", "") for each in conditions)


def test_a_pretended_node_takes_a_pod_that_wants_tpus_as_gke_labels_them(
    own_cluster: Cluster, namespace: str
) -> None:
    pod = restricted_pod(
        *("tpu", namespace, ["true"]),
        limits={"google.com/tpu": "8"},
        nodeSelector={
            "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
            "cloud.google.com/gke-tpu-topology": "2x4",
        },
        tolerations=[{"key": TAINT["key"], "operator": "Exists"}],
    )
    own_cluster.apply(pod)
    own_cluster.wait(namespace, "pod/tpu", "jsonpath={.status.phase}=Running")
    assert pod_of(own_cluster, namespace, "tpu")["spec"]["nodeName"].startswith("tpu-")


def test_a_claim_gets_a_volume_that_a_pod_without_root_may_write_and_a_spent_one_is_made_anew(
    own_cluster: Cluster, namespace: str
) -> None:
    assert own_cluster.layout is not None
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "claim", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    pod = restricted_pod("writer", namespace, ["sh", "-c", "echo kept > /data/file && exec sleep 3600"])
    pod["spec"]["securityContext"]["fsGroup"] = 1000
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}]
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    own_cluster.apply(claim, pod)
    own_cluster.wait(namespace, "pod/writer", "condition=Ready")
    volumes = own_cluster.layout.state / "volumes"
    name = own_cluster.kubectl("-n", namespace, "get", "pvc", "claim", "-o", "jsonpath={.spec.volumeName}")
    file = volumes / name / "file"
    until(file.exists, "nothing was written to the volume")
    until(lambda: file.read_text() == "kept\n", "what was written is not there")

    own_cluster.kubectl("-n", namespace, "delete", "pod/writer", "pvc/claim", "--grace-period=1")
    own_cluster.kubectl("wait", f"pv/{name}", "--for=jsonpath={.status.phase}=Released", "--timeout=60s")
    storage.replenish(own_cluster, volumes)
    own_cluster.kubectl("wait", f"pv/{name}", "--for=jsonpath={.status.phase}=Available", "--timeout=60s")
    assert not file.exists()


def test_up_again_is_quick_and_starts_nothing_anew(own_cluster: Cluster) -> None:
    assert own_cluster.layout is not None
    processes = lifecycle.processes_of(own_cluster.layout)
    before = {name: processes.pid(name) for name in processes.names()}
    assert lifecycle.up(own_cluster.layout.state) == own_cluster
    assert {name: processes.pid(name) for name in processes.names()} == before
    assert None not in before.values()


def test_up_again_starts_what_has_died(own_cluster: Cluster, namespace: str) -> None:
    assert own_cluster.layout is not None
    processes = lifecycle.processes_of(own_cluster.layout)
    own_cluster.apply(restricted_pod("stays", namespace, ["sleep", "3600"]))
    own_cluster.wait(namespace, "pod/stays", "condition=Ready")
    processes.stop("kubelet")
    assert lifecycle.running(own_cluster.layout.state) is None
    lifecycle.up(own_cluster.layout.state)
    assert lifecycle.running(own_cluster.layout.state) == own_cluster
    own_cluster.wait(namespace, "pod/stays", "condition=Ready")
    assert pod_of(own_cluster, namespace, "stays")["status"]["containerStatuses"][0]["restartCount"] == 0


@pytest.mark.parametrize("before", ["in order", "after everything was killed"])
def test_down_leaves_nothing_and_touches_no_other_cluster(
    own_cluster: Cluster, tmp_path: Path, before: str
) -> None:
    assert own_cluster.layout is not None
    state = tmp_path / "second"
    try:
        second = lifecycle.up(state)
        layout = second.layout
        assert layout is not None
        recorded = lifecycle.processes_of(layout)
        pids = {pid for name in recorded.names() if (pid := recorded.pid(name))}
        second.kubectl("create", "namespace", "held")
        pod = restricted_pod("held", "held", ["sleep", "3600"], serviceAccountName="default")
        until(
            lambda: second.kubectl("-n", "held", "get", "serviceaccount", "default", check=False),
            "no account",
        )
        second.apply(pod)
        second.wait("held", "pod/held", "condition=Ready")
        assert lifecycle.shims(layout)
        pids |= cgroups.ControlGroup(layout.cgroup).processes()
        if before != "in order":
            for name in recorded.names():
                pid = recorded.pid(name)
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
    finally:
        lifecycle.down(state)

    assert not layout.run.exists()
    assert not layout.state.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
    assert not lifecycle.shims(layout)
    assert not cgroups.ControlGroup(layout.cgroup).folders()
    assert not [path for path in mount_points() if str(state) in str(path) or layout.id in str(path)]
    assert layout.link not in output("ip", "link")
    assert lifecycle.running(own_cluster.layout.state) == own_cluster


def test_a_cluster_is_named_after_its_folder(tmp_path: Path) -> None:
    first, second = Layout(tmp_path / "a"), Layout(tmp_path / "b")
    assert {first.run, first.link, first.cgroup}.isdisjoint({second.run, second.link, second.cgroup})
    assert len(first.link) <= 15
    assert len(os.fsencode(first.containerd)) < 100


def test_kubernetes_knows_the_version_it_was_built_from(cluster: Cluster) -> None:
    client = json.loads(cluster.kubectl("version", "--client", "-o", "json"))["clientVersion"]
    assert client["gitVersion"] == programs.kubernetes_version()
