"""The stopwatch takes off what the machine lost to other work, and nothing else."""

from __future__ import annotations

import time

import pytest

from support.patience import SLEEP_SECONDS, WORK_SECONDS, Stopwatch


def test_time_that_passes_is_counted() -> None:
    with Stopwatch() as watch:
        time.sleep(0.5)
    assert watch.elapsed >= 0.5
    assert watch.slowness >= 1
    assert watch.seconds * watch.slowness == pytest.approx(watch.elapsed)


@pytest.mark.parametrize(
    ("work", "sleep", "slowness"),
    [
        pytest.param(1, 1, 1, id="an idle machine"),
        pytest.param(0.5, 1, 1, id="a faster one gets nothing on top"),
        pytest.param(3, 3, 3, id="held up everywhere"),
        pytest.param(4, 1, 4, id="a slow processor"),
        pytest.param(1, 5, 4, id="woken up late"),
    ],
)
def test_what_the_machine_lost_is_taken_off(work: float, sleep: float, slowness: float) -> None:
    with Stopwatch() as watch:
        pass
    took = work * WORK_SECONDS
    watch._probes = [(took, took + sleep * SLEEP_SECONDS)] * 5
    watch.elapsed = 6.0
    assert watch.slowness == pytest.approx(slowness)
    assert watch.seconds == pytest.approx(6.0 / slowness)
