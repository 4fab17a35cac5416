"""An inventory that is said, not found: for tests, and for settings that name the devices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpu_scheduler.model import Claim, ClaimState, Inventory, Nodes
from gpu_scheduler.ports import SlotTaken


@dataclass
class StaticInventory:
    """Returns what it was given."""

    inventory: Inventory

    def read(self) -> Inventory:
        return self.inventory


@dataclass
class StaticNodes:
    """Returns what it was given."""

    found: Nodes

    def nodes(self) -> Nodes:
        return self.found


class MemoryClaims:
    """Claims without a database."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._leases: dict[str, str] = {}  # slot → claim

    def ask(self, claim: Claim) -> Claim:
        return self._claims.setdefault(claim.id, replace(claim, number=len(self._claims) + 1))

    def get(self, claim_id: str) -> Claim | None:
        return self._claims.get(claim_id)

    def live(self) -> list[Claim]:
        return [c for c in self._claims.values() if c.state is not ClaimState.ENDED]

    def grant(self, claim_id: str, slots: tuple[str, ...]) -> Claim | None:
        claim = self._claims.get(claim_id)
        if claim is None or claim.state is not ClaimState.WAITING:
            return None
        if any(slot in self._leases for slot in slots):
            raise SlotTaken
        self._leases.update(dict.fromkeys(slots, claim_id))
        granted = replace(claim, state=ClaimState.GRANTED, slots=slots, epoch=claim.epoch + 1)
        self._claims[claim_id] = granted
        return granted

    def end(self, claim_id: str) -> None:
        claim = self._claims.get(claim_id)
        if claim is not None and claim.state is not ClaimState.ENDED:
            self._claims[claim_id] = replace(claim, state=ClaimState.ENDED)
            for slot in claim.slots:
                self._leases.pop(slot, None)
