"""Pretended nodes that can be taken away: a KWOK of their own keeps them, and may be stopped and started again."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.harness import components
from cluster.harness.cluster import Cluster
from cluster.harness.errors import Unavailable
from cluster.harness.layout import Addresses
from cluster.harness.lifecycle import processes_of
from cluster.harness.processes import Processes


@dataclass(frozen=True)
class Keeper:
    """Keeps the nodes that are annotated with its name. At the addresses of their pods nobody answers."""

    cluster: Cluster
    name: str
    access: Path
    addresses: Addresses
    processes: Processes

    def start(self) -> None:
        line = components.kwok(self.access, self.addresses, self.name, self.addresses.silent_pods)
        self.processes.start(self.name, [*self.cluster.enter, *line])

    def stop(self) -> None:
        """Let the nodes go, with their kubelets and all that runs there; the cluster finds out by itself."""
        self.processes.stop(self.name, grace=0)


@contextlib.contextmanager
def keeper(cluster: Cluster) -> Iterator[Keeper]:
    """Yield a keeper that runs."""
    layout = cluster.layout
    addresses = layout.addresses() if layout is not None else None
    if layout is None or addresses is None:
        raise Unavailable("the nodes of a cluster that is not ours can not be taken away")
    name = f"kwok-{secrets.token_hex(3)}"
    kept = Keeper(cluster, name, layout.keys / "admin.kubeconfig", addresses, processes_of(layout))
    kept.start()
    try:
        yield kept
    finally:
        kept.stop()
        kept.processes.log(name).unlink(missing_ok=True)
