"""How long nodes have been away: since they are seen not to be ready, or since the cluster says they are not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from quota.clock import Clock
from spawner.kubernetes import phases
from spawner.kubernetes.model import Object
from spawner.kubernetes.watch import Mirror

FORGET_SECONDS = 60.0  # who has not looked at a node for so long begins anew


@dataclass
class _Look:
    """Since when a node is known not to be ready, and when it was last looked at (monotonic)."""

    since: float
    seen: float


class Away:
    """What is known of nodes that are not ready, from a mirror of the cluster's nodes."""

    def __init__(self, nodes: Mirror, clock: Clock) -> None:
        self._nodes, self._clock = nodes, clock
        self._known: dict[str, _Look] = {}

    def seconds(self, pod: Object) -> float:
        """Return how long the node of a pod is known not to be ready, in seconds; 0 while it is, or nobody knows."""
        name = phases.node_of(pod)
        if name is None or not self._nodes.fresh:
            return 0.0
        node = next(iter(self._nodes.of(name)), None)
        if node is not None and phases.is_ready(node):
            self._known.pop(name, None)
            return 0.0
        now = time.monotonic()
        known = self._known.get(name)
        if known is None or now - known.seen > FORGET_SECONDS:
            known = self._known[name] = _Look(now, now)
        known.seen = now
        told = phases.unready_since(node) if node is not None else None
        return max(now - known.since, ago(told, self._clock) if told is not None else 0.0)


def ago(when: str, clock: Clock) -> float:
    """Return how long ago a time of the cluster's was, in seconds."""
    return max(0.0, (clock.now() - datetime.fromisoformat(when).astimezone(UTC)).total_seconds())
