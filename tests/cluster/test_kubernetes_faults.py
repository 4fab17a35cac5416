"""The Kubernetes backend while the API server in front of it fails, hangs, loses answers and forgets: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from cluster.harness.cluster import Cluster
from cluster.harness.fault_proxy import (
    FaultProxy,
    Rule,
    answer,
    drop_reply,
    gone,
    hang,
    refuse,
    silent,
    stale,
)
from spawner.kubernetes import client, pods
from spawner.kubernetes.backend import KubernetesBackend
from spawner.ports import BackendError
from support.patience import PATIENCE, until_async
from tests.cluster.kubernetes_support import STOPPED, Bench, have_runtime_image, make_bench

pytestmark = pytest.mark.cluster


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    have_runtime_image(cluster)
    async with make_bench(cluster) as bench:
        yield bench


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    with FaultProxy(cluster.kubeconfig) as proxy:
        yield proxy


@pytest.fixture
def behind(bench: Bench, proxy: FaultProxy) -> KubernetesBackend:
    """A backend that reaches the cluster through the proxy only."""
    bench.backend = bench.another(proxy.kubeconfig, read_seconds=3.0)
    return bench.backend


FAULTS: dict[str, Callable[[], list[Rule]]] = {
    "429 with Retry-After": lambda: [Rule(answer(429, after=1), method="POST", times=2)],
    "bursts of 500": lambda: [Rule(answer(500), watch=False, times=3, skip=skip) for skip in (0, 5, 9)],
    "the answer to the pod is lost": lambda: [Rule(drop_reply(), method="POST", path=r"/pods$", times=1)],
    "the answer to the secret is lost": lambda: [
        Rule(drop_reply(), method="POST", path=r"/secrets$", times=1)
    ],
    "connections are refused": lambda: [Rule(refuse(), times=4)],
    "each kind of call hangs": lambda: [
        Rule(hang(), method=method, watch=False, times=1) for method in ("POST", "GET", "DELETE")
    ],
    "lists are stale": lambda: [
        Rule(stale(), method="GET", path=r"/pods$", watch=False),
        Rule(gone(), watch=True, times=4),
    ],
    "watches are too old": lambda: [Rule(gone(), watch=True, times=4)],
    "watches are silent": lambda: [Rule(silent(), watch=True)],
    "watches are refused": lambda: [Rule(answer(503), watch=True)],
    "deleting loses its answer": lambda: [Rule(drop_reply(), method="DELETE", times=1)],
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_runtime_starts_lives_and_ends_once_whatever_the_api_server_does(
    bench: Bench, proxy: FaultProxy, behind: KubernetesBackend, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind._pods, "_silence_seconds", 2.0)
    monkeypatch.setattr(behind._pods, "_stale_seconds", 4.0)
    for rule in FAULTS[fault]():
        proxy.add(rule)
    runtime = await bench.start()
    assert await runtime.run("print('here')") == "here\n"
    assert [o.id for o in await behind.list_all()] == [runtime.id]
    assert bench.names("pods") == {runtime.id}
    await behind.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
    assert bench.names("pods") == set()
    assert await behind.observe(runtime.id) is None


def asked(proxy: FaultProxy, method: str, end: str) -> int:
    """Return how often something was asked for."""
    return sum(m == method and target.endswith(end) for m, target in proxy.requests)


async def test_the_api_servers_word_when_to_come_back_is_kept(
    bench: Bench, proxy: FaultProxy, behind: KubernetesBackend
) -> None:
    proxy.add(Rule(answer(429, after=2), method="POST", path=r"/pods$", times=2))
    spec = bench.spec()
    began = time.monotonic()
    await behind._create(spec, "{}", lambda _phase, _sentence="": None)
    assert time.monotonic() - began >= 2 * 2.0
    assert asked(proxy, "POST", "/pods") == 3
    assert bench.names("pods") == {spec.id}


async def test_what_was_made_though_nobody_was_told_is_taken_as_ones_own(
    bench: Bench, proxy: FaultProxy, behind: KubernetesBackend
) -> None:
    proxy.add(Rule(drop_reply(), method="POST", times=1))
    spec = bench.spec()
    creating = asyncio.create_task(behind._create(spec, "{}", lambda _phase, _sentence="": None))
    await until_async(lambda: asked(proxy, "POST", "/pods") == 1)
    await until_async(lambda: bench.names("pods") == {spec.id})
    (first,) = bench.get("pods")
    await creating
    (pod,) = bench.get("pods")
    assert pod["metadata"]["uid"] == first["metadata"]["uid"], "it was made anew"
    assert asked(proxy, "POST", "/pods") == 2
    assert asked(proxy, "DELETE", "") == 0
    (secret,) = [s for s in bench.get("secrets") if s["metadata"]["name"] == spec.id]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]


async def test_a_stop_is_noticed_by_others_although_their_watch_is_dead(
    bench: Bench, proxy: FaultProxy, behind: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind._pods, "_silence_seconds", 2.0)
    monkeypatch.setattr(behind._pods, "_stale_seconds", 4.0)
    runtime = await bench.start()
    proxy.add(Rule(silent(), watch=True))
    proxy.cut_all()
    ending = asyncio.create_task(behind.wait_end(runtime.id))
    bench.kubectl("delete", "pod", runtime.id, "--grace-period=1", "--wait=false")
    reason = await asyncio.wait_for(ending, PATIENCE)
    assert reason.code in ("deleted", "service_stopped", "lost")
    assert await behind.observe(runtime.id) is None


async def test_a_cluster_that_does_not_answer_is_not_a_runtime_that_is_gone(
    bench: Bench, proxy: FaultProxy, behind: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 1.0)
    runtime = await bench.start()
    fresh = bench.another(proxy.kubeconfig, read_seconds=1.0)
    monkeypatch.setattr("spawner.kubernetes.watch.SYNC_SECONDS", 1.0)
    broken = proxy.add(Rule(answer(500)))
    for ask in (fresh.observe, fresh.resources):
        with pytest.raises(BackendError) as unknown:
            await ask(runtime.id)
        assert unknown.value.code == "cluster_unavailable"
    with pytest.raises(BackendError):
        await fresh.list_all()
    with pytest.raises(BackendError) as refused:
        await fresh.start(bench.spec(), lambda _phase, _sentence="": None)
    assert refused.value.code == "cluster_unavailable"
    proxy.remove(broken)
    assert await runtime.run("print('never noticed')") == "never noticed\n"
    await until_async(lambda: fresh._pods.fresh)
    assert [o.id for o in await fresh.list_all()] == [runtime.id]


async def test_a_strangers_pod_is_left_alone_also_when_our_own_create_lost_its_answer(
    bench: Bench, proxy: FaultProxy, behind: KubernetesBackend
) -> None:
    spec = bench.spec()
    stranger = pods.pod(spec, bench.installation, start="another start")
    stranger["metadata"]["labels"] = {"app": "of-somebody-else"}
    stranger["spec"]["nodeSelector"] = {"no": "node"}
    bench.kubectl("create", "-f", "-", given=json.dumps(stranger))
    bench.not_ours.add(spec.id)
    (before,) = bench.get("pods")
    proxy.add(Rule(drop_reply(), method="POST", path=r"/pods$", times=1))
    with pytest.raises(BackendError) as refused:
        await bench.start_spec(spec)
    assert refused.value.code == "name_taken"
    (after,) = bench.get("pods")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert not after["metadata"].get("deletionTimestamp")
    touched = [r for r in proxy.requests if r[0] in ("DELETE", "PATCH")]
    assert touched == []
