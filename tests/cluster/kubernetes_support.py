"""Runtimes on a real cluster: a namespace of their own that enforces Pod Security, a backend, looks at what is really there."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.drive_node import ADA, USER, DriveNode
from cluster.harness.cluster import Cluster
from quota.ticket import runtime_key, supervisor_key
from spawner.ended import Ended
from spawner.kubernetes.backend import KubernetesBackend
from spawner.kubernetes.client import READ_SECONDS, connect
from spawner.kubernetes.model import Installation
from spawner.model import Phase, RuntimeSpec, Shape
from support.archives import NoArchives, image_archives
from support.runtimes import Started, a_spec
from tests.contract.contract_support import command_of, processes_of
from tests.contract.suite.harness import STOPPED, Drive

MASTER = b"m" * 32
IMAGE = "docker.io/local/minicolab-runtime:minimal"
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
    kind = "kubernetes"
    apart = True
    overrun_seconds = 30.0

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

    def adopt(self, spec: RuntimeSpec) -> None:
        """All that have a spec of ours are ours."""

    def service(self) -> str:
        return (
            "from pathlib import Path\nfrom quota.ticket import supervisor_key\nfrom spawner.ended import Ended\n"
            "from spawner.kubernetes.backend import KubernetesBackend\n"
            "from spawner.kubernetes.client import connect\nfrom spawner.kubernetes.model import Installation\n"
            f"backend = KubernetesBackend(connect(Path({str(self.cluster.kubeconfig)!r})), {self.installation!r},"
            f" lambda i: supervisor_key({MASTER!r}, i), Ended(Path({str(self.folder)!r})))\n"
        )

    def without_image(self) -> KubernetesBackend:
        return self.another(image="docker.io/local/nothing:0", image_pull_policy="Never")

    def without_room(self) -> tuple[KubernetesBackend, dict[str, object]]:
        backend = self.another(start_seconds=4.0, cpu_share=1.0)
        return backend, {"shape": replace(SMALL, cpus=640.0)}

    def services_die(self) -> None:
        for backend in self.backends:
            backend.close()

    def lives(self, runtime_id: str) -> bool:
        phase = ("get", "pod", runtime_id, "--ignore-not-found", "-o", "jsonpath={.status.phase}")
        return self.kubectl(*phase).strip() not in ("", "Succeeded", "Failed")

    def signal_supervisor(self, runtime_id: str, number: int) -> None:
        if self.cluster.layout is None:
            pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
        [pid] = [p for p in processes_of(runtime_id) if b"spawner.container.supervisor" in command_of(p)]
        os.kill(pid, number)

    def leftovers(self) -> list[str]:
        return sorted(self.names("pods") & set(self.started) - self.not_ours)

    @contextlib.contextmanager
    def drives(self, folder: Path) -> Iterator[Drive]:
        if self.cluster.layout is None:
            pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
        folder.mkdir()
        node = DriveNode(self.cluster, self.namespace, folder, installation=self.installation.name)
        node.start()
        try:
            self.installation = replace(self.installation, drives="csi", drive_driver=node.driver)
            self.backend = self.another()
            drive = node.root / "drive" / ADA
            (drive / "notes.txt").write_text("of ada")
            os.chown(drive / "notes.txt", USER, USER)
            yield Drive(f"{drive}", "/x/drive/..", drive)
            for runtime_id in self.started:
                self.kubectl("delete", "pod", runtime_id, "--ignore-not-found", "--grace-period=1")
            node.wait_gone()
        finally:
            node.stop()
            node.remove()

    def settle(self, **changes: Any) -> None:
        """Go on with other settings."""
        self.backend = self.another(**changes)
        self.installation = replace(self.installation, **changes)

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, text=given)

    def get(self, what: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", what, "-o", "json"))["items"]
        return items

    def names(self, what: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.get(what)}


@contextlib.contextmanager
def runtimes_namespace(cluster: Cluster) -> Iterator[str]:
    """Make a namespace for runtimes, with the account they run as."""
    with cluster.namespace("kube") as namespace:
        cluster.kubectl("-n", namespace, "create", "serviceaccount", "runtime")
        yield namespace


def make_backend(
    kubeconfig: Path, installation: Installation, folder: Path, read_seconds: float = READ_SECONDS
) -> KubernetesBackend:
    api = connect(kubeconfig, read_seconds=read_seconds)
    return KubernetesBackend(api, installation, lambda i: supervisor_key(MASTER, i), Ended(folder))


@contextlib.asynccontextmanager
async def make_bench(cluster: Cluster, namespace: str | None = None, **changes: Any) -> AsyncIterator[Bench]:
    """Yield a backend of an installation of its own; whatever a test leaves is ended and must leave nothing.

    It has a namespace of its own too, unless it is given one, which saves seconds.
    """
    place = runtimes_namespace(cluster) if namespace is None else contextlib.nullcontext(namespace)
    name = "test" if namespace is None else f"test-{secrets.token_hex(4)}"
    with place as namespace, tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"drives": "none", "cpu_share": 0.1, "memory_share": 0.5, **changes}
        installation = Installation(namespace, name, IMAGE, **settings)
        backend = make_backend(cluster.kubeconfig, installation, Path(folder))
        bench = Bench(cluster, installation, backend, Path(folder), backends=[backend])
        try:
            yield bench
            last = bench.another()
            for runtime_id in bench.started:
                await last.stop(runtime_id, reason=STOPPED, grace_seconds=0.0)
            assert bench.leftovers() == [], "a runtime that was stopped has a pod"
        finally:
            for made in bench.backends:
                made.close()
