"""How much one control service carries: reads, a burst of starts, a thousand ends, and a restart with a long record.

`python bench/control_plane.py [reads|starts|ends|restart ...]` prints one JSON object a line. Control, its web server and its SQLite
database are the real ones; the hub, documents and the machines are stand-ins, so that only control is measured. Everything shares
this machine's cores, the callers included.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
for folder in (ROOT, ROOT / "tests", ROOT / "tests" / "unit" / "control"):
    sys.path.insert(0, str(folder))
os.environ.setdefault("MINICOLAB_CACHE", tempfile.mkdtemp())

import aiohttp  # noqa: E402
import control_support  # noqa: E402
from control_support import API, FileBackend, World, world  # noqa: E402

from quota.model import Reason, State  # noqa: E402
from quota.service import Request, Sessions  # noqa: E402
from quota.sql import SqlLedger, create_engine  # noqa: E402
from spawner.model import EndReason  # noqa: E402

PEOPLE, CALLERS, READ_SECONDS = 100, 3, 6.0
STARTS, START_SECONDS = 300, 5.0
ENDS, LIFE_SECONDS = 1000, 30.0
PAST, LIVE = 10_000, 500


class MemoryBackend(FileBackend):
    """Machines that are entries of a dictionary; nothing but control ends them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.machines: dict[str, dict[str, Any]] = {}
        self.over: dict[str, asyncio.Event] = {}
        self.ended: dict[str, float] = {}

    def _read(self, runtime_id: str) -> dict[str, Any]:
        if runtime_id not in self.machines:
            raise control_support.BackendError("no_such_runtime", "This runtime is not there any more.")
        return self.machines[runtime_id]

    def _write(self, runtime_id: str, data: dict[str, Any]) -> None:
        self.machines[runtime_id] = data
        self.over.setdefault(runtime_id, asyncio.Event())

    async def list_all(self) -> list[Any]:
        return [o for i in list(self.machines) if (o := await self.observe(i)) is not None]

    async def stop(self, runtime_id: str, *, reason: EndReason, grace_seconds: float) -> None:
        if self.machines.pop(runtime_id, None) is not None:
            self.ended[runtime_id] = time.clock_gettime(time.CLOCK_BOOTTIME)
            self.over[runtime_id].set()

    async def wait_end(self, runtime_id: str) -> EndReason:
        await self.over.setdefault(runtime_id, asyncio.Event()).wait()
        return EndReason("lost", "The machine disappeared without saying why.")


def prepare(count: int) -> None:
    """Make `count` users with notebooks of their own, and machines in memory."""
    control_support.FileBackend = MemoryBackend  # type: ignore[misc]
    for number in range(count):
        control_support.TOKENS[f"u{number}-token"] = f"u{number}"
        control_support.FILES[f"n{number}"] = f"u{number}"


def say(what: str, **numbers: object) -> None:
    print(json.dumps({"measure": what, "cores": os.cpu_count(), **numbers}), flush=True)


def share(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def start(here: World, number: int) -> dict[str, Any]:
    status, model = await here.call(f"u{number}", "POST", "runtimes", {"file_id": f"n{number}"})
    return {"status": status, **model}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # a dictionary can not be awaited
        await asyncio.sleep(0.02)


def read_for(url: str, paths: list[tuple[str, str]], seconds: float, at_once: int = 8) -> list[float]:
    """Call the paths over and over; return how long each call took."""

    async def run() -> list[float]:
        took: list[float] = []
        over = time.monotonic() + seconds

        async def one(offset: int, http: aiohttp.ClientSession) -> None:
            turn = offset
            while time.monotonic() < over:
                token, path = paths[turn % len(paths)]
                turn += 1
                begun = time.monotonic()
                async with http.get(url + path, headers={"Authorization": f"Bearer {token}"}) as reply:
                    await reply.read()
                    assert reply.status == 200, reply.status
                took.append(time.monotonic() - begun)

        async with aiohttp.ClientSession() as http:
            await asyncio.gather(*(one(i, http) for i in range(at_once)))
        return took

    return asyncio.run(run())


async def reads() -> None:
    prepare(PEOPLE)
    async with world(Path(tempfile.mkdtemp()) / "state") as here:
        models = [await start(here, n) for n in range(PEOPLE)]
        await until(lambda: all(s.state is State.READY for s in here.control.sessions.ledger.live()))
        paths = [(f"u{n}-token", f"{API}/runtimes/{m['id']}") for n, m in enumerate(models)]
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(CALLERS) as pool:
            jobs = [
                loop.run_in_executor(pool, read_for, here.url, paths[n::CALLERS], READ_SECONDS)
                for n in range(CALLERS)
            ]
            took = [seconds for found in await asyncio.gather(*jobs) for seconds in found]
        say(
            "reads of one runtime",
            per_second=round(len(took) / READ_SECONDS),
            p50_ms=round(1000 * share(took, 0.5), 1),
            p99_ms=round(1000 * share(took, 0.99), 1),
            live_runtimes=PEOPLE,
        )


async def starts() -> None:
    prepare(STARTS)
    async with world(Path(tempfile.mkdtemp()) / "state") as here:
        begun = time.monotonic()
        placed: list[float] = []

        async def later(number: int) -> dict[str, Any]:
            await asyncio.sleep(number * START_SECONDS / STARTS)
            asked = time.monotonic()
            answer = await start(here, number)
            placed.append(
                time.monotonic() - asked
            )  # the intent is in the database: it has a place, or waits for one
            return answer

        answers = await asyncio.gather(*(later(n) for n in range(STARTS)))
        answered = time.monotonic() - begun
        live = here.control.sessions.ledger.live
        await until(lambda: sum(s.state is State.READY for s in live()) == STARTS)
        say(
            "starts",
            asked=STARTS,
            in_seconds=START_SECONDS,
            placed_p50_s=round(share(placed, 0.5), 3),
            placed_p100_s=round(max(placed), 3),
            all_placed_after_s=round(answered, 2),
            all_ready_after_s=round(time.monotonic() - begun, 2),
            server_errors=sum(a["status"] >= 500 for a in answers),
            refused=sum(400 <= a["status"] < 500 for a in answers),
        )


async def ends() -> None:
    prepare(ENDS)
    quota = {"max_lifetime": f"{LIFE_SECONDS:.0f}s", "warn_before": ["5s"]}
    async with world(Path(tempfile.mkdtemp()) / "state", quota=quota) as here:
        for first in range(0, ENDS, 20):
            started = await asyncio.gather(*(start(here, n) for n in range(first, first + 20)))
            assert all(answer["status"] == 202 for answer in started), started
        live, backend = here.control.sessions.ledger.live, here.backend
        assert isinstance(backend, MemoryBackend)
        await until(lambda: len(backend.ended) == ENDS and not live())
        overrun = []
        for runtime, ended in backend.ended.items():
            session = here.control.sessions.ledger.get(runtime)
            assert session is not None and session.ready_boottime is not None
            assert session.reason is not None and session.reason.code == "max_lifetime", session.reason
            overrun.append(ended - session.ready_boottime - LIFE_SECONDS)
        warned = sum(
            event == "warned" for i in backend.ended for event, _, _ in here.control.sessions.ledger.events(i)
        )
        say(
            "ends by control alone (no supervisor)",
            sessions=len(overrun),
            overrun_p50_s=round(share(overrun, 0.5), 2),
            overrun_p99_s=round(share(overrun, 0.99), 2),
            overrun_p100_s=round(max(overrun), 2),
            earliest_s=round(min(overrun), 2),
            announced=warned,
        )


def fill(service: Any) -> None:
    """Write a long record: sessions of the last year, most of them ended."""
    from quota.clock import SystemClock

    clock = SystemClock()
    ledger = SqlLedger(create_engine(service.control_database_url))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    sessions = Sessions(ledger, clock, boot)
    wide = replace(control_support_limits(), max_runtimes=PAST + LIVE)
    ids = []
    for number in range(PAST + LIVE):
        request = Request(f"u{number % 1000}", f"f{number}", "n.ipynb", "NONE", "STANDARD", "local", None)
        ids.append(sessions.begin(request, wide)[0].id)
    with ledger.together():
        for number, session in enumerate(ids):
            sessions.ready(session, None)
            if number < PAST:
                ledger.note(session, {"ready": clock.now() - timedelta(days=number % 365, hours=1)})
                sessions.end(session, Reason("idle", "Idle."))


def control_support_limits() -> Any:
    from hub.quota_settings import QuotaSettings
    from hub.wiring import quota_rules

    return quota_rules(QuotaSettings()).base


async def restart() -> None:
    prepare(0)
    folder = Path(tempfile.mkdtemp()) / "state"
    service = control_support.make_service(folder)
    fill(service)
    runner = ROOT / "tests" / "unit" / "control" / "run_control.py"
    backend = FileBackend(folder / "fake-runtimes")
    for session in SqlLedger(create_engine(service.control_database_url)).live():
        backend.put(session.id, session.user, session.file_id)
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(runner), "--state", str(folder)),
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    async with aiohttp.ClientSession() as http:
        while True:
            with suppress(aiohttp.ClientError):
                async with http.get(
                    f"http://127.0.0.1:{service.ports.control}/services/control/healthz"
                ) as reply:
                    if reply.status == 200:
                        break
            await asyncio.sleep(0.02)
    ready = time.monotonic() - begun
    peak = int(
        next(
            line.split()[1]
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
    )
    process.terminate()
    await process.wait()
    say(
        "restart",
        past_sessions=PAST,
        live_sessions=LIVE,
        answers_after_s=round(ready, 2),
        peak_memory_mb=round(peak / 1024),
        own_peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    )


MEASURES = {"reads": reads, "starts": starts, "ends": ends, "restart": restart}


def main() -> int:
    for name in sys.argv[1:] or list(MEASURES):
        asyncio.run(MEASURES[name]())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
