"""On nodes that are only objects: TPUs this machine has not, and more pods than it could run."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator

import pytest

from cluster.harness.cluster import Cluster
from cluster.harness.fault_proxy import FaultProxy, Rule, answer, drop_reply
from cluster.harness.pretended import TAINT, TPU_LABELS, node
from gpu_scheduler import model
from gpu_scheduler.kube import KubeInventory
from gpu_scheduler.memory import MemoryClaims
from gpu_scheduler.queue import ClaimQueue
from hub.control.claims import node_of
from spawner.kubernetes import pods
from spawner.kubernetes.model import Flavor
from spawner.model import Phase
from support.patience import PATIENCE, until_async
from tests.cluster.kubernetes_support import Bench, make_bench

pytestmark = pytest.mark.cluster

AT_ONCE = 60
TOLERATIONS = ({"key": TAINT["key"], "operator": "Exists", "effect": TAINT["effect"]},)


@pytest.fixture
async def pretended(cluster: Cluster) -> AsyncIterator[Bench]:
    """A bench whose pods go to two nodes of its own that are not real, with TPUs of GKE's kind."""
    mark = f"kube-{secrets.token_hex(3)}"
    names = [f"{mark}-{n}" for n in range(2)]
    labels = {**TPU_LABELS, "minicolab-test": mark}
    cluster.apply(*(node(name, {"google.com/tpu": "8"}, labels) for name in names))
    flavor = Flavor("google.com/tpu", 8, {"cloud.google.com/gke-tpu-topology": "2x4"})
    try:
        async with make_bench(
            cluster,
            node_selector={"minicolab-test": mark},
            tolerations=TOLERATIONS,
            flavors={"V5E8": flavor},
            cpu_share=0.01,
            memory_share=0.01,
            start_seconds=PATIENCE,
        ) as bench:
            yield bench
    finally:
        cluster.kubectl("delete", "node", *names, "--wait=false")


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
    assert await pretended.backend.holds_accelerator(spec.id)
    assert await pretended.backend.open_gate(spec.id, node=node_of(second))
    assert await pretended.backend.open_gate(spec.id, node=node_of(second)), "again is no error"
    await asyncio.wait_for(placed, PATIENCE)
    (pod,) = pretended.get("pods")
    assert pod["spec"]["nodeName"] == node_of(second)
    await pretended.backend._remove(spec.id)
    assert not await pretended.backend.holds_accelerator(spec.id)
    assert not await pretended.backend.open_gate(spec.id, node=None)


async def test_many_starts_and_stops_through_a_bad_api_server_leak_nothing_and_touch_nothing_else(
    pretended: Bench,
) -> None:
    stranger = pods.pod(pretended.spec(), pretended.installation, start="s")
    stranger["metadata"]["labels"] = {"app": "of-somebody-else"}
    pretended.kubectl("create", "-f", "-", given=json.dumps(stranger))
    pretended.not_ours.add(stranger["metadata"]["name"])
    with FaultProxy(pretended.cluster.kubeconfig) as proxy:
        backend = pretended.another(proxy.kubeconfig, read_seconds=5.0)
        for skip in range(0, 3 * AT_ONCE, 10):
            proxy.add(Rule(answer(500), watch=False, times=1, skip=skip))
            proxy.add(Rule(drop_reply(), method="POST", times=1, skip=skip))
            proxy.add(Rule(answer(429, after=1), method="DELETE", times=1, skip=skip // 3))
        specs = [pretended.spec(user=f"u{n}") for n in range(AT_ONCE)]

        async def start(n: int) -> str:
            await backend._create(specs[n], "{}", lambda _phase, _sentence="": None)
            place = await backend._until_placed(specs[n].id, lambda _phase, _sentence="": None)
            return place.id

        assert sorted(await asyncio.gather(*map(start, range(AT_ONCE)))) == sorted(s.id for s in specs)
        wanted = {s.id for s in specs}
        assert {p.id for p in await backend._list()} == wanted
        assert wanted < pretended.names("pods")
        assert pretended.names("secrets") == wanted
        await asyncio.gather(*(backend._remove(spec.id) for spec in specs))
        backend.close()
    assert pretended.names("pods") == pretended.not_ours
    (left,) = pretended.get("pods")
    assert left["metadata"]["labels"] == {"app": "of-somebody-else"}
    await until_async(lambda: pretended.names("secrets") == set(), "a secret outlived its pod")
