"""The cluster that these tests run on: the one MINICOLAB_KUBECONFIG names, else one of our own, made once a session.

MINICOLAB_CLUSTER_STATE names the folder of a cluster that `make cluster-up` has made or will; that one stays up afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.harness import images, lifecycle, programs
from cluster.harness.cluster import Cluster
from cluster.harness.errors import Unavailable
from cluster.harness.foreign import named_by_environment

STATE = "MINICOLAB_CLUSTER_STATE"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that is ready for pods."""
    foreign = named_by_environment()
    if foreign is not None:
        if foreign.load:
            foreign.import_image(images.busybox(tmp_path_factory.mktemp("images") / "busybox.tar"))
        yield foreign
        return
    missing = programs.missing()
    if missing:  # it takes longer than a test may
        pytest.skip(f"no cluster: {', '.join(missing)} not built (make test-cluster)")
    kept = os.environ.get(STATE)
    state = Path(kept) if kept else tmp_path_factory.mktemp("cluster") / "state"
    try:
        yield lifecycle.up(state)
    except Unavailable as reason:
        pytest.skip(f"no cluster: {reason}")
    finally:
        if not kept:
            lifecycle.down(state)


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> Cluster:
    """The cluster, when its node is ours to look into."""
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    return cluster
