"""minicolab in the cluster: its images, its Helm release, and a way to it from this machine's loopback."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

from cluster.harness import programs, storage
from cluster.harness.cluster import Cluster, wait_for
from cluster.harness.errors import ClusterError
from cluster.harness.layout import Layout
from cluster.harness.lifecycle import processes_of
from hub.setup.steps import say
from support import archives

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "minicolab"
VALUES = Path(__file__).parents[1] / "values.yaml"
STATE = "/var/lib/minicolab"  # of the hub's pod
NAME = NAMESPACE = "minicolab"
FORWARD = "forward"
SERVICE_PORT = 80
LONGEST = "240s"


def image_archives() -> list[Path]:
    """Return the archives of the images the release needs, built when they are not there. Raise ClusterError."""
    say("• Looking for the images of this tree (some minutes when they have to be built)")
    try:
        return list(archives.image_archives().values())
    except archives.NoArchives as why_not:
        raise ClusterError(f"the images can not be built here: {why_not}") from why_not


def install(cluster: Cluster, state: Path, port: int) -> str:
    """Install or upgrade minicolab and make it reachable on loopback; return its address. Raise ClusterError."""
    if not (CHART / "Chart.yaml").exists():
        raise ClusterError(f"there is no chart in {CHART}; the cluster itself is up")
    changed = [file.name for file in image_archives() if _load(cluster, file)]
    if cluster.layout is not None:
        storage.replenish(cluster, cluster.layout.state / "volumes")
    say("• Installing the chart")
    url = f"http://localhost:{port}"
    try:
        cluster.helm(
            *("upgrade", "--install", NAME, str(CHART), "--namespace", NAMESPACE, "--create-namespace"),
            *("--values", str(VALUES), "--set", f"config.service.public_port={port}"),
            *("--wait", "--timeout", LONGEST),
        )
    except ClusterError as error:
        raise ClusterError(
            f"{error}\n{cluster.kubectl('-n', NAMESPACE, 'get', 'pods', check=False)}"
        ) from None
    if changed:
        # The tag is the same, so the release looks the same to the cluster.
        workloads = ("deployments", "daemonsets")
        for kind in workloads:
            cluster.kubectl("-n", NAMESPACE, "rollout", "restart", kind)
        for kind in workloads:
            cluster.kubectl("-n", NAMESPACE, "rollout", "status", kind, f"--timeout={LONGEST}")
    forward(cluster, state, port)
    wait_for(lambda: _answers(url), f"{url} does not answer")
    return url


def forward(cluster: Cluster, state: Path, port: int) -> None:
    """Carry connections from this machine's loopback to the release's public service; the process is recorded in the state folder."""
    service = f"{NAME}-proxy-public"
    if cluster.layout is None:
        arguments = ("-n", NAMESPACE, "port-forward", f"service/{service}", f"{port}:{SERVICE_PORT}")
        line = [str(programs.get("kubectl")), "--kubeconfig", str(cluster.kubeconfig), *arguments]
    else:
        address = cluster.kubectl(
            "-n", NAMESPACE, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}"
        )
        script = Path(__file__).with_name("forward.py")
        line = [sys.executable, str(script), str(port), address, str(SERVICE_PORT)]
    processes = processes_of(Layout(state.resolve()))
    processes.stop(FORWARD)
    processes.start(FORWARD, line)


def token(cluster: Cluster, user: str) -> str:
    """Return an API token of a user of the release; the user is made when there is none."""
    hub = ("-n", NAMESPACE, "exec", f"deployment/{NAME}-hub", "--", "minicolab")
    state = ("--state", STATE)
    cluster.kubectl(*hub, "user", "add", user, "--link", *state, check=False)
    return cluster.kubectl(*hub, "token", user, *state).splitlines()[-1]


def uninstall(cluster: Cluster, state: Path) -> None:
    """Take the release away; its volumes and secrets stay in the namespace."""
    processes_of(Layout(state.resolve())).stop(FORWARD)
    cluster.helm("uninstall", NAME, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")


def _load(cluster: Cluster, file: Path) -> bool:
    """Give the cluster an image archive, unless it has been given this very one before; return whether it replaced another."""
    if cluster.layout is None:
        cluster.import_image(file)
        return True
    mark = cluster.layout.state / "loaded" / file.name
    now = f"{file.stat().st_mtime_ns} {file.stat().st_size}"
    before = mark.read_text("utf-8") if mark.exists() else now
    if not mark.exists() or before != now:
        say(f"• Importing {file.name}")
        cluster.import_image(file)
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(now, "utf-8")
    return before != now


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as reply:
        return bool(reply.status < 500)
