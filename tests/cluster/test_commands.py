"""The harness by hand, as CONTRIBUTING.md shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cluster.harness import release
from cluster.harness.cluster import Cluster
from cluster.harness.errors import ClusterError
from hub.installation import free_port
from support.patience import PATIENCE

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


def harness(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster.harness", "--state", str(state), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )


def make(*arguments: str) -> str:
    done = subprocess.run(
        ["make", "-s", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def state(own_cluster: Cluster) -> Path:
    assert own_cluster.layout is not None
    return own_cluster.layout.state


@pytest.fixture
def images(own_cluster: Cluster, state: Path) -> Iterator[None]:
    """What a release needs, or a skip that names it; the release and what it kept are gone afterwards."""
    if not (release.CHART / "Chart.yaml").exists():
        pytest.skip("there is no chart in this tree")
    try:
        release.image_archives()
    except ClusterError as reason:
        pytest.skip(f"no release: {reason}")
    yield
    release.uninstall(own_cluster, state)
    own_cluster.kubectl("delete", "namespace", release.NAMESPACE, "--ignore-not-found")


def test_up_says_where_the_cluster_is_and_exec_enters_its_node(own_cluster: Cluster, state: Path) -> None:
    assert harness(state, "up", "--bare").stdout.splitlines() == [
        f"Cluster: KUBECONFIG={own_cluster.kubeconfig}"
    ]
    assert harness(state, "status").stdout == f"up: KUBECONFIG={own_cluster.kubeconfig}\n"
    inside = harness(state, "exec", "--", "/bin/sh", "-c", "ls -d /var/lib/kubelet/pods")
    assert inside.stdout == "/var/lib/kubelet/pods\n"


def test_where_no_cluster_is_commands_say_so(cluster: Cluster, tmp_path: Path) -> None:
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    status = harness(tmp_path / "none", "status")
    assert (status.returncode, status.stdout) == (3, "down\n")
    token = harness(tmp_path / "none", "token", "ada")
    assert (token.returncode, token.stderr) == (1, "minicolab cluster: no cluster is up: make cluster-up\n")
    assert harness(tmp_path / "none", "down").returncode == 0


@pytest.mark.usefixtures("images")
def test_make_cluster_up_prints_a_link_that_answers_and_cluster_token_a_token_that_is_known(
    state: Path,
) -> None:
    port = free_port()
    said = make("cluster-up", f"STATE={state}", f"PORT={port}")
    assert said.splitlines()[-1] == f"Ready: http://localhost:{port}"
    page = requests.get(f"http://localhost:{port}/", timeout=PATIENCE)
    assert page.status_code == 200

    token = make("cluster-token", f"STATE={state}", "USER=ada").strip()
    reply = requests.get(
        f"http://127.0.0.1:{port}/services/control/api/v1/runtimes",
        headers={"Authorization": f"Bearer {token}"},
        timeout=PATIENCE,
    )
    assert reply.status_code == 200
    assert reply.json()["items"] == []
