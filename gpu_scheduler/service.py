"""Accelerators for one machine: what is on offer, and who gets which device."""

from __future__ import annotations

from collections.abc import Collection

from gpu_scheduler import policy
from gpu_scheduler.model import NONE, Device, Offer
from gpu_scheduler.ports import InventorySource

# What a GPU runtime needs beside its own device file.
SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


class Accelerators:
    """Answers for one inventory. What is not free is refused."""

    queues = False

    def __init__(self, source: InventorySource) -> None:
        self._source = source

    def flavors(self, held: Collection[str]) -> tuple[Offer, ...]:
        """Return what a user may pick now; `held` are ids of devices that live runtimes have."""
        return policy.offer(self._source.read(), held)

    def pick(self, flavor: str, held: Collection[str]) -> Device | None:
        """Return a free device of the flavor, None when there is none or none is needed."""
        return None if flavor == NONE else policy.pick(self._source.read(), flavor, held)
