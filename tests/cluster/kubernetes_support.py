"""Runtimes on a real cluster: a namespace of their own that enforces Pod Security, a backend, looks at what is really there."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.harness.cluster import Cluster
from quota.ticket import runtime_key, supervisor_key
from spawner.ended import Ended
from spawner.kubernetes.backend import KubernetesBackend
from spawner.kubernetes.client import READ_SECONDS, connect
from spawner.kubernetes.model import Installation
from spawner.model import EndReason, Phase, RuntimeSpec, Shape
from support.archives import NoArchives, image_archives
from support.runtimes import Started, a_spec

MASTER = b"m" * 32
IMAGE = "docker.io/local/minicolab-runtime:minimal"
STOPPED = EndReason("user_deleted", "The runtime was ended by its user.")
SMALL = Shape("SMALL", 512 << 20, 0.5, 200)


def have_runtime_image(cluster: Cluster) -> None:
    """Give a cluster of our own the image of the small runtime; skip when nobody has built it."""
    if cluster.layout is None:
        return  # a cluster that is not ours has been given it
    have = cluster.node_command(
        "ctr", "-a", str(cluster.layout.containerd), "-n", "k8s.io", "images", "ls", "-q"
    )
    if IMAGE in have.stdout.split():
        return
    try:
        cluster.import_image(image_archives()["minimal"])
    except NoArchives as why_not:
        pytest.skip(str(why_not))


@dataclass
class Runtime(Started):
    """A started runtime."""

    told: list[tuple[Phase, str]]


@dataclass
class Bench:
    """A backend on a real cluster."""

    cluster: Cluster
    installation: Installation
    backend: KubernetesBackend
    folder: Path
    started: list[str] = field(default_factory=list)
    backends: list[KubernetesBackend] = field(default_factory=list)
    not_ours: set[str] = field(default_factory=set)

    @property
    def namespace(self) -> str:
        return self.installation.namespace

    def spec(self, user: str = "ada", **changes: Any) -> RuntimeSpec:
        spec = a_spec(user, **{"shape": SMALL, **changes})
        self.started.append(spec.id)
        return replace(spec, ticket_key=runtime_key(MASTER, spec.id))

    async def start(self, user: str = "ada", **changes: Any) -> Runtime:
        return await self.start_spec(self.spec(user, **changes))

    async def start_spec(self, spec: RuntimeSpec) -> Runtime:
        told: list[tuple[Phase, str]] = []
        endpoint = await self.backend.start(spec, lambda phase, sentence="": told.append((phase, sentence)))
        return Runtime(spec, endpoint, told)

    def another(
        self, kubeconfig: Path | None = None, *, read_seconds: float = READ_SECONDS, **changes: Any
    ) -> KubernetesBackend:
        """Return a backend as another process, or the hub after a restart, would make it; `kubeconfig`: another way to the cluster."""
        backend = make_backend(
            kubeconfig or self.cluster.kubeconfig,
            replace(self.installation, **changes),
            self.folder,
            read_seconds,
        )
        self.backends.append(backend)
        return backend

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, text=given)

    def get(self, what: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", what, "-o", "json"))["items"]
        return items

    def names(self, what: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.get(what)}


def make_backend(
    kubeconfig: Path, installation: Installation, folder: Path, read_seconds: float = READ_SECONDS
) -> KubernetesBackend:
    api = connect(kubeconfig, read_seconds=read_seconds)
    return KubernetesBackend(api, installation, lambda i: supervisor_key(MASTER, i), Ended(folder))


@contextlib.asynccontextmanager
async def make_bench(cluster: Cluster, **changes: Any) -> AsyncIterator[Bench]:
    """Yield a backend with a namespace of its own; whatever a test leaves is ended and must leave nothing."""
    with cluster.namespace("kube") as namespace, tempfile.TemporaryDirectory() as folder:
        cluster.kubectl("-n", namespace, "create", "serviceaccount", "runtime")
        settings: dict[str, Any] = {"drives": "none", "cpu_share": 0.1, "memory_share": 0.5, **changes}
        installation = Installation(namespace, "test", IMAGE, **settings)
        backend = make_backend(cluster.kubeconfig, installation, Path(folder))
        bench = Bench(cluster, installation, backend, Path(folder), backends=[backend])
        try:
            yield bench
            last = bench.another()
            for runtime_id in bench.started:
                await last.stop(runtime_id, reason=STOPPED, grace_seconds=0.0)
            left = bench.names("pods") & set(bench.started) - bench.not_ours
            assert left == set(), "a runtime that was stopped has a pod"
        finally:
            for made in bench.backends:
                made.close()
