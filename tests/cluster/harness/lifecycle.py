"""Bring a cluster up, and take it down again without a trace. Both may be repeated, and go on where they were interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.harness import components, configuration, images, kubeconfig, pretended, storage
from cluster.harness.cgroups import ControlGroup
from cluster.harness.cluster import Cluster, wait_for
from cluster.harness.components import Keys
from cluster.harness.errors import ClusterError, Unavailable
from cluster.harness.layout import Addresses, Layout
from cluster.harness.machine import command
from cluster.harness.mounts import remove_folder
from cluster.harness.node import Node
from cluster.harness.processes import Processes, began, end
from hub.setup.steps import SetupError, locked
from hub.setup.system import install_packages

MANIFESTS = Path(__file__).parent / "manifests"
LOCK = Path("/run/lock/minicolab-cluster")

# Programs of Debian, and the package each comes from.
DEBIAN = {
    "containerd": "containerd",
    "runc": "runc",
    str(configuration.CNI_PROGRAMS / "bridge"): "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "busybox": "busybox-static",
}
TPU_NODES = 2
PODS_END = 30  # seconds that the pods have to end in order
SHIM = "containerd-shim-runc-v2"


def up(state: Path) -> Cluster:
    """Return a cluster that is ready for pods; make what is missing of it. Raise ClusterError, or Unavailable before anything is made."""
    layout = Layout(state.resolve())
    if os.geteuid() != 0:
        raise Unavailable("a cluster of our own needs root (or set MINICOLAB_KUBECONFIG)")
    try:
        install_packages(DEBIAN, required=True)
    except SetupError as error:
        raise Unavailable(str(error)) from None
    with locked(layout.state / ".lock"):
        with locked(LOCK):  # another cluster may be looking for a free network
            addresses = layout.allot()
            node = Node(layout, addresses)
            node.make()
        ControlGroup(layout.cgroup).make()
        keys = Keys.make(layout, addresses)
        configuration.write(layout, addresses, keys.authority, keys.kubelet_serving, keys.access["proxy"])
        _start(layout, addresses, node, keys)
    return Cluster(layout.kubeconfig, layout)


def down(state: Path) -> None:
    """Take everything away that `up` has made. Raise ClusterError when something stays."""
    layout = Layout(state.resolve())
    if not layout.state.exists() and not layout.run.exists():
        return
    processes = processes_of(layout)
    for name in ("kube-controller-manager", "kube-scheduler"):
        processes.stop(name)  # or they make again what is deleted now
    if processes.alive("kube-apiserver") and processes.alive("kubelet"):
        with contextlib.suppress(ClusterError):
            _end_pods(Cluster(layout.kubeconfig, layout))
    # Without etcd the API server does not end when told to; who watches it ends before.
    for name in (*set(processes.names()) - set(components.ORDER), *reversed(components.ORDER)):
        if name not in ("etcd", "containerd"):
            processes.stop(name)
    for name in ("etcd", "containerd"):
        processes.stop(name)
    for pid in shims(layout):
        started = began(pid)
        if started is not None:
            end(pid, started, grace=1)
    ControlGroup(layout.cgroup).remove()
    node = Node(layout, layout.addresses() or Addresses(0))
    left = node.inhabitants()
    if left:
        raise ClusterError(f"processes still run in the node: {', '.join(map(str, left))}")
    node.remove()
    for folder in (layout.run, layout.state):
        remove_folder(folder)


def _end_pods(cluster: Cluster) -> None:
    """End all pods; those of daemon sets last, for a volume's plugin has to let go of what others hold."""
    pods = json.loads(cluster.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    rounds: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for pod in pods:
        owners = pod["metadata"].get("ownerReferences", [])
        rounds[any(owner["kind"] == "DaemonSet" for owner in owners)].append(pod)
    for daemons in (False, True):
        by_namespace: dict[str, list[str]] = {}
        for pod in rounds[daemons]:
            by_namespace.setdefault(pod["metadata"]["namespace"], []).append(pod["metadata"]["name"])
        for namespace, names in by_namespace.items():
            options = ("--grace-period=1", "--wait=false")
            cluster.kubectl("-n", namespace, "delete", "pods", *names, *options, check=False)
        for namespace, names in by_namespace.items():
            waited = [f"pod/{name}" for name in names]
            options = ("--for=delete", f"--timeout={PODS_END}s")
            cluster.kubectl("-n", namespace, "wait", *waited, *options, check=False)


def running(state: Path) -> Cluster | None:
    """Return the cluster of a state folder when it is up."""
    layout = Layout(state.resolve())
    alive = processes_of(layout)
    if all(alive.alive(name) for name in components.ORDER):
        return Cluster(layout.kubeconfig, layout)
    return None


def processes_of(layout: Layout) -> Processes:
    return Processes(layout.state / "processes")


def shims(layout: Layout) -> list[int]:
    """Return the processes by which this cluster's containerd holds its pods; they outlive it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(SHIM.encode()) and str(layout.containerd).encode() in words:
                    found.append(int(process.name))
    return found


def _start(layout: Layout, addresses: Addresses, node: Node, keys: Keys) -> None:
    """Start what does not run, wait for what the next needs, and put in what every cluster has."""
    processes = processes_of(layout)
    lines = components.command_lines(layout, addresses, keys)
    cluster = Cluster(layout.kubeconfig, layout)
    access = kubeconfig.read(layout.kubeconfig)

    def begin(*names: str) -> None:
        for name in names:
            processes.start(name, [*node.enter, *lines[name]])

    def waits(what: str, condition: Callable[[], object], *names: str) -> None:
        def check() -> None:
            for name in names:
                processes.check(name)

        wait_for(condition, f"{what} did not come up (logs: {processes.folder})", check=check)

    begin("containerd", "etcd", "kube-apiserver")
    version = (*node.enter, "ctr", "-a", str(layout.containerd), "version")
    waits("containerd", lambda: _succeeds(*version), "containerd")
    images.import_own(node.enter, layout.containerd, layout.state / "images")
    waits("the API server", lambda: access.get("/readyz"), "etcd", "kube-apiserver")
    begin("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "fakedp", "kwok")
    waits(
        "the node",
        lambda: node_is_ready(access, configuration.NODE_NAME),
        "kubelet",
        "kube-controller-manager",
        "kube-scheduler",
    )
    text = (MANIFESTS / "dns.yaml").read_text("utf-8")
    dns = string.Template(text).substitute(image=images.DNS, address=addresses.dns)
    cluster.kubectl("apply", "-f", "-", text=dns)
    cluster.kubectl("apply", "-f", "-", text=pretended.tpu_nodes(TPU_NODES))
    storage.replenish(cluster, layout.state / "volumes")
    waits(
        "kubelet's view of the GPUs", lambda: _gpus(access) == components.PRETENDED_GPUS, "fakedp", "kubelet"
    )
    waits("KWOK's nodes", lambda: node_is_ready(access, "tpu-0"), "kwok")
    cluster.wait("kube-system", "deployment/coredns", "condition=Available")


def node_is_ready(access: kubeconfig.Access, name: str) -> bool:
    """Whether a node is Ready, now."""
    conditions = access.get_json(f"/api/v1/nodes/{name}")["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _gpus(access: kubeconfig.Access) -> int:
    status = access.get_json(f"/api/v1/nodes/{configuration.NODE_NAME}")["status"]
    return int(status["allocatable"].get("nvidia.com/gpu", 0))


def _succeeds(*arguments: str) -> bool:
    return command(*arguments, check=False).returncode == 0
