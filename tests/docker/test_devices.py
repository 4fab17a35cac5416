"""Accelerators of a lease on a real engine: a container gets their device files and no others. The GPUs are pretended, the way is real."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spawner.docker import backend as docker_backend
from spawner.docker.containers import container_arguments
from spawner.ports import BackendError
from tests.contract.suite.harness import STOPPED
from tests.docker.docker_support import Bench, Runtime, make_backend

pytestmark = pytest.mark.docker
# What NVML says on the pretended machine (engine_programs): the driver counts them otherwise than their files.
NAMES = {f"/dev/nvidia{n}": f"GPU-00000000-0000-0000-0000-00000000000{n}" for n in range(4)}
ALWAYS = ["/dev/nvidia-uvm", "/dev/nvidiactl"]
LOOK = """
import errno, glob, json, os
def tried(path):
    try:
        os.close(os.open(path, os.O_RDWR))
        return "opened"
    except OSError as error:
        return errno.errorcode[error.errno]
try:
    os.mknod("/tmp/another", 0o20666, os.makedev(195, 3))
    made = tried("/tmp/another")
except OSError as error:
    made = errno.errorcode[error.errno]
found = {path: tried(path) for path in sorted(glob.glob("/dev/nvidia*"))}
print(json.dumps({"found": found, "made": made}))
"""


@pytest.fixture
def gpus(bench: Bench) -> Bench:
    """A bench whose backend knows what the driver calls the device files."""
    bench.backend = make_backend(bench.folder, bench.engine, bench.settings, device_names=lambda: NAMES)
    return bench


async def seen(runtime: Runtime) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await runtime.run(LOOK))
    return told


async def test_a_runtime_gets_the_gpu_of_its_lease_and_no_other(gpus: Bench) -> None:
    none, one, two = await asyncio.gather(
        gpus.start(),
        gpus.start(accelerator="T4", devices=("/dev/nvidia0",)),
        gpus.start("bob", accelerator="T4", devices=("/dev/nvidia1", "/dev/nvidia2")),
    )
    without, with_one, with_two = await asyncio.gather(seen(none), seen(one), seen(two))
    assert without == {"found": {}, "made": "EPERM"}
    assert list(with_one["found"]) == ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"]
    assert sorted(with_two["found"]) == sorted([*ALWAYS, "/dev/nvidia1", "/dev/nvidia2"])
    assert with_one["made"] == with_two["made"] == "EPERM"
    if Path("/sys/fs/cgroup/devices").is_dir():
        # They may be opened: there is but no driver behind them here.
        assert with_one["found"]["/dev/nvidia0"] == "ENXIO"
        allowed = await one.run("print(open('/sys/fs/cgroup/devices/devices.list').read())")
        assert "c 195:0 rw" in allowed
        assert not any(f"c 195:{minor} " in allowed for minor in (1, 2, 3))


async def test_a_gpu_that_the_driver_does_not_know_is_refused_and_leaves_nothing(gpus: Bench) -> None:
    with pytest.raises(BackendError, match="does not know 9") as refused:
        await gpus.start(devices=("/dev/nvidia9",))
    assert refused.value.code == "no_capacity"
    assert gpus.leftovers() == []


async def test_an_image_that_asks_for_every_gpu_gets_none_though_the_engine_would_obey(
    gpus: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = f"{gpus.settings.image}-greedy"
    recipe = f"FROM {gpus.settings.image}\nENV NVIDIA_VISIBLE_DEVICES=all\n"
    gpus.engine.docker("build", "-q", "-t", image, "-", input=recipe)

    def on_nvidias_runtime(*arguments: Any) -> dict[str, Any]:
        made = container_arguments(*arguments)
        return {**made, "HostConfig": {**made["HostConfig"], "Runtime": "nvidia"}}

    monkeypatch.setattr(docker_backend, "container_arguments", on_nvidias_runtime)
    greedy = replace(gpus.settings, image=image)
    gpus.backend = make_backend(gpus.folder, gpus.engine, greedy, device_names=lambda: NAMES)
    try:
        all_of_them = gpus.engine.docker(
            "run", "--rm", "--runtime=nvidia", "--entrypoint=/bin/ls", image, "/dev"
        )
        assert "nvidia3" in all_of_them.stdout  # so it is when nobody takes care
        assert (await seen(await gpus.start()))["found"] == {}
        one = await seen(await gpus.start(devices=("/dev/nvidia3",)))
        assert list(one["found"]) == ["/dev/nvidia-uvm", "/dev/nvidia3", "/dev/nvidiactl"]
    finally:
        for runtime_id in gpus.started:
            await gpus.backend.stop(runtime_id, reason=STOPPED, grace_seconds=0.0)
        gpus.engine.docker("image", "rm", image)


async def test_other_accelerators_are_plain_device_files(bench: Bench) -> None:
    runtime = await bench.start(devices=("/dev/net/tun",))
    told = await runtime.run(
        "import os; print(os.path.exists('/dev/net/tun')); os.close(os.open('/dev/net/tun', os.O_RDWR))"
    )
    assert told == "True\n"
    with pytest.raises(BackendError, match="/dev/accel7 is not on the machine") as refused:
        await bench.start(devices=("/dev/accel7",))
    assert refused.value.code == "no_capacity"
    assert [name for name in bench.containers() if name != runtime.container] == []
