"""Fixtures of the tests on a real cluster."""

from __future__ import annotations

import pytest

from cluster.harness.cluster import Cluster


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> Cluster:
    """The cluster, when its node is ours to look into."""
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    return cluster
