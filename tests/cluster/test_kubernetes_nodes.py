"""Nodes that go away, lose their kubelet, run out of room or have no image: what a runtime's user is told, and what is kept until it is safe."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from cluster.harness import kubeconfig, lifecycle
from cluster.harness.cluster import Cluster
from cluster.harness.configuration import NODE_NAME
from cluster.harness.keeper import Keeper, keeper
from cluster.harness.lifecycle import node_is_ready
from cluster.harness.pretended import TAINT, node
from spawner.kubernetes import pods
from spawner.kubernetes.model import PodFlavor
from spawner.model import Phase
from spawner.ports import BackendError
from support.kernel import Kernel
from support.patience import PATIENCE, Stopwatch, until_async
from tests.cluster.kubernetes_support import STOPPED, Bench, Runtime, have_runtime_image, make_bench

pytestmark = pytest.mark.cluster

LOST_SECONDS = 60.0  # from "not ready" to the news of the loss
FOUND_OUT = 2 * PATIENCE  # the cluster takes 40 to 50 seconds to notice that a node is away
TOLERATIONS = ({"key": TAINT["key"], "operator": "Exists", "effect": TAINT["effect"]},)

COUNT = (
    "import threading, time\nn = 0\ndef count():\n    global n\n    while True:\n        n += 1\n"
    "        time.sleep(0.05)\nthreading.Thread(target=count, daemon=True).start()"
)


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    have_runtime_image(cluster)
    async with make_bench(cluster) as bench:
        yield bench


async def until_ready_is(cluster: Cluster, name: str, wanted: bool) -> None:
    access = kubeconfig.read(cluster.kubeconfig)
    async with asyncio.timeout(FOUND_OUT):
        while await asyncio.to_thread(node_is_ready, access, name) is not wanted:
            await asyncio.sleep(0.5)


# -- nodes that go away -------------------------------------------------------------------------------------------


async def place(bench: Bench, accelerator: str = "NONE") -> str:
    """Start a runtime as far as pretended nodes go; return its id."""
    spec = bench.spec(accelerator=accelerator)
    await bench.backend._create(spec, "{}", lambda _phase, _sentence="": None)
    if accelerator != "NONE":
        await until_async(lambda: bool(bench.backend._pods.of(spec.id)))
        assert await bench.backend.gates.open_gate(spec.id, node=None)
    await bench.backend._until_placed(spec.id, lambda _phase, _sentence="": None)
    return spec.id


def pod_of(bench: Bench, name: str) -> dict[str, Any]:
    return next(pod for pod in bench.get("pods") if pod["metadata"]["name"] == name)


async def test_runtimes_are_lost_with_their_node_and_hold_what_they_had_until_it_is_back(
    own_cluster: Cluster,
) -> None:
    with keeper(own_cluster) as kept:
        mark = f"gone-{secrets.token_hex(3)}"
        own_cluster.apply(node(mark, {"test.dev/chip": "2"}, {"minicolab-test": mark}, keeper=kept.name))
        settings: dict[str, Any] = {
            "node_selector": {"minicolab-test": mark},
            "tolerations": TOLERATIONS,
            "flavors": {"CHIP": PodFlavor("test.dev/chip")},
            "cpu_share": 0.01,
            "memory_share": 0.01,
        }
        try:
            async with make_bench(own_cluster, **settings) as bench:
                await lose_a_node(bench, kept, mark)
        finally:
            own_cluster.kubectl("delete", "node", mark, "--wait=false")


async def lose_a_node(bench: Bench, kept: Keeper, name: str) -> None:
    stranger = pods.pod(bench.spec(), bench.installation, start="s")
    stranger["metadata"]["labels"] = {"app": "of-somebody-else"}
    stranger_name = stranger["metadata"]["name"]
    bench.not_ours.add(stranger_name)
    bench.kubectl("create", "-f", "-", given=json.dumps(stranger))
    plain, with_chip = await place(bench), await place(bench, "CHIP")
    endings = [asyncio.create_task(bench.backend.wait_end(each)) for each in (plain, with_chip)]

    kept.stop()
    await until_ready_is(bench.cluster, name, False)
    with Stopwatch() as watch:
        reasons = await asyncio.wait_for(asyncio.gather(*endings), FOUND_OUT)
    assert watch.seconds <= LOST_SECONDS
    assert [reason.code for reason in reasons] == ["node_lost", "node_lost"]
    assert all("node" in reason.message and "went away" in reason.message for reason in reasons)

    # Lost for their users, and for every service that looks; but what they had is not given to anybody else.
    for backend in (bench.backend, bench.another()):
        assert await backend.gates.holds_accelerator(with_chip)
    assert await bench.backend.list_all() == []
    assert await bench.backend.observe(plain) is None
    assert bench.names("pods") == {plain, with_chip, stranger_name}, (
        "a pod was taken out of the books by force"
    )
    left = pod_of(bench, stranger_name)
    assert "deletionTimestamp" not in left["metadata"]

    kept.start()  # the node is back, and carries out what it was told
    await until_ready_is(bench.cluster, name, True)
    await until_async(
        lambda: bench.names("pods") == {stranger_name}, "lost pods outlived their node's return"
    )
    # The backend hears of it by its watch, a moment after the cluster's own list.
    await until_async(lambda: not bench.backend._pods.of(with_chip), "the mirror keeps a pod that is gone")
    assert not await bench.backend.gates.holds_accelerator(with_chip)
    assert pod_of(bench, stranger_name)["metadata"]["uid"] == left["metadata"]["uid"]


async def test_a_cell_does_not_notice_that_its_kubelet_was_away(own_cluster: Cluster, bench: Bench) -> None:
    assert own_cluster.layout is not None
    runtime = await bench.start()
    ending = asyncio.create_task(bench.backend.wait_end(runtime.id))
    kernel = await asyncio.to_thread(Kernel, runtime.url, runtime.ticket())
    await asyncio.to_thread(kernel.run, COUNT)
    before = int(await asyncio.to_thread(kernel.run, "print(n)"))
    processes = lifecycle.processes_of(own_cluster.layout)
    try:
        processes.stop("kubelet", grace=0)
        await until_ready_is(own_cluster, NODE_NAME, False)
        with Stopwatch() as watch:  # as long as it takes to find that a runtime is lost
            await asyncio.wait({ending}, timeout=LOST_SECONDS / 2)
        assert not ending.done(), f"after {watch.elapsed:.0f} s: {ending.result()}"
        (observed,) = await bench.backend.list_all()
        assert (observed.id, observed.state) == (runtime.id, "ready")
        middle = int(await asyncio.to_thread(kernel.run, "print(n)"))
    finally:
        lifecycle.up(own_cluster.layout.state)
    await until_ready_is(own_cluster, NODE_NAME, True)
    assert before < middle < int(await asyncio.to_thread(kernel.run, "print(n)"))
    await asyncio.to_thread(kernel.close)
    pod = pod_of(bench, runtime.id)
    assert "deletionTimestamp" not in pod["metadata"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=3.0)
    assert await asyncio.wait_for(ending, PATIENCE) == STOPPED


# -- nodes that have no room, or no image ---------------------------------------------------------------------------


async def test_who_writes_more_than_the_disk_limit_is_ended_by_the_node_which_says_so(bench: Bench) -> None:
    bench.backend = bench.another(disk_bytes=64 << 20)
    runtime = await bench.start()
    ending = asyncio.create_task(bench.backend.wait_end(runtime.id))
    await write_much(runtime)
    reason = await asyncio.wait_for(ending, 2 * PATIENCE)  # kubelet measures about once a minute
    assert reason.code == "evicted", reason
    assert "make room" in reason.message
    assert "exceeds" in reason.message
    assert bench.names("pods") == set()


async def write_much(runtime: Runtime) -> None:
    code = "f = open('/content/much', 'wb')\nfor _ in range(128):\n    f.write(bytes(1 << 20))\nf.flush(); print('written')"
    assert await runtime.run(code) == "written\n"


async def test_full_and_read_only_folders_are_told_to_the_cell_and_the_runtime_goes_on(bench: Bench) -> None:
    runtime = await bench.start()
    code = """
import errno, os
def fill(folder):
    try:
        with open(folder + '/much', 'wb', buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError as error:
        print(folder, errno.errorcode[error.errno])
for folder in ('/dev/shm', '/run/minicolab'):
    fill(folder)
for folder in ('/sys', '/proc/sys/kernel'):
    try:
        open(folder + '/much', 'wb')
    except OSError as error:
        print(folder, errno.errorcode[error.errno])
os.unlink('/dev/shm/much')
"""
    kernel = await asyncio.to_thread(Kernel, runtime.url, runtime.ticket())
    lines = (await asyncio.to_thread(kernel.run, code)).splitlines()
    assert lines[:2] == ["/dev/shm ENOSPC", "/run/minicolab ENOSPC"]
    assert {line.split()[1] for line in lines[2:]} <= {"EROFS", "EACCES", "EPERM", "ENOENT"}
    assert await asyncio.to_thread(kernel.run, "print('alive')") == "alive\n"
    await asyncio.to_thread(kernel.close)
    assert (await bench.backend.resources(runtime.id)).processes >= 1
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=3.0)
    assert bench.names("pods") == set()


async def refusal(bench: Bench, **changes: Any) -> tuple[BackendError, list[tuple[Phase, str]]]:
    """Return why a start was refused, and what was told until then; nothing of it is left."""
    told: list[tuple[Phase, str]] = []
    spec = bench.spec()
    backend = bench.another(**changes)
    with pytest.raises(BackendError) as error:
        await backend.start(spec, lambda phase, sentence="": told.append((phase, sentence)))
    assert spec.id not in bench.names("pods")
    return error.value, told


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (
            {"image": "docker.io/local/nothing:0", "image_pull_policy": "Never"},
            "image_unavailable",
            "not on the machine",
        ),
        (
            {"image": "127.0.0.1:9/nothing:0", "image_pull_policy": "Always", "start_seconds": 6.0},
            "image_unavailable",
            "127.0.0.1:9/nothing:0",
        ),
        ({"image": "No Such:Name"}, "image_unavailable", "can not be used"),
        (
            {"drives": "csi", "drive_driver": "nothing.minicolab.dev", "start_seconds": 6.0},
            "start_timeout",
            "nothing.minicolab.dev",
        ),
    ],
    ids=["never pulled", "registry away", "bad name", "no such volume"],
)
async def test_a_start_that_can_not_succeed_says_what_is_missing(
    bench: Bench, changes: dict[str, Any], code: str, words: str
) -> None:
    error, told = await refusal(bench, **changes)
    assert (error.code, words in str(error)) == (code, True), (error.code, str(error), told)


async def test_a_node_that_takes_no_more_pods_is_no_capacity_and_said_while_it_is_waited_for(
    own_cluster: Cluster,
) -> None:
    mark = f"full-{secrets.token_hex(3)}"
    full = node(mark, {"pods": "1"}, {"minicolab-test": mark})
    own_cluster.apply(full)
    settings: dict[str, Any] = {
        "node_selector": {"minicolab-test": mark},
        "tolerations": TOLERATIONS,
        "start_seconds": PATIENCE,
    }
    try:
        async with make_bench(own_cluster, **settings) as bench:
            await place(bench)
            bench.installation = replace(bench.installation, start_seconds=6.0)
            error, told = await refusal(bench)
            assert error.code == "no_capacity", str(error)
            assert "no room for another pod" in str(error)
            assert any("no room for another pod" in sentence for _, sentence in told)
    finally:
        own_cluster.kubectl("delete", "node", mark, "--wait=false")
