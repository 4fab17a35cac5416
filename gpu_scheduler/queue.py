"""The queue for the accelerators of a cluster: claims are asked for, granted in order, explained while they wait, and ended."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from gpu_scheduler import placing
from gpu_scheduler.model import Claim, ClaimLimits, ClaimState, Device, Flavor, Offer, Waiting
from gpu_scheduler.ports import Claims, NodeSource, SlotTaken

log = logging.getLogger(__name__)


class ClaimQueue:
    """Decides by gpu_scheduler.placing over what the store and the cluster say now; keeps nothing itself."""

    def __init__(
        self, claims: Claims, nodes: NodeSource, flavors: Mapping[str, Flavor], limits: ClaimLimits
    ) -> None:
        self._claims, self._nodes, self._flavors, self._limits = claims, nodes, flavors, limits

    def flavors(self) -> tuple[Offer, ...]:
        """Return what a user may pick now."""
        return placing.offer(self._flavors, self._nodes.nodes(), *self._split())

    def ask(self, claim_id: str, user: str, teams: Collection[str], flavor: str) -> Claim:
        """Ask for the slots of a runtime; asked again it is the same claim."""
        return self._claims.ask(Claim(claim_id, user, frozenset(teams), flavor))

    def get(self, claim_id: str) -> Claim | None:
        return self._claims.get(claim_id)

    def live(self) -> list[Claim]:
        """Return the claims that wait or are granted."""
        return self._claims.live()

    def admit(self) -> list[Claim]:
        """Grant what can be granted now; return the claims that were."""
        waiting, granted = self._split()
        grants = placing.admit(waiting, granted, self._flavors, self._nodes.nodes().nodes, self._limits)
        done: list[Claim] = []
        for claim_id, slots in grants.items():
            try:
                claim = self._claims.grant(claim_id, slots)
            except SlotTaken:
                log.warning("slots %s were taken meanwhile; claim %s goes on waiting", slots, claim_id)
                continue
            if claim is not None:
                done.append(claim)
        return done

    def waiting(self, claim_id: str) -> Waiting | None:
        """Return where a claim stands, None when it does not wait."""
        claim = self._claims.get(claim_id)
        if claim is None or claim.state is not ClaimState.WAITING:
            return None
        waiting, granted = self._split()
        return placing.explain(claim, waiting, granted, self._flavors, self._nodes.nodes(), self._limits)

    def end(self, claim_id: str) -> None:
        """Give back what a claim holds: its runtime is provably gone."""
        self._claims.end(claim_id)

    def _split(self) -> tuple[list[Claim], list[Claim]]:
        live = self._claims.live()
        return (
            [c for c in live if c.state is ClaimState.WAITING],
            [c for c in live if c.state is ClaimState.GRANTED],
        )


class ClusterAccelerators:
    """What gpu_scheduler.service.Accelerators is for one machine: on a cluster, what is not free is waited for."""

    queues = True

    def __init__(self, queue: ClaimQueue) -> None:
        self._queue = queue

    def flavors(self, held: Collection[str]) -> tuple[Offer, ...]:
        """Return what a user may pick now. Who holds what is the queue's own knowledge."""
        return self._queue.flavors()

    def pick(self, flavor: str, held: Collection[str]) -> Device | None:
        """Return None: devices are granted by claims."""
        return None
