"""What the scheduler asks of a machine."""

from __future__ import annotations

from typing import Protocol

from gpu_scheduler.model import Claim, Inventory, Nodes


class InventorySource(Protocol):
    """Knows the accelerators."""

    def read(self) -> Inventory:
        """Return what there is now. Never raises: what can not be read is the inventory's reason."""
        ...


class NodeSource(Protocol):
    """Knows the nodes of a cluster."""

    def nodes(self) -> Nodes:
        """Return what there is now. Never raises: what can not be read is the reason."""
        ...


class SlotTaken(Exception):
    """A slot has a live lease already; nothing was granted."""


class Claims(Protocol):
    """Keeps claims and leases, durably. It is the store itself that lets a slot have one live lease at most."""

    def ask(self, claim: Claim) -> Claim:
        """Add a waiting claim and return it with its number; asked again, return the one there is."""
        ...

    def get(self, claim_id: str) -> Claim | None:
        """Return the claim, None when there is none."""
        ...

    def live(self) -> list[Claim]:
        """Return the claims that wait or are granted, in order of arrival."""
        ...

    def grant(self, claim_id: str, slots: tuple[str, ...]) -> Claim | None:
        """Lease the slots to a waiting claim and return it; None when it does not wait. Raise SlotTaken."""
        ...

    def end(self, claim_id: str) -> None:
        """End a claim and give its slots back; ending one that ended changes nothing."""
        ...
