"""The Kubernetes backend on a real cluster: scheduler, kubelet, containers, the supervisor in the pod."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from cluster.harness.cluster import Cluster
from spawner.kubernetes import pods
from spawner.kubernetes.model import Flavor
from spawner.model import EndReason, Phase, Shape
from spawner.ports import BackendError
from support.patience import PATIENCE, Stopwatch, until_async
from tests.cluster.kubernetes_support import SMALL, STOPPED, Bench, have_runtime_image, make_bench

pytestmark = pytest.mark.cluster

DEAD_SERVICES_SECONDS = 30.0


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    have_runtime_image(cluster)
    async with make_bench(cluster) as bench:
        yield bench


def phases_of(told: list[tuple[Phase, str]]) -> list[Phase]:
    """Return the phases without their repetitions."""
    return [phase for n, (phase, _) in enumerate(told) if n == 0 or told[n - 1][0] is not phase]


# -- the pod ----------------------------------------------------------------------------------------------------

GPU = Flavor("nvidia.com/gpu", 1, {"a": "b"}, ({"key": "nvidia.com/gpu", "operator": "Exists"},))
TPU = Flavor("google.com/tpu", 8, {"cloud.google.com/gke-tpu-topology": "2x4"}, image="tpu:1")


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


async def test_a_started_runtime_answers_runs_code_and_says_how_far_it_came(bench: Bench) -> None:
    runtime = await bench.start()
    order = phases_of(runtime.told)
    assert order == sorted(order, key=list(Phase).index)
    assert order[-1] is Phase.READY
    assert await runtime.run("print(6 * 7)") == "42\n"
    observed = await bench.backend.observe(runtime.id)
    assert observed is not None
    assert (observed.id, observed.user, observed.file_id) == (runtime.id, "ada", "f-1")
    assert (observed.state, observed.endpoint) == ("ready", runtime.endpoint)
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=3.0)
    assert await bench.backend.observe(runtime.id) is None
    assert bench.names("pods") == set()
    await until_async(lambda: not bench.names("secrets"), "the secret outlived its pod")


async def test_two_starts_at_once_give_two_runtimes(bench: Bench) -> None:
    one, other = await asyncio.gather(bench.start("ada"), bench.start("bob@example.org"))
    assert one.endpoint != other.endpoint
    assert {o.id for o in await bench.backend.list_all()} == {one.id, other.id}
    assert {o.user for o in await bench.backend.list_all()} == {"ada", "bob@example.org"}
    assert await asyncio.gather(one.run("print(1)"), other.run("print(2)")) == ["1\n", "2\n"]


async def test_a_name_that_is_taken_is_refused_and_its_holder_not_disturbed(bench: Bench) -> None:
    runtime = await bench.start()
    for backend in (bench.backend, bench.another()):
        with pytest.raises(BackendError) as refused:
            await backend.start(runtime.spec, lambda _phase, _sentence="": None)
        assert refused.value.code == "already_exists"
    assert await runtime.run("print('here')") == "here\n"


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


async def test_an_image_that_does_not_exist_is_named(bench: Bench) -> None:
    async with make_bench(bench.cluster, image_pull_policy="Never") as never:
        never.installation = replace(never.installation, image="docker.io/local/nothing:0")
        never.backend = never.another()
        error, _ = await refused(never)
    assert error.code == "image_unavailable"
    assert "docker.io/local/nothing:0" in str(error) or "not on the machine" in str(error)


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


async def test_a_start_that_is_given_up_leaves_nothing(bench: Bench) -> None:
    for until in (Phase.QUEUED, Phase.SERVER):
        spec = bench.spec()
        begun = asyncio.Event()

        def told(
            phase: Phase, _sentence: str = "", *, last: Phase = until, begun: asyncio.Event = begun
        ) -> None:
            if phase is last:
                begun.set()

        start = asyncio.create_task(bench.backend.start(spec, told))
        await begun.wait()
        await asyncio.sleep(0.01)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert spec.id not in bench.names("pods")


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


async def test_a_cell_that_wants_too_much_memory_ends_alone_and_is_counted(bench: Bench) -> None:
    runtime = await bench.start()
    assert (
        await runtime.run(
            "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'x = bytearray(1 << 30); print(len(x))']).returncode)"
        )
        == "-9\n"
    )
    used = await bench.backend.resources(runtime.id)
    assert used.oom_kills >= 1
    assert used.memory_limit == SMALL.memory_bytes
    assert await runtime.run("print('alive')") == "alive\n"


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


async def test_who_waits_for_the_end_is_told_the_reason_of_who_ended_it(bench: Bench) -> None:
    runtime = await bench.start()
    other = bench.another()
    ending = asyncio.create_task(other.wait_end(runtime.id))
    await until_async(lambda: other._pods.of(runtime.id))
    await bench.backend.stop(
        runtime.id, reason=EndReason("admin_ended", "Ended by Grace."), grace_seconds=3.0
    )
    reason = await asyncio.wait_for(ending, PATIENCE)
    assert (reason.code, reason.message) == ("admin_ended", "Ended by Grace.")


async def test_the_limit_holds_with_every_service_dead_and_its_reason_is_found_later(bench: Bench) -> None:
    spec = bench.spec(max_lifetime_seconds=5.0)
    runtime = await bench.start_spec(spec)
    began = time.monotonic()
    bench.backend.close()  # nobody is connected any more

    def ended() -> bool:
        (pod,) = [p for p in bench.get("pods") if p["metadata"]["name"] == runtime.id]
        return bool(pod["status"]["phase"] in ("Succeeded", "Failed"))

    with Stopwatch() as watch:
        await until_async(ended)
    assert watch.seconds <= 5.0 + DEAD_SERVICES_SECONDS
    assert time.monotonic() - began >= 4.5, "it was ended too early"
    bench.backend = bench.another()  # the service comes back
    assert await bench.backend.list_all() == []
    assert await bench.backend.observe(runtime.id) is None
    reason = await asyncio.wait_for(bench.backend.wait_end(runtime.id), PATIENCE)
    assert reason.code == "max_lifetime"
    assert reason.boottime is not None
    assert bench.names("pods") == set(), "its pod is kept only until its reason was read"


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


async def test_a_fresh_backend_finds_runtimes_and_their_age(bench: Bench) -> None:
    runtime = await bench.start()
    known = await bench.backend.observe(runtime.id)
    bench.backend = bench.another()
    (found,) = await bench.backend.list_all()
    assert known is not None
    assert (found.id, found.user, found.file_id, found.state) == (runtime.id, "ada", "f-1", "ready")
    assert found.ready_boottime == pytest.approx(known.ready_boottime, abs=2.0)
    assert await runtime.run("print('same')") == "same\n"


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
