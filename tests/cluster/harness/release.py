"""minicolab in the cluster: its images, its Helm release, and a way to it from this machine's loopback."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

from cluster.harness import storage
from cluster.harness.cluster import Cluster, wait_for
from cluster.harness.errors import ClusterError
from cluster.harness.lifecycle import processes_of
from hub.settings import cache_folder
from hub.setup.steps import say

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "minicolab"
VALUES = Path(__file__).parents[1] / "values.yaml"
STATE = "/var/lib/minicolab"  # of the hub's pod
NAME = NAMESPACE = "minicolab"
FORWARD = "forward"
LONGEST = "240s"
ARCHIVES = ("hub.tar", "runtime-minimal.tar")
BUILD = ".venv/bin/minicolab images build minimal hub --save {}"


def image_archives() -> list[Path]:
    """Return the archives of the images the release needs. Raise ClusterError when one has not been built."""
    archives = [cache_folder() / "images" / name for name in ARCHIVES]
    missing = [file for file in archives if not file.exists()]
    if missing:
        raise ClusterError(f"{missing[0]} is missing: {BUILD.format(missing[0].parent)}")
    return archives


def install(cluster: Cluster, port: int) -> str:
    """Install or upgrade minicolab and make it reachable on loopback; return its address. Raise ClusterError."""
    if not (CHART / "Chart.yaml").exists():
        raise ClusterError(f"there is no chart in {CHART}; the cluster itself is up")
    for file in image_archives():
        _load(cluster, file)
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
    forward(cluster, port)
    wait_for(lambda: _answers(url), f"{url} does not answer")
    return url


def forward(cluster: Cluster, port: int) -> None:
    """Carry connections from this machine's loopback to the release's public service."""
    if cluster.layout is None:
        raise ClusterError(
            f"reach it by: kubectl -n {NAMESPACE} port-forward service/{NAME}-proxy-public {port}:80"
        )
    service = json.loads(
        cluster.kubectl("-n", NAMESPACE, "get", "service", f"{NAME}-proxy-public", "-o", "json")
    )["spec"]
    target = [str(port), service["clusterIP"], str(service["ports"][0]["port"])]
    script = Path(__file__).with_name("forward.py")
    processes = processes_of(cluster.layout)
    processes.stop(FORWARD)
    processes.start(FORWARD, [sys.executable, str(script), *target])


def token(cluster: Cluster, user: str) -> str:
    """Return an API token of a user of the release; the user is made when there is none."""
    hub = ("-n", NAMESPACE, "exec", f"deployment/{NAME}-hub", "--", "minicolab")
    state = ("--state", STATE)
    cluster.kubectl(*hub, "user", "add", user, "--link", *state, check=False)
    return cluster.kubectl(*hub, "token", user, *state).splitlines()[-1]


def uninstall(cluster: Cluster) -> None:
    """Take the release away."""
    cluster.helm("uninstall", NAME, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")


def _load(cluster: Cluster, file: Path) -> None:
    """Give the cluster an image archive, unless it has been given this very one before."""
    if cluster.layout is None:
        cluster.import_image(file)
        return
    mark = cluster.layout.state / "loaded" / file.name
    now = f"{file.stat().st_mtime_ns} {file.stat().st_size}"
    if not mark.exists() or mark.read_text("utf-8") != now:
        say(f"• Importing {file.name}")
        cluster.import_image(file)
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(now, "utf-8")


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as reply:
        return bool(reply.status < 500)
