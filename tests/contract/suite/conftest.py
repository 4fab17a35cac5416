"""The machines the contract runs on: every rung of the local backend, a real Docker engine, a real cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.harness.cluster import Cluster
from spawner.environment import RuntimeEnvironment
from tests.cluster import kubernetes_support
from tests.contract import contract_support
from tests.contract.suite.harness import Bench, Drive
from tests.docker import docker_support

DOCKER = pytest.param("docker", marks=pytest.mark.docker)
KUBERNETES = pytest.param("kubernetes", marks=pytest.mark.cluster)


@pytest.fixture(scope="session")
def namespace(cluster: Cluster) -> Iterator[str]:
    """One for all tests on a cluster: each has an installation of its own in it."""
    kubernetes_support.have_runtime_image(cluster)
    with kubernetes_support.runtimes_namespace(cluster) as namespace:
        yield namespace


@pytest.fixture(params=[*contract_support.RUNGS, DOCKER, KUBERNETES])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A backend with nothing in it; whatever a test leaves is ended and must leave nothing."""
    match request.param:
        case "docker":
            engine = request.getfixturevalue("engine")
            async with docker_support.make_bench(tmp_path, engine) as docker:
                yield docker
        case "kubernetes":
            cluster = request.getfixturevalue("cluster")
            namespace = request.getfixturevalue("namespace")
            async with kubernetes_support.make_bench(cluster, namespace) as kubernetes:
                yield kubernetes
        case rung:
            env: RuntimeEnvironment = request.getfixturevalue("env")
            async with contract_support.make_bench(tmp_path, env, rung) as local:
                yield local


@pytest.fixture
def drive(bench: Bench, tmp_path: Path) -> Iterator[Drive]:
    """A drive with a file `notes.txt`, where runtimes that are started from now on can be given it."""
    with bench.drives(tmp_path / "drives") as drive:
        yield drive
