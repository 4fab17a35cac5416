"""Runtimes on a real cluster: a namespace of their own that enforces Pod Security, a backend, looks at what is really there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from quota.ticket import mint, runtime_key, supervisor_key
from spawner.kubernetes.backend import KubernetesBackend
from spawner.kubernetes.client import connect
from spawner.kubernetes.model import Installation
from spawner.model import Endpoint, EndReason, Phase, RuntimeSpec, Shape
from support.kernel import run_cell
from support.patience import PATIENCE

MASTER = b"m" * 32
IMAGE = "docker.io/local/minicolab-runtime:minimal"
STOPPED = EndReason("user_deleted", "The runtime was ended by its user.")
SMALL = Shape("SMALL", 512 << 20, 0.5, 200)


def kubeconfig_or_skip() -> Path:
    """Return the cluster the tests may use."""
    named = os.environ.get("MINICOLAB_KUBECONFIG")
    if not named:
        pytest.skip("no cluster: MINICOLAB_KUBECONFIG is not set")
    return Path(named)


def kubectl(kubeconfig: Path, *arguments: str, given: str = "") -> str:
    program = shutil.which("kubectl") or "/var/cache/minicolab-cluster/bin/kubectl"
    done = subprocess.run(
        [program, "--kubeconfig", str(kubeconfig), *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Runtime:
    """A started runtime."""

    spec: RuntimeSpec
    endpoint: Endpoint
    told: list[tuple[Phase, str]]

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def url(self) -> str:
        return self.endpoint.url + self.spec.base_url

    def ticket(self) -> str:
        return mint(self.spec.ticket_key, self.id, self.spec.user, int(time.time()) + 600, "n")

    async def run(self, code: str) -> str:
        """Run a cell on a new kernel and return what it printed."""
        return await asyncio.to_thread(run_cell, self.url, self.ticket(), code)


@dataclass
class Bench:
    """A backend on a real cluster."""

    kubeconfig: Path
    installation: Installation
    backend: KubernetesBackend
    started: list[str] = field(default_factory=list)
    backends: list[KubernetesBackend] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.installation.namespace

    def spec(self, user: str = "ada", **changes: Any) -> RuntimeSpec:
        runtime_id = "r-" + base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
        runtime_id = changes.pop("id", runtime_id)
        self.started.append(runtime_id)
        spec = RuntimeSpec(
            id=runtime_id,
            user=user,
            file_id="f-1",
            base_url=f"/user/{user}/{runtime_id}/",
            shape=SMALL,
            accelerator="NONE",
            devices=(),
            max_lifetime_seconds=600.0,
            idle_limit_seconds=300.0,
            ticket_key=runtime_key(MASTER, runtime_id),
            allow_origin="http://localhost:1",
            control_url="http://127.0.0.1:1/",
            public_control_url="http://localhost:1/services/control/",
        )
        return replace(spec, **changes)

    async def start(self, user: str = "ada", **changes: Any) -> Runtime:
        return await self.start_spec(self.spec(user, **changes))

    async def start_spec(self, spec: RuntimeSpec) -> Runtime:
        told: list[tuple[Phase, str]] = []
        endpoint = await self.backend.start(spec, lambda phase, sentence="": told.append((phase, sentence)))
        return Runtime(spec, endpoint, told)

    def another(self, **changes: Any) -> KubernetesBackend:
        """Return a backend as another process, or the hub after a restart, would make it."""
        backend = make_backend(self.kubeconfig, replace(self.installation, **changes))
        self.backends.append(backend)
        return backend

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return kubectl(self.kubeconfig, "-n", self.namespace, *arguments, given=given)

    def get(self, what: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", what, "-o", "json"))["items"]
        return items

    def names(self, what: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.get(what)}


def make_backend(kubeconfig: Path, installation: Installation) -> KubernetesBackend:
    return KubernetesBackend(connect(kubeconfig), installation, lambda i: supervisor_key(MASTER, i))


@contextlib.asynccontextmanager
async def make_bench(kubeconfig: Path, **changes: Any) -> AsyncIterator[Bench]:
    """Yield a backend with a namespace of its own; whatever a test leaves is ended and must leave nothing."""
    namespace = f"mc-{secrets.token_hex(4)}"
    kubectl(kubeconfig, "create", "namespace", namespace)
    kubectl(kubeconfig, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    kubectl(kubeconfig, "-n", namespace, "create", "serviceaccount", "runtime")
    settings: dict[str, Any] = {"drives": "none", "cpu_share": 0.1, "memory_share": 0.5, **changes}
    installation = Installation(namespace, "test", IMAGE, **settings)
    backend = make_backend(kubeconfig, installation)
    bench = Bench(kubeconfig, installation, backend, backends=[backend])
    try:
        yield bench
        for runtime_id in bench.started:
            await bench.backend.stop(runtime_id, reason=STOPPED, grace_seconds=0.0)
        left = bench.names("pods") & set(bench.started)
        assert left == set(), "a runtime that was stopped has a pod"
    finally:
        for made in bench.backends:
            made.close()
        kubectl(kubeconfig, "delete", "namespace", namespace, "--wait=false")
