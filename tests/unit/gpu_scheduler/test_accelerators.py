"""Flavors and devices."""

from __future__ import annotations

import pytest

from gpu_scheduler.memory import StaticInventory
from gpu_scheduler.model import Device, Inventory
from gpu_scheduler.nvml import NvmlInventory
from gpu_scheduler.policy import flavor_name
from gpu_scheduler.service import Accelerators


def device(name: str, *, flavor: str = "T4", healthy: bool = True) -> Device:
    return Device(name, flavor, f"NVIDIA {flavor}", "/dev/nvidia0", 16 << 30, healthy)


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA RTX A6000", "RTXA6000"),
        ("Quadro RTX 8000", "RTX8000"),
        ("", "GPU"),
    ],
)
def test_a_flavor_has_the_name_people_say(product: str, name: str) -> None:
    assert flavor_name(product) == name


def test_a_machine_without_devices_offers_the_cpu_alone() -> None:
    flavors = Accelerators(StaticInventory(Inventory((), "none"))).flavors(held=())
    assert [(f.name, f.available) for f in flavors] == [("NONE", True)]


def test_a_flavor_whose_devices_are_all_held_is_shown_with_the_reason() -> None:
    accelerators = Accelerators(StaticInventory(Inventory((device("a"), device("b")), "")))
    assert accelerators.flavors(held={"a"})[1].available
    busy = accelerators.flavors(held={"a", "b"})[1]
    assert (busy.available, busy.reason) == (False, "2 of 2 devices are in use.")


def test_a_device_is_granted_once_and_an_unhealthy_one_never() -> None:
    accelerators = Accelerators(StaticInventory(Inventory((device("a"), device("b", healthy=False)), "")))
    first = accelerators.pick("T4", held=())
    assert first is not None
    assert first.id == "a"
    assert accelerators.pick("T4", held={"a"}) is None
    assert accelerators.pick("NONE", held=()) is None


def test_nvml_without_a_driver_is_an_empty_inventory_with_its_reason() -> None:
    inventory = NvmlInventory().read()
    assert inventory.devices or inventory.reason
