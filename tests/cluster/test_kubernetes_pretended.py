"""On nodes that are only objects: TPUs this machine has not, and more pods than it could run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from cluster.harness.cluster import Cluster
from cluster.harness.fault_proxy import FaultProxy, Rule, answer, cut, drop_reply, gone, hang, stale
from cluster.harness.pretended import TAINT, TPU_LABELS, node
from cluster.harness.stand_in import answering
from gpu_scheduler import model
from gpu_scheduler.kube import KubeInventory
from gpu_scheduler.memory import MemoryClaims
from gpu_scheduler.queue import ClaimQueue
from hub.control.claims import node_of
from spawner.kubernetes import pods
from spawner.kubernetes.backend import KubernetesBackend
from spawner.kubernetes.model import PodFlavor
from spawner.model import Phase, RuntimeSpec
from spawner.ports import BackendError
from support.patience import PATIENCE, until_async
from tests.cluster.kubernetes_support import STOPPED, Bench, make_bench

pytestmark = pytest.mark.cluster

TOLERATIONS = ({"key": TAINT["key"], "operator": "Exists", "effect": TAINT["effect"]},)


@contextlib.asynccontextmanager
async def pretended_bench(cluster: Cluster, nodes: int) -> AsyncIterator[Bench]:
    """Yield a bench whose pods go to nodes of its own that are not real, with TPUs of GKE's kind."""
    mark = f"kube-{secrets.token_hex(3)}"
    names = [f"{mark}-{n}" for n in range(nodes)]
    labels = {**TPU_LABELS, "minicolab-test": mark}
    cluster.apply(*(node(name, {"google.com/tpu": "8"}, labels) for name in names))
    flavor = PodFlavor("google.com/tpu", 8, {"cloud.google.com/gke-tpu-topology": "2x4"})
    try:
        async with make_bench(
            cluster,
            node_selector={"minicolab-test": mark},
            tolerations=TOLERATIONS,
            flavors={"V5E8": flavor},
            cpu_share=0.01,
            memory_share=0.01,
            start_seconds=3 * PATIENCE,
        ) as bench:
            yield bench
    finally:
        cluster.kubectl("delete", "node", *names, "--wait=false")


@pytest.fixture
async def pretended(cluster: Cluster) -> AsyncIterator[Bench]:
    async with pretended_bench(cluster, 2) as bench:
        yield bench


async def test_a_tpu_is_granted_and_its_pod_goes_to_the_node_of_the_lease(pretended: Bench) -> None:
    mark = pretended.installation.node_selector["minicolab-test"]
    flavor = model.Flavor("V5E8", "TPU v5e", "google.com/tpu", 8, {"minicolab-test": mark})
    inventory = KubeInventory(pretended.backend.nodes)
    queue = ClaimQueue(MemoryClaims(), inventory, {"V5E8": flavor}, model.ClaimLimits())
    assert inventory.nodes().reason is not None, "nobody has looked yet"
    await until_async(lambda: sum(n.usable for n in inventory.nodes().nodes if mark in n.name) == 2)
    for number in range(3):
        queue.ask(f"r-{number}", "ada", (), "V5E8")
    first, second = queue.admit()
    assert {node_of(first), node_of(second)} == {f"{mark}-0", f"{mark}-1"}
    waiting = queue.waiting("r-2")
    assert waiting is not None
    assert waiting.reason == "All 16 are in use."

    spec = pretended.spec(accelerator="V5E8")
    told: list[tuple[Phase, str]] = []

    def tell(phase: Phase, sentence: str = "") -> None:
        told.append((phase, sentence))

    await pretended.backend._create(spec, "{}", tell)
    placed = asyncio.create_task(pretended.backend._until_placed(spec.id, tell))
    await until_async(lambda: (Phase.QUEUED, "Waiting for an accelerator") in told)
    assert await pretended.backend.gates.holds_accelerator(spec.id)
    assert await pretended.backend.gates.open_gate(spec.id, node=node_of(second))
    assert await pretended.backend.gates.open_gate(spec.id, node=node_of(second)), "again is no error"
    await asyncio.wait_for(placed, PATIENCE)
    (pod,) = pretended.get("pods")
    assert pod["spec"]["nodeName"] == node_of(second)
    await pretended.backend._remove(spec.id)
    assert not await pretended.backend.gates.holds_accelerator(spec.id)
    assert not await pretended.backend.gates.open_gate(spec.id, node=None)


# -- many, through a bad API server ---------------------------------------------------------------------------------

FAULTS = {
    "500": lambda: Rule(answer(500), watch=False, every=11),
    "429": lambda: Rule(answer(429, after=1), every=17, watch=False),
    "hang": lambda: Rule(hang(), watch=False, skip=40, every=150),
    "made, and nobody told": lambda: Rule(drop_reply(), method="POST", every=7),
    "deleted, and nobody told": lambda: Rule(drop_reply(), method="DELETE", every=5),
    "an old list": lambda: Rule(stale(), method="GET", path=r"/pods$", watch=False, every=2),
    # The watch of the pods breaks, and the next one finds its version too old, which makes the second list; and so on.
    "an old version": lambda: Rule(gone(), watch=True, path=r"/pods$", every=2),
    "a watch that breaks": lambda: Rule(cut(after=200_000), watch=True, path=r"/pods$"),
    "an old version of something else": lambda: Rule(gone(), watch=True, path=r"/(nodes|events)$", every=2),
}


@dataclass
class Many:
    """What became of many starts."""

    bench: Bench
    backend: KubernetesBackend
    queue: ClaimQueue
    at_once: asyncio.Semaphore
    ready: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # id → code

    async def start(self, spec: RuntimeSpec) -> None:
        async with self.at_once:
            try:
                await self.backend.start(spec, lambda _phase, _sentence="": None)
            except BackendError as error:
                assert str(error), "a refusal without words"
                self.refused[spec.id] = error.code
            else:
                self.ready.append(spec.id)

    async def stop(self, runtime_id: str) -> None:
        async with self.at_once:
            await self.backend.stop(runtime_id, reason=STOPPED, grace_seconds=1.0)

    async def one_after_the_other(self, spec: RuntimeSpec) -> None:
        """Wait for an accelerator, start, end and give it back."""
        self.queue.ask(spec.id, spec.user, (), spec.accelerator)
        while not self._granted(spec.id):  # those before take their time: as long as the test has
            await asyncio.sleep(0.2)
        starting = asyncio.create_task(self.start(spec))
        while not starting.done():
            with contextlib.suppress(BackendError):
                await self.backend.gates.open_gate(spec.id, node=None)
            await asyncio.wait({starting}, timeout=0.2)
        await self.stop(spec.id)
        while await self.backend.gates.holds_accelerator(spec.id):
            await asyncio.sleep(0.1)
        self.queue.end(spec.id)

    def _granted(self, runtime_id: str) -> bool:
        self.queue.admit()
        claim = self.queue.get(runtime_id)
        return claim is not None and claim.state is model.ClaimState.GRANTED


@pytest.mark.parametrize(
    ("count", "nodes"),
    [
        (60, 2),
        pytest.param(1000, 12, marks=[pytest.mark.scale, pytest.mark.timeout(1500)]),
    ],
)
async def test_many_starts_and_stops_through_a_bad_api_server_leak_nothing_and_touch_nothing_else(
    own_cluster: Cluster, count: int, nodes: int
) -> None:
    with answering(own_cluster), FaultProxy(own_cluster.kubeconfig) as proxy:
        async with pretended_bench(own_cluster, nodes) as bench:
            await start_and_stop_many(bench, proxy, count)


async def start_and_stop_many(bench: Bench, proxy: FaultProxy, count: int) -> None:
    # Somebody else's pods have some of the names; nothing may happen to them.
    specs = [bench.spec(user=f"u{n}", accelerator="NONE" if n % 10 else "V5E8") for n in range(count)]
    taken = {spec.id for spec in specs[1 : count // 2 : count // 6]}
    strangers = [pods.pod(replace(spec, accelerator="NONE"), bench.installation, start="s") for spec in specs]
    strangers = [pod for pod in strangers if pod["metadata"]["name"] in taken]
    for pod in strangers:
        pod["metadata"]["labels"] = {"app": "of-somebody-else"}
    bench.kubectl(
        "create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": strangers})
    )
    bench.not_ours |= taken
    await until_async(lambda: {p["status"]["phase"] for p in bench.get("pods")} == {"Running"})
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in bench.get("pods")}

    rules = {name: proxy.add(rule()) for name, rule in FAULTS.items()}
    backend = bench.another(proxy.kubeconfig, read_seconds=5.0)
    mark = bench.installation.node_selector["minicolab-test"]
    flavor = model.Flavor("V5E8", "TPU v5e", "google.com/tpu", 8, {"minicolab-test": mark})
    inventory = KubeInventory(backend.nodes)
    await until_async(lambda: inventory.nodes().reason is None)
    queue = ClaimQueue(MemoryClaims(), inventory, {"V5E8": flavor}, model.ClaimLimits())
    many = Many(bench, backend, queue, asyncio.Semaphore(64))

    plain = [spec for spec in specs if spec.accelerator == "NONE"]
    in_turn = [many.one_after_the_other(spec) for spec in specs if spec.accelerator != "NONE"]
    await asyncio.gather(*map(many.start, plain), *in_turn)
    assert {i for i, code in many.refused.items() if code == "name_taken"} == taken
    true_reasons = {"name_taken", "cluster_unavailable", "start_timeout"}
    assert set(many.refused.values()) <= true_reasons
    assert len(many.ready) >= 0.99 * (count - len(taken)), many.refused
    living = {spec.id for spec in plain} & set(many.ready)
    assert {o.id for o in await backend.list_all()} == living
    assert bench.names("pods") == living | taken
    assert living == bench.names("secrets"), "a secret without its pod, or a pod without its secret"

    await asyncio.gather(*map(many.stop, living))
    assert await backend.list_all() == []
    assert queue.live() == [], "a claim outlived its runtime"
    backend.close()
    await until_async(lambda: not proxy.open, "a connection, such as a watch, was left open")
    after = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in bench.get("pods")}
    assert after == before, "something of ours is left, or something of somebody else's is not"
    assert all(pod["metadata"]["labels"] == {"app": "of-somebody-else"} for pod in bench.get("pods"))
    await until_async(lambda: bench.names("secrets") == set(), "a secret outlived its pod")
    changed = {
        target.rpartition("/")[2] for method, target in proxy.requests if method in ("DELETE", "PATCH")
    }
    assert not changed & taken, "somebody else's pod was to be changed"
    assert all(rule.hits for rule in rules.values()), {name: rule.hits for name, rule in rules.items()}
