"""Run a command of the machine; say what failed and what it said."""

from __future__ import annotations

import subprocess

from cluster.harness.errors import ClusterError

LONGEST = 300.0


def command(
    *arguments: str, text: str = "", check: bool = True, seconds: float = LONGEST
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raise ClusterError when it fails and `check`."""
    try:
        done = subprocess.run(
            arguments,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"'{' '.join(arguments)}' did not end within {seconds:.0f} s") from None
    if check and done.returncode != 0:
        raise ClusterError(
            f"'{' '.join(arguments)}' failed ({done.returncode}): {(done.stderr or done.stdout).strip()}"
        )
    return done


def output(*arguments: str) -> str:
    """Return what a command prints. Raise ClusterError when it fails."""
    return command(*arguments).stdout
