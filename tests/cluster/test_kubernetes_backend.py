"""What only the Kubernetes backend is asked, on a real cluster; what every backend must do is in tests/contract/suite."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from cluster.harness.cluster import Cluster
from spawner.kubernetes import pods
from spawner.kubernetes.model import PodFlavor
from spawner.model import Phase, Shape
from spawner.ports import BackendError
from support.patience import PATIENCE, until_async
from tests.cluster.kubernetes_support import STOPPED, Bench, have_runtime_image, make_bench

pytestmark = pytest.mark.cluster


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    have_runtime_image(cluster)
    async with make_bench(cluster) as bench:
        yield bench


# -- the pod ----------------------------------------------------------------------------------------------------

GPU = PodFlavor("nvidia.com/gpu", 1, {"a": "b"}, ({"key": "nvidia.com/gpu", "operator": "Exists"},))
TPU = PodFlavor("google.com/tpu", 8, {"cloud.google.com/gke-tpu-topology": "2x4"}, image="tpu:1")


@pytest.mark.parametrize(
    ("settings", "accelerator", "gated"),
    [
        ({}, "NONE", False),
        ({"drives": "csi"}, "NONE", False),
        ({}, "T4", True),
        ({}, "V5E8", True),
        (
            {
                "disk_bytes": 1 << 30,
                "pull_secrets": ("registry",),
                "node_selector": {"pool": "notebooks"},
                "tolerations": (
                    {"key": "notebooks", "operator": "Equal", "value": "yes", "effect": "NoExecute"},
                ),
                "user_namespaces": True,
            },
            "NONE",
            False,
        ),
    ],
)
async def test_a_namespace_that_enforces_the_restricted_standard_takes_every_pod(
    bench: Bench, settings: dict[str, Any], accelerator: str, gated: bool
) -> None:
    if settings.get("drives") == "csi":
        driver = json.loads(bench.kubectl("get", "csidrivers", "-o", "json"))["items"]
        if not any(d["metadata"]["name"] == bench.installation.drive_driver for d in driver):
            pytest.skip("the drive plugin is not installed in this cluster")
    installation = replace(bench.installation, flavors={"T4": GPU, "V5E8": TPU}, **settings)
    spec = bench.spec(accelerator=accelerator)
    made = pods.pod(spec, installation, start="s", gated=gated)
    bench.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=json.dumps(made))
    kept = pods.secret(spec, installation, described="{}", pod_uid="u-1")
    bench.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=json.dumps(kept))


# -- start ------------------------------------------------------------------------------------------------------


async def test_a_strangers_pod_is_never_touched(bench: Bench) -> None:
    spec = bench.spec()
    stranger = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": spec.id, "labels": {"app": "of-somebody-else"}},
        "spec": {**pods.pod(spec, bench.installation, start="s")["spec"], "nodeSelector": {"no": "node"}},
    }
    bench.kubectl("create", "-f", "-", given=json.dumps(stranger))
    before = bench.get("pods")[0]["metadata"]
    with pytest.raises(BackendError) as refused:
        await bench.start_spec(spec)
    assert refused.value.code == "name_taken"
    assert await bench.backend.observe(spec.id) is None
    assert await bench.backend.list_all() == []
    await bench.backend.stop(spec.id, reason=STOPPED, grace_seconds=0)
    after = bench.get("pods")[0]["metadata"]
    assert (after["uid"], after["resourceVersion"]) == (before["uid"], before["resourceVersion"])
    assert bench.names("secrets") == set()
    bench.not_ours.add(spec.id)


async def test_another_installations_runtimes_in_the_same_namespace_are_not_ours(bench: Bench) -> None:
    runtime = await bench.start()
    other = bench.another(name="other")
    assert await other.list_all() == []
    assert await other.observe(runtime.id) is None
    await other.stop(runtime.id, reason=STOPPED, grace_seconds=0)
    with pytest.raises(BackendError) as refused:
        await other.start(runtime.spec, lambda _phase, _sentence="": None)
    assert refused.value.code == "name_taken"
    assert await runtime.run("print('here')") == "here\n"


async def refused(bench: Bench, **changes: Any) -> tuple[BackendError, list[tuple[Phase, str]]]:
    """Return why a start was refused, and what was told until then; nothing of it is left."""
    spec = bench.spec(**changes)
    told: list[tuple[Phase, str]] = []
    with pytest.raises(BackendError) as error:
        await bench.backend.start(spec, lambda phase, sentence="": told.append((phase, sentence)))
    assert spec.id not in bench.names("pods")
    await until_async(lambda: spec.id not in bench.names("secrets"))
    return error.value, told


async def test_no_room_is_said_while_it_is_waited_for_and_in_the_end(bench: Bench) -> None:
    bench.backend = bench.another(start_seconds=4.0, cpu_share=1.0)
    error, told = await refused(bench, shape=Shape("HUGE", 512 << 20, 640.0, 200))
    assert error.code == "no_capacity"
    assert "too few CPUs free" in str(error)
    assert any(phase is Phase.QUEUED and "too few CPUs free" in sentence for phase, sentence in told)


async def test_a_used_up_quota_is_said_at_once(bench: Bench) -> None:
    bench.kubectl("create", "quota", "few", "--hard=pods=0")
    await until_async(lambda: "pods" in (bench.get("quota")[0].get("status", {}).get("hard") or {}))
    error, _ = await refused(bench)
    assert error.code == "cluster_quota"


async def test_what_the_namespace_does_not_allow_is_said_at_once(bench: Bench) -> None:
    bench.backend = bench.another(service_account="nobody")
    error, _ = await refused(bench)
    assert error.code == "cluster_denied"
    assert "nobody" in str(error)


# -- what is inside ---------------------------------------------------------------------------------------------


async def test_code_inside_sees_no_secret_no_token_and_can_not_touch_the_supervisor(bench: Bench) -> None:
    runtime = await bench.start()
    code = """
import os, signal
print(os.getuid(), "MINICOLAB_SPEC" in os.environ, os.path.exists("/var/run/secrets/kubernetes.io"))
for path in ("/proc/1/environ", "/proc/1/mem", "/proc/1/fd"):
    try:
        os.listdir(path) if path.endswith("fd") else open(path, "rb").read(1)
        print(path, "can be read")
    except OSError as error:
        print(type(error).__name__)
for number in (signal.SIGKILL, signal.SIGSTOP):
    try:
        os.kill(1, number)
    except OSError as error:
        print(type(error).__name__)
print(sorted(n for n in os.environ if "_SERVICE_HOST" in n and n != "KUBERNETES_SERVICE_HOST"), os.listdir("/drives"))
print([l.split()[1] for l in open("/proc/self/status") if l.startswith(("CapEff", "NoNewPrivs", "Seccomp:"))])
"""
    lines = (await runtime.run(code)).splitlines()
    assert lines[0] == "1000 False False"
    assert lines[1:4] == ["PermissionError"] * 3
    assert lines[-2] == "[] []"
    assert lines[-1] == "['0000000000000000', '1', '2']"
    assert await runtime.run("print('still here')") == "still here\n"


async def test_use_limits_and_words_go_by_the_supervisor(bench: Bench) -> None:
    runtime = await bench.start()
    await bench.backend.touch(runtime.id)
    assert (await bench.backend.activity(runtime.id)).seconds_ago < PATIENCE
    assert (await bench.backend.resources(runtime.id)).processes >= 1
    assert isinstance(await bench.backend.logs(runtime.id), str)
    assert await bench.backend.mounts(runtime.id) == []
    with pytest.raises(BackendError) as error:
        await bench.backend.mount(runtime.id, source="/x/drive/d-1", target="/content/drive", readonly=False)
    assert error.value.code == "mount_failed"
    with pytest.raises(BackendError) as error:
        await bench.backend.set_limits(runtime.id, max_lifetime_seconds=1e6, idle_limit_seconds=60.0)
    assert error.value.code == "too_long"
    ending = asyncio.create_task(bench.backend.wait_end(runtime.id))
    await bench.backend.set_limits(runtime.id, max_lifetime_seconds=0.5, idle_limit_seconds=60.0)
    assert (await asyncio.wait_for(ending, PATIENCE)).code == "max_lifetime"
    for ask in (bench.backend.resources, bench.backend.activity, bench.backend.logs):
        with pytest.raises(BackendError) as error:
            await ask(runtime.id)
        assert error.value.code == "no_such_runtime"


# -- ends -------------------------------------------------------------------------------------------------------


async def test_the_cluster_ends_what_its_supervisor_does_not(bench: Bench) -> None:
    runtime = await bench.start()
    ending = asyncio.create_task(bench.backend.wait_end(runtime.id))
    shorter = json.dumps({"spec": {"activeDeadlineSeconds": 1}})
    bench.kubectl("patch", "pod", runtime.id, "--type=merge", "-p", shorter)
    reason = await asyncio.wait_for(ending, PATIENCE)
    assert reason.code == "max_lifetime"
    assert "cluster" in reason.message


async def test_a_pod_that_somebody_deletes_or_drains_has_its_own_reason(bench: Bench) -> None:
    deleted, drained = await asyncio.gather(bench.start(), bench.start())
    endings = [asyncio.create_task(bench.backend.wait_end(r.id)) for r in (deleted, drained)]
    bench.kubectl("delete", "pod", deleted.id, "--wait=false")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": drained.id, "namespace": bench.namespace},
    }
    path = f"/api/v1/namespaces/{bench.namespace}/pods/{drained.id}/eviction"
    bench.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    reasons = await asyncio.wait_for(asyncio.gather(*endings), PATIENCE)
    assert [r.code for r in reasons] == ["deleted", "evicted"]


# -- recovery ---------------------------------------------------------------------------------------------------


async def test_a_start_whose_process_died_is_found_and_ended(bench: Bench) -> None:
    spec = bench.spec()
    made = pods.pod(spec, bench.installation, start="dead")
    bench.kubectl("create", "-f", "-", given=json.dumps(made))  # and no secret: its maker died in between
    (found,) = await bench.backend.list_all()
    assert found.id == spec.id
    assert found.state in ("starting", "unknown")
    await bench.backend.stop(spec.id, reason=STOPPED, grace_seconds=0.0)
    assert bench.names("pods") == set()


async def test_ended_pods_that_nobody_asks_about_are_cleared_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await bench.start_spec(bench.spec(max_lifetime_seconds=0.5))
    await until_async(lambda: bench.get("pods")[0]["status"]["phase"] in ("Succeeded", "Failed"))
    assert await bench.backend.list_all() == []
    assert bench.names("pods") == {runtime.id}
    monkeypatch.setattr("spawner.kubernetes.backend.KEEP_ENDED_SECONDS", -1.0)
    await until_async(lambda: not bench.backend._pods.fresh or bool(bench.backend._pods.of(runtime.id)))
    await bench.backend.list_all()
    assert bench.names("pods") == set()
