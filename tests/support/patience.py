"""How long a test waits, and how it measures what has to happen within a time.

A test waits for events. What should come and does not is given up after PATIENCE, which no machine needs when all is well: a slow
one makes tests slower, never red. Where the time itself is the promise ("within two seconds"), a Stopwatch measures it in seconds
of an idle machine, so that being held up by other work is not taken for a broken promise, and a timer or poll that stands in for an
event still is.
"""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections.abc import Callable
from types import TracebackType

PATIENCE = 90.0

# One probe: a piece of work, then a sleep. What it takes on an ordinary machine with nothing else to do.
WORK_SECONDS, SLEEP_SECONDS = 0.008, 0.024
BLOCK = b"".join(b"%d " % (n * n) for n in range(12_000))


def until(
    condition: Callable[[], object], what: str | Callable[[], str] = "the condition never came true"
) -> None:
    """Wait until something is true that no event tells; `what` says what failed, a callable one as things are by then."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.02)


async def until_async(condition: Callable[[], object], what: str = "the condition never came true") -> None:
    """The same in an event loop."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


class Stopwatch:
    """`with Stopwatch() as watch: ...`; afterwards `watch.seconds` is what the block took, in seconds of an idle machine."""

    def __enter__(self) -> Stopwatch:
        self._over = threading.Event()
        self._probes: list[tuple[float, float]] = []  # seconds of work, seconds of work and sleep
        self._thread = threading.Thread(target=self._probe, daemon=True)
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.elapsed = time.monotonic() - self._began
        self._over.set()
        self._thread.join()

    @property
    def slowness(self) -> float:
        """How many times longer everything took than on an idle machine; 1 there and on a faster one."""
        probes = len(self._probes)
        work = sum(work for work, _ in self._probes) / (probes * WORK_SECONDS)
        both = sum(both for _, both in self._probes) / (probes * (WORK_SECONDS + SLEEP_SECONDS))
        return max(1.0, work, both)

    @property
    def seconds(self) -> float:
        return self.elapsed / self.slowness

    def _probe(self) -> None:
        while not self._over.is_set() or not self._probes:
            began = time.monotonic()
            zlib.compress(BLOCK, 6)  # without Python's lock: the test beside it goes on
            worked = time.monotonic()
            time.sleep(SLEEP_SECONDS)
            self._probes.append((worked - began, time.monotonic() - began))
