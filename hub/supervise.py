"""Start the processes of one installation, keep them running, and end them.

A process that ends by itself is started again with growing delay. Children get SIGTERM when this process dies for any
reason (PR_SET_PDEATHSIG), so a killed supervisor leaves no port taken. Runtimes are not children: they live on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0
SAID_WHY = {
    74: "input or output",
    75: "try later",
    78: "settings or database refused",
}  # exits that leave a sentence
FOR_GOOD = 78  # nothing changes by starting it again
HEALTHY_AFTER_SECONDS = 30.0
PR_SET_PDEATHSIG = 1
LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ [\w.]+: ")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Program:
    """One process to keep running. `stop_seconds`: how long it may take to end before it is killed."""

    name: str
    command: Sequence[str]
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: float = 15.0
    after_restart: Callable[[], Coroutine[None, None, None]] | None = None


class ProcessFailed(Exception):
    """A process ended before the service was ready; the text says which and why, or shows the end of its log."""

    def __init__(self, message: str, status: int = 74) -> None:
        super().__init__(message)
        self.status = status


class Supervisor:
    """Runs programs until `stop`."""

    def __init__(self, restarted: Callable[[], None] = lambda: None) -> None:
        """`restarted` is called whenever a process was started again, so that whoever wrote `pids` down can do so anew."""
        self._restarted = restarted
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._programs: dict[str, Program] = {}
        self._stopping = False
        self.first_failure: asyncio.Future[ProcessFailed] = asyncio.get_running_loop().create_future()
        self._ready = False

    def start(self, program: Program) -> None:
        """Start keeping `program` running."""
        self._programs[program.name] = program
        self._tasks[program.name] = asyncio.create_task(self._keep(program), name=f"keep {program.name}")

    def ready(self) -> None:
        """From now on a process that ends is restarted; before, it is a failure of the start."""
        self._ready = True

    def pids(self) -> dict[str, int]:
        """Return the process ids of what runs now."""
        return {name: process.pid for name, process in self._processes.items() if process.returncode is None}

    async def stop(self) -> None:
        """End everything this supervisor started, last started first, and wait for it."""
        self._stopping = True
        for name in reversed(list(self._programs)):
            await self._end(name)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _end(self, name: str) -> None:
        process = self._processes.get(name)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._programs[name].stop_seconds):
                await process.wait()
        except TimeoutError:
            log.warning("%s did not end in %.0f s: killed", name, self._programs[name].stop_seconds)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _keep(self, program: Program) -> None:
        delay = FIRST_DELAY_SECONDS
        loop = asyncio.get_running_loop()
        first = True
        while not self._stopping:
            started = loop.time()
            process = await self._launch(program)
            self._processes[program.name] = process
            if not first:
                self._restarted()
                if program.after_restart is not None:
                    asyncio.create_task(
                        program.after_restart(), name=f"after restart of {program.name}"
                    ).add_done_callback(_report)
            first = False
            code = await process.wait()
            if self._stopping:
                return
            if not self._ready:
                if not self.first_failure.done():
                    self.first_failure.set_result(_failure(program, code))
                return
            if code == FOR_GOOD:
                log.critical(
                    "%s ended with status %d and is not started again until the next 'minicolab up': %s",
                    program.name,
                    code,
                    last_sentence(program.log_file),
                )
                return
            if loop.time() - started > HEALTHY_AFTER_SECONDS:
                delay = FIRST_DELAY_SECONDS
            log.error(
                "%s ended with status %d; starting it again in %.1f s (%s)",
                program.name,
                code,
                delay,
                last_sentence(program.log_file) if code in SAID_WHY else f"log: {program.log_file}",
            )
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY_SECONDS)

    async def _launch(self, program: Program) -> asyncio.subprocess.Process:
        program.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with program.log_file.open("ab") as out:
            return await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **program.environment},
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on, in order
                preexec_fn=die_with_parent,
            )


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("%s failed", task.get_name(), exc_info=task.exception())


def _failure(program: Program, code: int) -> ProcessFailed:
    if code in SAID_WHY:
        return ProcessFailed(f"{program.name} can not start: {last_sentence(program.log_file)}", code)
    return ProcessFailed(
        f"{program.name} ended with status {code} while starting:\n{last_lines(program.log_file)}"
    )


def last_sentence(path: Path) -> str:
    """Return the last line of a log file, without what the log puts before a message."""
    return LOG_PREFIX.sub("", last_lines(path, 1, longest=2000).strip())


def die_with_parent() -> None:
    """For a child about to run its program: have it told to end when its parent dies for any reason."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def last_lines(path: Path, count: int = 15, longest: int = 300) -> str:
    """Return the last lines of a log file, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            lines = file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return ""
    return "\n".join("    " + line[:longest] for line in lines)
