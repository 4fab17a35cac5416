"""The life of one runtime once its machine is starting: readiness, requests, limits, end. Runs in the supervisor.

What the machine is made of, a sandbox on this machine or the container around us, is hidden behind `Machine`.

Requests: status, watch, stop, mount, unmount, mounts, resources, activity, touch, limits, snapshot, restore, logs;
content and taken at the end (spawner.supervisor.handover).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from spawner.supervisor import linux, processes
from spawner.supervisor.drives import Refused
from spawner.supervisor.handover import HandOver
from spawner.supervisor.kernel_use import KernelUse
from spawner.supervisor.machine import Machine
from spawner.supervisor.safe_read import read_object
from spawner.supervisor.watchdog import LOOK_SECONDS, Word

START_SECONDS = 60.0
USE_SECONDS = 15.0  # how often use is looked at when nobody asks, at most
WATCH_SECONDS = 0.5  # how often memory is looked at where no control group limits it
DU_SECONDS = 20.0
JUST_NOW_SECONDS = 5.0  # a process that was killed for want of memory longer ago is no reason of an end
LIMIT_GRACE_SECONDS = 1.5  # for what runs when a limit is reached: no runtime outlives one by two seconds
END_SECONDS = 10.0  # on top of the grace: how long an end may take before the watchdog ends the supervisor
READY = b'{"event": "ready"}\n'

Say = Callable[[dict[str, Any]], None]


def live(machine: Machine, say: Say) -> int:
    """Hold the runtime until it ends; return the exit status."""
    life = Life(machine, say)
    asyncio.run(life.run())
    if life.ready_at is None:
        say({"event": "failed", **life.reason})
    return 0


class Life:
    """One runtime."""

    def __init__(self, machine: Machine, say: Say) -> None:
        self._machine, self._spec = machine, machine.spec
        self._groups, self._shape = machine.groups, machine.shape
        self._main_fd = os.pidfd_open(machine.main)
        self._say = say
        self.state = "starting"
        self.ready_at: float | None = None
        self.reason = {"code": "crashed", "message": "The machine ended by itself."}
        self._port = 0
        accelerators = bool(self._spec.get("devices"))
        self._kernels = KernelUse(machine.run, machine.server_pid, accelerators=accelerators)
        self._started_at = self._used_at = linux.boottime()
        self._max_lifetime = float(self._spec["max_lifetime_seconds"])
        self._idle_limit = float(self._spec["idle_limit_seconds"])
        self._budget: dict[str, Any] | None = self._spec.get("budget")
        self._snapshot_bytes = int(self._spec.get("snapshot_bytes", 0))
        self._grace_seconds = 3.0
        self._kills = self._kills_before = 0
        self._disk_used = 0
        self._watchers: set[asyncio.StreamWriter] = set()
        self._limits_changed = asyncio.Event()
        self._ending = asyncio.Event()
        self._keepers: set[asyncio.StreamWriter] = set()  # those of the watchers who keep /content
        self._handover: HandOver | None = None

    async def run(self) -> None:
        """Serve until the runtime ends; then nothing of it is left."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._main_fd, self._main_ended)
        loop.add_reader(self._machine.ready_watch, self._look_for_readiness)
        loop.add_signal_handler(signal.SIGTERM, self.end, "service_stopped", "The service was stopped.")
        server = await self._machine.listen(self._serve)
        duties = (self._hold_limits(), self._follow_use(), self._kernels.follow(), self._follow_kills())
        tasks = [asyncio.create_task(duty) for duty in duties]
        if self._machine.watchdog is not None:
            tasks.append(asyncio.create_task(self._watch_the_watchdog()))
        if "memory" not in self._groups.limited:
            tasks.append(asyncio.create_task(self._hold_memory()))
        self._look_for_readiness()  # it may have come before we looked
        await self._ending.wait()
        self.state = "stopping"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        loop.remove_reader(self._main_fd)
        was_ready = self.ready_at is not None
        self._say_next(self._grace_seconds + END_SECONDS, **self.reason)
        await self._machine.end(self._main_fd, self._grace_seconds if was_ready else 0.0)
        ended_at = linux.boottime()
        reason = {**self.reason, "boottime": ended_at}
        self._handover = self._machine.to_hand_over(self._snapshot_bytes) if was_ready else None
        self._machine.leave(reason, self._snapshot_bytes if was_ready else 0, was_ready)
        if self._handover is not None:
            for keeper in (True, False):  # who keeps /content is offered it first
                for writer in [w for w in self._watchers if (w in self._keepers) is keeper]:
                    self._handover.give(writer, keeps_content=keeper)
            await self._handover.until_taken(float(self._spec["hand_over_seconds"]))
        server.close()
        await self._tell({"event": "end", **reason, "seconds_ago": linux.boottime() - ended_at})
        for writer in list(self._watchers):
            writer.close()

    def _look_for_readiness(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._machine.ready_watch, 4096)
        if self.ready_at is not None or self._ending.is_set():
            return
        try:
            port = read_object(self._machine.run, "ready.json")["port"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError) as error:
            self.end("start_failed", f"Python started, but not as it should: {error}")
            return
        asyncio.get_running_loop().remove_reader(self._machine.ready_watch)
        os.close(self._machine.ready_watch)
        (self._machine.run / "ticket.key").unlink(missing_ok=True)
        self._port = int(str(port))
        self.ready_at = self._used_at = linux.boottime()
        self.state = "ready"
        self._limits_changed.set()
        self._say({"event": "ready", "port": self._port})
        for writer in self._watchers:
            writer.write(READY)

    # -- end --------------------------------------------------------------------------------------------------

    def end(self, code: str, message: str) -> None:
        """Begin to end the runtime, for the first reason given."""
        if not self._ending.is_set():
            self.reason = {"code": code, "message": message}
            self._ending.set()

    def _main_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._main_fd)
        if self._asked_to_end():
            self.end("unassigned", "The notebook ended its runtime itself (runtime.unassign()).")
        elif self._out_of_memory() > self._kills_before:
            self.end("out_of_memory", "The machine ran out of memory.")
        elif self.state == "starting":
            self.end("start_failed", f"The machine ended while it was starting: {self._last_words()}")
        else:
            self.end("crashed", "The machine ended by itself.")

    def _asked_to_end(self) -> bool:
        try:
            return read_object(self._machine.run, "kernels/end.json").get("code") == "unassigned"
        except (OSError, ValueError):
            return False

    def _out_of_memory(self) -> int:
        return self._groups.oom_kills() + self._kills

    def _last_words(self) -> str:
        """Return the last line the runtime's server wrote, for the person who waits; all of it goes to our own log."""
        text = self._machine.log_tail()
        sys.stderr.write(text)
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it left no word"

    # -- limits -----------------------------------------------------------------------------------------------

    async def _hold_limits(self) -> None:
        """End the runtime when a deadline passes. The timer runs on CLOCK_BOOTTIME, so a machine that slept is not given more."""
        loop = asyncio.get_running_loop()
        timer = linux.new_timer()
        loop.add_reader(timer, self._limits_changed.set)
        try:
            while True:
                self._limits_changed.clear()
                with contextlib.suppress(BlockingIOError):
                    os.read(timer, 8)
                at, reason = self._next_end()
                if linux.boottime() >= at and reason["code"] == "idle":
                    await self._look_at_use()  # someone may have come back in the last second
                    at, reason = self._next_end()
                if linux.boottime() >= at:
                    self._grace_seconds = LIMIT_GRACE_SECONDS
                    self.end(**reason)
                    return
                self._say_next(at - linux.boottime(), **reason)
                linux.set_timer(timer, at)
                await self._limits_changed.wait()
        finally:
            loop.remove_reader(timer)
            os.close(timer)

    def _next_end(self) -> tuple[float, dict[str, str]]:
        """Return when (boottime) and why the runtime ends, if nothing changes until then."""
        if self.ready_at is None:
            message = f"Python did not answer within {START_SECONDS:.0f} seconds."
            return self._started_at + START_SECONDS, {"code": "start_timeout", "message": message}
        life, idle, budget = duration(self._max_lifetime), duration(self._idle_limit), self._budget
        ends = [
            (
                self.ready_at + self._max_lifetime,
                {"code": "max_lifetime", "message": f"The runtime reached its longest life of {life}."},
            ),
            (
                self._used_at + self._idle_limit,
                {"code": "idle", "message": f"Idle for {idle} (limit {idle})."},
            ),
        ]
        if budget is not None:
            reason = {"code": str(budget["code"]), "message": str(budget["message"])}
            ends.append((self.ready_at + float(budget["seconds"]), reason))
        return min(ends, key=lambda end: end[0])

    def _say_next(self, seconds: float, code: str, message: str) -> None:
        """Tell the watchdog how long we may be silent, and how the runtime ends if we are silent longer."""
        if self._machine.watchdog is not None:
            ready = self.ready_at is not None
            kept = self._snapshot_bytes if ready else 0
            self._machine.watchdog.tell(Word(linux.boottime() + seconds, code, message, kept, ready))

    async def _watch_the_watchdog(self) -> None:
        assert self._machine.watchdog is not None
        while True:
            try:
                self._machine.watchdog.look()
            except OSError as error:  # no process to be had just now
                sys.stderr.write(f"the watchdog can not be started: {error}\n")
            await asyncio.sleep(LOOK_SECONDS)

    async def _follow_use(self) -> None:
        while True:
            await asyncio.sleep(max(0.2, min(USE_SECONDS, self._idle_limit / 6)))
            await self._look_at_use()

    async def _look_at_use(self) -> None:
        await self._kernels.look()
        self._used_at = max(self._used_at, self._kernels.used_at())

    async def _follow_kills(self) -> None:
        """Remember how often memory had been short a moment ago."""
        last = self._out_of_memory()
        while True:
            await asyncio.sleep(JUST_NOW_SECONDS)
            self._kills_before, last = last, self._out_of_memory()

    async def _hold_memory(self) -> None:
        """Kill the largest process when all of them together hold too much: what a control group would do."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            sizes = await asyncio.to_thread(self._sizes)
            if sum(sizes.values()) > self._shape.memory_bytes:
                largest = max(sizes, key=lambda pid: sizes[pid])
                self._kills += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(largest, signal.SIGKILL)

    def _sizes(self) -> dict[int, int]:
        return {pid: processes.memory(pid) for pid in processes.below(self._machine.main)}

    # -- requests ---------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not await self._machine.may_ask(reader, writer):
                return
            while line := await reader.readline():
                request = json.loads(line)
                if request["op"] == "watch":
                    self._watch(writer, keeps_content=bool(request.get("keeps_content")))
                    continue
                if request["op"] in ("content", "taken"):
                    if self._handover is not None and request["op"] == "content":
                        await self._handover.send_content(writer)
                    elif self._handover is not None:
                        self._handover.settle(writer, taken=True)
                    continue
                try:
                    if request["op"] == "restore":
                        answer: dict[str, Any] = {"files": await self._machine.receive(reader)}
                    else:
                        answer = await self._answer(request)
                except Refused as refusal:
                    answer = {"error": {"code": refusal.code, "message": str(refusal)}}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, KeyError, TypeError):
            return  # a client that goes away or talks nonsense is no concern of the runtime
        finally:
            self._watchers.discard(writer)
            self._keepers.discard(writer)
            if self._handover is not None:
                self._handover.settle(writer, taken=False)
            writer.close()

    def _watch(self, writer: asyncio.StreamWriter, *, keeps_content: bool) -> None:
        """From now on one is told what happens."""
        self._watchers.add(writer)
        if keeps_content:
            self._keepers.add(writer)
        if self.ready_at is not None:
            writer.write(READY)
        if self._handover is not None:
            self._handover.give(writer, keeps_content=keeps_content)

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "status":
                return self._status()
            case "stop":
                self._grace_seconds = _positive(request.get("grace_seconds", 3.0))
                self.end(str(request["code"]), str(request["message"]))
            case "mount":
                source, target = str(request["source"]), str(request["target"])
                await self._machine.drives.mount(source, target, readonly=bool(request["readonly"]))
            case "unmount":
                await self._machine.drives.unmount(str(request["target"]))
            case "mounts":
                found = self._machine.drives.mounted.items()
                return {"mounts": [{"target": target, "readonly": readonly} for target, readonly in found]}
            case "resources":
                return await asyncio.to_thread(self._resources)
            case "activity":
                await self._look_at_use()
                return {"busy": self._kernels.busy, "seconds_ago": max(0.0, linux.boottime() - self._used_at)}
            case "touch":
                self._used_at = linux.boottime()
            case "limits":
                longest = _positive(request["max_lifetime_seconds"])
                idle = _positive(request["idle_limit_seconds"])
                budget = request.get("budget")
                if budget is not None:
                    budget = {**budget, "seconds": _positive(budget["seconds"])}
                self._max_lifetime, self._idle_limit, self._budget = longest, idle, budget
                self._limits_changed.set()
                # Not only once we come round to it: whoever asked may rely on it from now on.
                at, reason = self._next_end()
                self._say_next(at - linux.boottime(), **reason)
            case "snapshot":
                self._snapshot_bytes = int(_positive(request["bytes"]))
            case "logs":
                return {"text": self._machine.log_tail()}
            case other:
                raise Refused("bad_request", f"Unknown request '{other}'.")
        return {"ok": True}

    def _status(self) -> dict[str, Any]:
        spec = self._spec
        return {
            "id": spec["id"],
            "user": spec["user"],
            "file_id": spec["file_id"],
            "state": self.state,
            "port": self._port,
            "ready_at": self.ready_at,
            "ready_seconds_ago": linux.boottime() - self.ready_at if self.ready_at is not None else None,
            "rung": self._machine.rung,
        }

    async def _tell(self, event: dict[str, Any]) -> None:
        for writer in list(self._watchers):
            with contextlib.suppress(OSError):
                writer.write(json.dumps(event).encode() + b"\n")
                await writer.drain()

    def _resources(self) -> dict[str, Any]:
        used = self._groups.memory_used()
        server = self._machine.server_pid()  # in a container it is the main process itself
        pids = {*processes.below(self._machine.main), *([server] if server else [])}
        return {
            "memory_used": used if used is not None else sum(self._sizes().values()),
            "memory_limit": self._shape.memory_bytes,
            "disk_used": self._look_at_disk(),
            "disk_free": shutil.disk_usage(self._machine.folder).free,
            "processes": len(pids),
            "oom_kills": self._out_of_memory(),
        }

    def _look_at_disk(self) -> int:
        """Return the bytes the runtime has written; the last known number when counting takes too long."""
        command = ["du", "-sxk", *map(str, self._machine.written)]
        with contextlib.suppress(subprocess.TimeoutExpired, IndexError, ValueError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=DU_SECONDS, check=False)
            self._disk_used = sum(int(line.split()[0]) for line in done.stdout.splitlines()) * 1024
        return self._disk_used


def _positive(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise Refused("bad_request", "A number of seconds must be finite and not negative.")
    return number


def duration(seconds: float) -> str:
    """Return a length of time in the words of a sentence."""
    if seconds >= 7200 and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:g} seconds"
