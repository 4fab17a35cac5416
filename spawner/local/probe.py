"""Find out, by trying, how well this machine can isolate a runtime."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from spawner.local.sandbox import Rung
from spawner.model import IsolationReport
from spawner.supervisor import linux
from spawner.supervisor.limits import CONTROLLERS, what_can_be_limited

TRY_SECONDS = 20

_REPORTS: Mapping[Rung, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Rung.NAMESPACES: (("files", "processes", "own writable Python environment (pip)", "devices"), ()),
    Rung.BUBBLEWRAP: (
        ("files", "processes", "own writable Python environment (pip)", "devices"),
        ("apt-get can not install: the system is read-only",),
    ),
    Rung.PLAIN: (
        ("own writable Python environment (pip)",),
        (
            "NOT ISOLATED: code in a runtime can read and change everything the service can",
            "a mounted drive is a link, not a mount",
            "apt-get can not install",
        ),
    ),
}
_NAMES = {"memory": "memory", "pids": "number of processes", "cpu": "CPU time"}


class NoRung(Exception):
    """The rung that was asked for does not work here; the text says why."""


def choose_rung(wanted: str, env: Path) -> tuple[Rung, str]:
    """Return the rung for the setting `auto` or a rung's name, and why no better one (empty when it is what was wanted).

    Raise NoRung when the rung that is wanted does not work.
    """
    if wanted != "auto":
        rung = Rung(wanted)
        problem = _problem(rung, env)
        if problem is not None:
            raise NoRung(
                f"runtimes.local.isolation is {rung}, which does not work on this machine: {problem}"
            )
        return rung, ""
    problems: list[str] = []
    for rung in (Rung.NAMESPACES, Rung.BUBBLEWRAP):
        problem = _problem(rung, env)
        if problem is None:
            return rung, "; ".join(problems)
        problems.append(f"{rung}: {problem}")
    return Rung.PLAIN, "; ".join(problems)


def _problem(rung: Rung, env: Path) -> str | None:
    if rung is Rung.PLAIN:
        return None
    if rung is Rung.NAMESPACES and os.geteuid() != 0 and env.exists() and env.stat().st_uid != os.geteuid():
        # Who owns nothing of it can not write to an overlay of it either.
        return (
            "the runtime environment belongs to another user, so pip could not install into an overlay of it"
        )
    return try_rung(rung)


@functools.cache
def try_rung(rung: Rung) -> str | None:
    """Build a sandbox of this rung around a command; return None when it works, else what went wrong."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (apt-get install bubblewrap)"
    with tempfile.TemporaryDirectory(prefix="minicolab-probe-") as scratch:
        command = [sys.executable, "-S", "-m", "spawner.local.keeper", "--probe", rung, scratch]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=TRY_SECONDS,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return f"the trial did not end in {TRY_SECONDS} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]


@functools.cache
def _limited() -> frozenset[str]:
    return what_can_be_limited()


def abstract_sockets_are_forbidden() -> bool:
    """Return whether this kernel can keep a runtime from the machine's sockets without a path."""
    return linux.landlock_scopes()


def report(rung: Rung, why_no_better: str) -> IsolationReport:
    """Return what a rung keeps apart on this machine, and what it does not."""
    isolates, does_not = (list(part) for part in _REPORTS[rung])
    if rung is Rung.NAMESPACES:
        if os.geteuid() == 0:
            isolates.append("own writable system (apt)")
        else:
            does_not.append("apt-get can not install: the service does not run as root")
    limited = _limited()
    isolates += [f"{_NAMES[name]} (control group)" for name in CONTROLLERS if name in limited]
    if "memory" not in limited:
        isolates.append(
            "memory (of each process by the kernel, of all together by a watcher every half second)"
        )
    if "pids" not in limited and rung is not Rung.PLAIN:
        isolates.append("number of processes (of the sandbox's own user namespace)")
    if "pids" not in limited and rung is Rung.PLAIN:
        does_not.append("the number of processes is not limited")
    if "cpu" not in limited:
        does_not.append("CPU time is not limited: no control group can be written")
    does_not.append("the machine's network is shared")
    if not abstract_sockets_are_forbidden():
        does_not.append(
            "sockets of the machine that have no path can be reached (Linux 6.12 with Landlock is needed)"
        )
    if why_no_better:
        does_not.append(f"no better: {why_no_better}")
    return IsolationReport(rung, tuple(isolates), tuple(does_not))
