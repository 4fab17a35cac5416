"""What the scheduler asks of a machine."""

from __future__ import annotations

from typing import Protocol

from gpu_scheduler.model import Inventory


class InventorySource(Protocol):
    """Knows the accelerators."""

    def read(self) -> Inventory:
        """Return what there is now. Never raises: what can not be read is the inventory's reason."""
        ...
