"""The two sides of the comparison on containers: a Docker engine or a cluster of our own, and what each side needs on it.

The plain side is what an administrator gets who follows the spawner's documentation: JupyterHub 6.1 with DockerSpawner or KubeSpawner,
a single-user image, no limits, packages of the versions of our `minimal` runtime. The image is `bare`, with nothing but the server and
a kernel, or `lab`, with JupyterLab besides, as in the image that the spawners start when nobody says another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers import Minicolab, PlainHub

from hub.settings import cache_folder
from hub.setup.images import image_called
from hub.setup.runtime_environment import ROOT
from support import docker_engine
from support.archives import image_archives
from support.docker_engine import MACHINE_SIDE, Engine

PEER_PACKAGES = ("jupyterhub==6.1.1", "dockerspawner==14.0.0", "jupyterhub-kubespawner==7.1.0")
PLAIN_IMAGE = "docker.io/local/bench-singleuser:{kind}"
PLAIN_NETWORK = "bench-plain"
SINGLE_USER = {
    "bare": ("jupyterhub==6.1.1", "jupyter_server", "ipykernel"),
    "lab": ("jupyterhub==6.1.1", "jupyter_server", "ipykernel", "jupyterlab==4.6.6"),
}
PLAIN_DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv \\
 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 --create-home --shell /bin/bash jovyan
COPY requirements.txt constraints.txt /opt/
RUN python3 -m venv /opt/venv \\
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check -r /opt/requirements.txt -c /opt/constraints.txt
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/home/jovyan LANG=C.UTF-8
USER 1000:1000
WORKDIR /home/jovyan
EXPOSE 8888
CMD ["jupyterhub-singleuser"]
"""
DOCKER_SPAWNER = """
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = "{image}"
c.DockerSpawner.network_name = "{network}"
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
"""
KUBE_SPAWNER = """
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = "{namespace}"
c.KubeSpawner.image = "{image}"
c.KubeSpawner.uid = 1000
c.KubeSpawner.pod_security_context = {{"runAsNonRoot": True, "seccompProfile": {{"type": "RuntimeDefault"}}}}
c.KubeSpawner.container_security_context = {{"capabilities": {{"drop": ["ALL"]}}}}
"""
# The default shape is two cores and 12 GiB; these are limits, and of what is reserved ten must fit on one small node.
ON_DOCKER = """
quota: {{max_runtimes: 100}}
runtimes:
  backend: docker
  environment: minimal
  docker: {{url: "{url}", pull: false}}
"""
ON_KUBERNETES = """
quota: {{max_runtimes: 100}}
runtimes:
  backend: kubernetes
  environment: minimal
  kubernetes:
    namespace: {namespace}
    installation: bench
    image: {image}
    drives: none
    kubeconfig: {kubeconfig}
    cpu_share: 0.01
    memory_share: 0.01
"""


@dataclass(frozen=True)
class Sides:
    """Both peers, not started yet."""

    plain: PlainHub
    ours: Minicolab


def peer_programs() -> Path:
    """Return the `bin` of an environment with the plain hub and its spawners; it is made once, in the cache."""
    key = hashlib.sha256(json.dumps([sys.version, *PEER_PACKAGES]).encode()).hexdigest()[:12]
    folder = cache_folder() / "bench" / f"peers-{key}"
    done = folder / ".complete"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *PEER_PACKAGES]
        subprocess.run(command, check=True)
        done.touch()
    return folder / "bin"


def build_plain_image(engine: Engine, kind: str) -> str:
    """Build a single-user image on `engine`; return its name."""
    name = PLAIN_IMAGE.format(kind=kind)
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        (context / "Dockerfile").write_text(PLAIN_DOCKERFILE)
        (context / "requirements.txt").write_text("\n".join(SINGLE_USER[kind]) + "\n")
        (context / "constraints.txt").write_text(_constraints())
        base = docker_engine.base_image(engine)
        engine.docker("build", "-t", name, "--build-arg", f"BASE_IMAGE={base}", str(context))
    return name


def _constraints() -> str:
    return (ROOT / "images" / "runtime" / "constraints" / "minimal.txt").read_text("utf-8")


def _plain_archive(kind: str) -> Path:
    """Return a single-user image as an archive, kept in the cache."""
    made_of = json.dumps([PLAIN_DOCKERFILE, *SINGLE_USER[kind], _constraints()])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    archive = cache_folder() / "bench" / f"singleuser-{kind}-{key}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with docker_engine.engine() as engine:
            draft = archive.with_suffix(".draft")
            engine.docker("save", "-o", str(draft), build_plain_image(engine, kind))
            draft.replace(archive)
    return archive


@contextmanager
def on_docker(scratch: Path, kind: str) -> Iterator[Sides]:
    """Run an engine while inside, and yield the two sides on it."""
    if why_not := docker_engine.missing():
        sys.exit(why_not)
    with docker_engine.engine() as engine:
        docker_engine.build_image(engine, "minimal")
        plain = build_plain_image(engine, kind)
        engine.docker("network", "create", PLAIN_NETWORK)
        yield Sides(
            PlainHub(
                scratch / "plain",
                spawner=DOCKER_SPAWNER.format(image=plain, network=PLAIN_NETWORK),
                programs=peer_programs(),
                hub_address=MACHINE_SIDE,
                environment={"DOCKER_HOST": engine.url},
            ),
            Minicolab(scratch / "minicolab", ON_DOCKER.format(url=engine.url)),
        )


@contextmanager
def on_kubernetes(scratch: Path, kind: str) -> Iterator[Sides]:
    """Run a cluster while inside, and yield the two sides, each with a namespace of its own."""
    from cluster.harness import lifecycle

    archives = (image_archives(["minimal"])["minimal"], _plain_archive(kind))
    state = scratch / "cluster"
    with contextlib.ExitStack() as stack:
        stack.callback(lifecycle.down, state)
        cluster = lifecycle.up(state)
        for archive in archives:
            cluster.import_image(archive)
        theirs = stack.enter_context(cluster.namespace("plain"))
        our_own = stack.enter_context(cluster.namespace("ours"))
        cluster.kubectl("-n", our_own, "create", "serviceaccount", "runtime")
        image = image_called("minimal").tag
        yield Sides(
            PlainHub(
                scratch / "plain",
                spawner=KUBE_SPAWNER.format(namespace=theirs, image=PLAIN_IMAGE.format(kind=kind)),
                programs=peer_programs(),
                hub_address=cluster.machine_address,
                environment={"KUBECONFIG": str(cluster.kubeconfig)},
            ),
            Minicolab(
                scratch / "minicolab",
                ON_KUBERNETES.format(namespace=our_own, image=image, kubeconfig=cluster.kubeconfig),
            ),
        )


def prepare(kind: str) -> None:
    """Build what is kept: the peers' environment, the images, and their archives for a cluster."""
    peer_programs()
    image_archives(["minimal"])
    _plain_archive(kind)
