"""The NVML adapter against a compiled stand-in for the driver's library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spawner.supervisor import gpu_use

READ = (
    "import dataclasses, json; from gpu_scheduler.nvml import NvmlInventory;"
    "print(json.dumps(dataclasses.asdict(NvmlInventory().read())))"
)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here (apt-get install gcc)")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("fake_nvml.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(source)], check=True
    )
    return folder


def read_inventory(library: Path, count: int) -> dict[str, object]:
    # A process of its own: the library is looked up once, by the loader's path at the start.
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_NVML_COUNT": str(count)}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    inventory: dict[str, object] = json.loads(done.stdout)
    return inventory


def test_every_device_is_listed_with_the_driver_s_own_number_of_its_file(library: Path) -> None:
    inventory = read_inventory(library, 2)
    assert inventory["reason"] == ""
    first = {
        "id": "GPU-00000000-0000-0000-0000-000000000000",
        "flavor": "T4",
        "title": "Tesla T4",
        "node": "/dev/nvidia1",
        "memory_bytes": 16 << 30,
        "healthy": True,
    }
    second = {**first, "id": "GPU-00000000-0000-0000-0000-000000000001", "node": "/dev/nvidia0"}
    assert inventory["devices"] == [first, second]


def test_a_device_that_fell_off_the_bus_is_unhealthy_and_hides_no_other(library: Path) -> None:
    devices = read_inventory(library, 3)["devices"]
    assert isinstance(devices, list)
    assert [d["healthy"] for d in devices] == [True, True, False]


def test_a_driver_without_devices_says_so(library: Path) -> None:
    assert read_inventory(library, 0) == {"devices": [], "reason": "The NVIDIA driver knows no device."}


@pytest.mark.parametrize("count", [1, 3])
async def test_who_computes_on_a_device_is_told_and_who_only_holds_memory_is_not(
    library: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("FAKE_NVML_COUNT", str(count))
    monkeypatch.setenv("FAKE_NVML_USERS", "4711")
    assert await gpu_use.users(15.0) == {4711}


async def test_without_a_driver_nobody_computes() -> None:
    assert await gpu_use.users(15.0) == frozenset()
