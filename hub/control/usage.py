"""Usage for Prometheus: totals since the beginning, out of the ledger, and what lives now."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quota.service import Sessions

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def exposition(sessions: Sessions) -> bytes:
    """Return the metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ledger(sessions))
    return generate_latest(registry)


class _Ledger(Collector):
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> list[Metric]:
        """Return usage by user and accelerator, and live runtimes by state and accelerator."""
        labels = ["user", "accelerator"]
        seconds = CounterMetricFamily(
            "minicolab_runtime_seconds", "Time that runtimes were ready.", labels=labels
        )
        accelerator = CounterMetricFamily(
            "minicolab_accelerator_hours", "Accelerator-hours used, by price.", labels=labels
        )
        cpu = CounterMetricFamily("minicolab_cpu_hours", "CPU-hours given.", labels=labels)
        sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for charge in self._sessions.charges(BEGINNING):
            line = sums[charge.user, charge.accelerator]
            hours = charge.seconds / 3600
            line[0] += charge.seconds
            line[1] += hours * charge.price
            line[2] += hours * charge.cpus
        for key, line in sorted(sums.items()):
            for metric, value in zip((seconds, accelerator, cpu), line, strict=True):
                metric.add_metric(list(key), value)
        live = GaugeMetricFamily(
            "minicolab_live_runtimes", "Runtimes that live.", labels=["state", "accelerator"]
        )
        counts = Counter((s.state.value, s.accelerator) for s in self._sessions.ledger.live())
        for key, count in sorted(counts.items()):
            live.add_metric(list(key), count)
        return [seconds, accelerator, cpu, live]
