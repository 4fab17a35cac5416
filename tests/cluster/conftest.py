"""Fixtures of the tests on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.drive_node import DriveNode
from cluster.harness.cluster import Cluster


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> Cluster:
    """The cluster, when its node is ours to look into."""
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    return cluster


@pytest.fixture(scope="module")
def shared_node(own_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriveNode]:
    """One plugin for the tests that do not kill it for good."""
    with own_cluster.namespace("drive") as namespace:
        node = DriveNode(own_cluster, namespace, tmp_path_factory.mktemp("drives"))
        try:
            yield node
        finally:
            node.remove()


@pytest.fixture
def node(shared_node: DriveNode) -> Iterator[DriveNode]:
    """A node whose plugin runs and that has no pod; afterwards nothing may be left and no file lost."""
    shared_node.start()
    yield shared_node
    shared_node.cluster.kubectl(
        "-n", shared_node.namespace, "delete", "pods", "--all", "--grace-period=1", "--wait=false"
    )
    shared_node.wait_gone()
    shared_node.assert_no_file_lost()
    assert shared_node.stop() == 0
