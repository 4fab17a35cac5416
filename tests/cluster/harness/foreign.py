"""A cluster that is not ours: MINICOLAB_KUBECONFIG names it, MINICOLAB_CLUSTER_LOAD the command that gives it an image archive."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.harness.cluster import Cluster
from cluster.harness.errors import ClusterError

KUBECONFIG = "MINICOLAB_KUBECONFIG"
LOAD = "MINICOLAB_CLUSTER_LOAD"


def named_by_environment() -> Cluster | None:
    """Return the cluster that the environment names, if it names one. Raise ClusterError when its file is missing."""
    named = os.environ.get(KUBECONFIG)
    if not named:
        return None
    file = Path(named).expanduser()
    if not file.exists():
        raise ClusterError(f"{KUBECONFIG} names {file}, which does not exist")
    return Cluster(file, load=os.environ.get(LOAD, ""))
