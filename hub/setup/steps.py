"""Run one set-up step: take its lock, show its progress, leave it complete or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


class SetupError(Exception):
    """A step failed; the text says what is missing and how to get it."""


def say(text: str) -> None:
    """Print a progress line at once."""
    print(text, flush=True)  # noqa: T201  # set-up speaks to a person


@contextlib.contextmanager
def step(title: str, estimate_seconds: float) -> Iterator[None]:
    """Announce a long step with its estimate, and say how long it took."""
    say(f"• {title} (about {duration(estimate_seconds)})")
    started = time.monotonic()
    yield
    say(f"  done in {duration(time.monotonic() - started)}")


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while inside, so that two checkouts never build the same thing twice at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting for another set-up that is busy with {path.parent}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    log: Path,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a command with its output in `log`. Raise SetupError with the end of the log when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                out.write(line)
                out.flush()
                if on_line is not None:
                    on_line(line)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code != 0:
        tail = "\n".join("    " + line for line in log.read_text("utf-8", "replace").splitlines()[-15:])
        raise SetupError(f"'{' '.join(command[:4])} …' failed with status {code} (log: {log}):\n{tail}")


def publish(draft: Path, final: Path) -> None:
    """Move a finished folder into place in one step; a half-made one is never seen."""
    final.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(final)


def python() -> str:
    """Return the interpreter of the project's environment."""
    return sys.executable
