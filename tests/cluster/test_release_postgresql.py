"""The chart as real people use it: PostgreSQL, secrets of the administrator's, network policies that are enforced.

Control acts in one pod and stands by in another. What the administrator types is taken from docs/kubernetes.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import yaml

from cluster.harness.cluster import Cluster
from cluster.harness.images import BUSYBOX
from support.pages import KUBERNETES, block_with
from support.patience import until
from tests.cluster.admin_shell import AdminShell, documented
from tests.cluster.enforce import Enforcer, enforced
from tests.cluster.postgresql_pod import Server, postgresql_pod
from tests.cluster.release_support import RUNTIMES, LongCell, Release, installed

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

HOST, PASSWORD = "db.example.org", "a password that is long enough"


@dataclass(frozen=True)
class Site:
    """A release and the server its databases are on."""

    release: Release
    server: Server
    shell: AdminShell
    enforcer: Enforcer

    def acting(self) -> tuple[int, str]:
        """Return the epoch, and the pod of control that acts."""
        said = self.server.psql("SELECT epoch, holder FROM quota_epoch", database="control")
        epoch, holder = said.split("|")
        pods = {
            self.release.kubectl("get", pod, "-o", "jsonpath={.status.podIP}"): pod
            for pod in self.release.pods_of("control")
        }
        address = holder.rpartition(" at ")[2].rpartition(":")[0]
        return int(epoch), pods.get(address, "")


@pytest.fixture(scope="module")
def site(own_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with (
        enforced(own_cluster) as enforcer,
        own_cluster.namespace("site", restricted=False) as namespace,
        own_cluster.namespace("database", restricted=False) as elsewhere,
        postgresql_pod(own_cluster, elsewhere, folder / "keys") as server,
    ):
        own_cluster.apply(server.authority_secret(namespace, "postgresql-ca"))
        server.psql(block_with(KUBERNETES, "sql", "CREATE ROLE").replace("'…'", f"'{PASSWORD}'"))
        shell = AdminShell(own_cluster, namespace, tmp_path_factory.mktemp("secrets"))
        secret = documented("kubectl --namespace minicolab create secret generic minicolab-postgresql")
        shell.run(secret.replace(HOST, server.host).replace("PASSWORD", PASSWORD))
        shell.run(*block_with(KUBERNETES, "sh", "/dev/urandom").splitlines())
        values = yaml.safe_load(block_with(KUBERNETES, "yaml", "authoritySecret").replace(HOST, server.host))
        values["secrets"] = {"existingSecret": "my-secrets"}
        with installed(own_cluster, folder, namespace, values) as release:
            yield Site(release, server, shell, enforcer)


@contextmanager
def listening(cluster: Cluster, address: str, port: int) -> Iterator[None]:
    """Let the node itself answer at an address that is nobody's here."""
    cluster.node_command("ip", "address", "add", f"{address}/32", "dev", "lo")
    server = subprocess.Popen(
        [*cluster.enter, sys.executable, "-m", "http.server", str(port), "--bind", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        connects = ("busybox", "nc", "-w", "1", address, str(port), "-e", "/bin/true")
        until(lambda: cluster.node_command(*connects, check=False).returncode == 0, f"{address} is silent")
        yield
    finally:
        server.kill()
        server.wait()
        cluster.node_command("ip", "address", "delete", f"{address}/32", "dev", "lo")


def test_helm_test_finds_every_service(site: Site) -> None:
    assert "Phase:          Succeeded" in site.shell.run(documented("helm test"))


def test_nothing_but_the_administrators_secrets_is_used(site: Site) -> None:
    release = site.release
    assert release.kubectl("get", "secret", "minicolab-secrets", "--ignore-not-found") == ""
    settings = release.kubectl("get", "configmap", "minicolab-settings", "-o", "yaml")
    assert site.server.host in settings
    assert PASSWORD not in settings


def full_name(image: str) -> str:
    """Return an image's name as containerd keeps it."""
    return image if image.startswith("docker.io/") else f"docker.io/{image}"


METADATA, INTERNET = "169.254.169.254", "198.51.100.9"
REACHES = """
import json, socket
def reaches(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
        return True
    except OSError:
        return False
print(json.dumps([name for name, at in TARGETS.items() if reaches(*at)]))
"""


def test_enforced_policies_let_a_runtime_reach_what_it_may_and_nothing_else(site: Site) -> None:
    release, cluster = site.release, site.release.cluster
    assert cluster.layout is not None
    own, other = release.start_runtime(), release.start_runtime()

    def service(name: str, namespace: str = release.namespace) -> str:
        return cluster.kubectl("-n", namespace, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")

    neighbour, node = release.of_pod(other, "{.status.podIP}"), release.of_pod(own, "{.status.hostIP}")
    targets = {
        "control": (service("minicolab-control"), 8083),
        "dns": (service("kube-dns", "kube-system"), 53),
        "internet": (INTERNET, 80),
        "hub": (service("minicolab-hub"), 8081),
        "documents": (service("minicolab-documents"), 8082),
        "proxy": (service("minicolab-proxy-public"), 80),
        "proxy's own": (service("minicolab-proxy-api"), 8001),
        "database": (site.server.address, 5432),
        "api server": (service("kubernetes", "default"), 443),
        "api server's node": (node, 6443),
        "kubelet": (node, 10250),
        "metadata": (METADATA, 80),
        "neighbour": (neighbour, 8888),
        "neighbour's supervisor": (neighbour, 8889),
    }
    with (
        listening(cluster, METADATA, 80),
        listening(cluster, INTERNET, 80),
        cluster.namespace("stranger", restricted=False) as strange,
    ):
        spec = {"containers": [{"name": "sh", "image": BUSYBOX, "command": ["sleep", "3600"]}]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "sh", "namespace": strange},
            "spec": spec,
        }
        cluster.apply(pod)
        cluster.wait(strange, "pod/sh", "condition=Ready")
        until(lambda: {"sh", own, other} <= set(site.enforcer.ends), "the rules are behind")
        connect = "nc -w 5 $0 $1 -e /bin/true 2>/dev/null && echo yes || echo no"
        reached = {
            name
            for name, (host, port) in targets.items()
            if cluster.kubectl(
                "-n", strange, "exec", "sh", "--", "sh", "-c", connect, host, str(port)
            ).strip()
            == "yes"
        }
        # Whoever no policy selects gets everywhere but to the release: so everything does listen.
        open_to_all = {
            "dns",
            "internet",
            "proxy",
            "database",
            "api server",
            "api server's node",
            "kubelet",
            "metadata",
        }
        assert reached == open_to_all
        said = release.run(own, f"TARGETS = {targets}\n{REACHES}")
        assert set(json.loads(said)) == {"control", "dns", "internet"}
        looked_up = release.run(own, "import socket; print(socket.gethostbyname('kubernetes.default.svc'))")
        assert looked_up.strip() == targets["api server"][0]
    for runtime in (own, other):
        release.end(runtime)


def test_when_the_acting_control_dies_the_other_takes_over_and_a_cell_does_not_notice(site: Site) -> None:
    release = site.release
    there = release.sessions()
    runtime = release.start_runtime()
    pod, cell = release.pod(runtime), LongCell(release, runtime)
    (epoch, acting), before = site.acting(), release.pods_of("control")
    assert len(before) == 2
    assert acting in before
    release.kill(acting)
    until(lambda: site.acting()[0] > epoch, "nobody took over")
    assert {site.acting()[1]} == before - {acting}, "the one that stood by has taken over"
    release.wait()
    assert release.sessions() == {*there, runtime}
    assert release.state(runtime) == "ready"
    assert release.pod(runtime) == pod
    assert cell.running
    release.kubectl("rollout", "status", "deployment/minicolab-control", "--timeout=300s")
    assert len(release.pods_of("control")) == 2
    another = release.start_runtime()  # by the one that acts now
    assert release.sessions() == {*there, runtime, another}
    cell.end()
    assert not cell.dropped.is_set(), "the connection did not go through control"
    release.end(another)
    release.end(runtime)
    until(lambda: release.sessions() == there)


def test_upgrading_to_other_images_and_back_leaves_a_cell_and_its_drive_alone(site: Site) -> None:
    release, cluster = site.release, site.release.cluster
    assert cluster.layout is not None
    values = yaml.safe_load(release.values.read_text())
    hub, runtime_image = values["images"]["hub"], values["config"]["runtimes"]["kubernetes"]["image"]
    next_hub, next_runtime = f"{hub['repository']}:next", runtime_image.rpartition(":")[0] + ":next"
    for old, new in ((f"{hub['repository']}:{hub['tag']}", next_hub), (runtime_image, next_runtime)):
        ctr = ("ctr", "-a", str(cluster.layout.containerd), "-n", "k8s.io")
        cluster.node_command(*ctr, "images", "tag", "--force", full_name(old), full_name(new))

    def images() -> set[str]:
        path = "jsonpath={.items[*].spec.containers[*].image}"
        which = "app.kubernetes.io/part-of=minicolab,app.kubernetes.io/component in (hub,proxy,documents,control,drive-plugin)"
        return set(release.kubectl("get", "pods", "-l", which, "-o", path).split())

    there = release.sessions()
    runtime = release.start_runtime()
    assert release.api("POST", f"{RUNTIMES}/{runtime}/mounts", json={}).status_code == 201
    pod, cell = release.pod(runtime), LongCell(release, runtime)
    release.upgrade(
        "--set", "images.hub.tag=next", "--set", f"config.runtimes.kubernetes.image={next_runtime}"
    )
    release.connect()
    release.wait()
    until(lambda: images() == {next_hub}, "not every service has the new image")
    assert cell.running
    assert release.of_pod(runtime, "{.spec.containers[0].image}") == runtime_image
    newer = release.start_runtime()
    assert release.of_pod(newer, "{.spec.containers[0].image}") == next_runtime
    write = "print(open('/content/drive/MyDrive/{}', 'w').write('hello'))"
    assert release.run(runtime, write.format("between.txt")).strip() == "5"

    site.shell.run(documented("helm rollback"))
    release.connect()
    release.wait()
    until(lambda: images() == {f"{hub['repository']}:{hub['tag']}"}, "not every service is rolled back")
    assert cell.running
    assert release.run(runtime, write.format("after.txt")).strip() == "5"
    assert release.run(newer, "print('still here')").strip() == "still here"
    cell.end()
    assert (release.pod(runtime), release.sessions()) == (pod, {*there, runtime, newer})
    last = release.start_runtime()
    assert release.of_pod(last, "{.spec.containers[0].image}") == runtime_image
    for each in (runtime, newer, last):
        release.end(each)
    until(lambda: release.sessions() == there)
