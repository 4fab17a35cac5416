"""How late runtimes end, and how late that is known, when each carries its own limit and control is up.

`python bench/supervised_ends.py [--sessions 1000] [--at-once 150] [--life 20] [--server trivial|real]` prints one JSON object.

Control, its web server and its SQLite database are the real ones, and so are the local backend and its supervisors: each runtime is
a process tree of its own with a CLOCK_BOOTTIME deadline, and ends by it. Its server is, unless `--server real`, a program that says
it is ready and waits: a real one takes about a second of a core to start and 100 MB, so that a thousand of them would be half an
hour of starting on two cores, and ends them no other way. The hub and documents are stand-ins. The overrun is what the supervisor
writes down once no process of the runtime is left, less its deadline.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import control_plane  # beside this file; it makes the tests' stand-ins importable
import control_support
from control_plane import say, share

from hub.setup.runtime_environment import environment_for
from quota.clock import SystemClock
from spawner.local.backend import LocalBackend
from spawner.model import Endpoint, RuntimeSpec, Shape
from spawner.ports import OnPhase

SHAPE = Shape("STANDARD", 1 << 30, 1.0, 256)
STARTS_AT_ONCE = 4
TRIVIAL = """
import os, signal
draft = os.environ["MINICOLAB_READY_FILE"] + ".draft"
with open(draft, "w") as file:
    file.write('{"port": 1}')
os.replace(draft, os.environ["MINICOLAB_READY_FILE"])
signal.pause()
"""


def trivial_environment(folder: Path) -> tuple[Path, Path]:
    """Make an environment and a layer over it whose server only says that it is ready."""
    env, code = folder / "env", folder / "code"
    site = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for layer in (env, code):
        (layer / site / "minicolab_runtime").mkdir(parents=True)
    (env / "bin").mkdir()
    (env / "bin" / "python").symlink_to(sys.executable)
    (env / "pyvenv.cfg").write_text(f"home = {sys.base_prefix}/bin\n")
    (code / site / "minicolab_runtime" / "__init__.py").touch()
    (code / site / "minicolab_runtime" / "server.py").write_text(TRIVIAL)
    return env, code


def backend_class(env: Path, code: Path, isolation: str, life: float) -> type[LocalBackend]:
    """Return the local backend as the stand-ins make it, with limits of seconds."""

    class Supervised(LocalBackend):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder, env, code, isolation=isolation, allow_plain_multiuser=True)

        async def start(self, spec: RuntimeSpec, on_phase: OnPhase) -> Endpoint:
            limits = {"max_lifetime_seconds": life, "idle_limit_seconds": 3600.0}
            own = replace(spec, shape=SHAPE, ticket_key=bytes(32), **limits)
            return await super().start(own, on_phase)

    return Supervised


async def measure(sessions: int, at_once: int, life: float, server: str) -> None:
    control_plane.prepare(sessions)
    folder = Path(tempfile.mkdtemp())
    if server == "real":
        del os.environ["MINICOLAB_CACHE"]  # the stand-ins' own: this machine's has the real environment
        environment = environment_for("minimal")[1]
        env, code, isolation = environment.env, environment.code, "auto"
    else:
        (env, code), isolation = trivial_environment(folder), "plain"
    os.environ["MINICOLAB_CACHE"] = str(folder / "cache")
    control_support.FileBackend = backend_class(env, code, isolation, life)  # type: ignore[assignment,misc]
    clock = SystemClock()
    known: dict[str, tuple[float, dict[str, Any]]] = {}
    most = 0
    quota = {"max_lifetime": f"{life:.0f}s", "warn_before": ["5s"]}
    async with control_support.world(folder / "state", quota=quota) as here:
        room, starting = asyncio.Semaphore(at_once), asyncio.Semaphore(STARTS_AT_ONCE)

        async def one(number: int) -> None:
            nonlocal most
            async with room:
                async with starting:
                    model = await here.ready(f"u{number}", f"n{number}")
                most = max(most, at_once - room._value)
                async for fields, data in here.events(f"u{number}", model["id"]):
                    if fields.get("event") == "ended" or data["state"] in ("ended", "failed"):
                        known[model["id"]] = (clock.boottime(), data)
                        return

        began = time.monotonic()
        await asyncio.gather(*(one(number) for number in range(sessions)))
        took = time.monotonic() - began
        over, heard, warned = [], [], 0
        ledger = here.control.sessions.ledger
        for runtime, (at, data) in known.items():
            session = ledger.get(runtime)
            assert (
                session is not None
                and session.ready_boottime is not None
                and session.used_seconds is not None
            )
            assert data["reason"]["code"] == "max_lifetime", data["reason"]
            over.append(session.used_seconds - life)
            heard.append(at - session.ready_boottime - life)
            warned += any(event == "warned" for event, _, _ in ledger.events(runtime))
    say(
        f"ends by their supervisors ({server} server, {isolation})",
        sessions=len(over),
        live_at_once=most,
        life_s=life,
        announced=warned,
        earliest_s=round(min(over), 3),
        **numbers("overrun", over),
        **numbers("told_with_reason", heard),
        took_s=round(took),
    )


def numbers(name: str, values: Sequence[float]) -> dict[str, float]:
    parts = {"p50": 0.5, "p99": 0.99, "p100": 1.0}
    return {f"{name}_{key}_s": round(share(list(values), part), 3) for key, part in parts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=150)
    parser.add_argument("--life", type=float, default=20.0)
    parser.add_argument("--server", choices=("trivial", "real"), default="trivial")
    options = parser.parse_args()
    asyncio.run(measure(options.sessions, options.at_once, options.life, options.server))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
