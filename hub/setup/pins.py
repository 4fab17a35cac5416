"""Ask the index whether everything in a runtime's image can still be had, at its exact version, for the Debian that images are made of.

Nothing is installed; metadata alone is fetched where the index has it apart from the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hub.setup.steps import SetupError

# Debian 12: Python 3.11, glibc 2.36.
PYTHON, GLIBC = "3.11", (2, 36)
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC[1], 4, -1)]
PLATFORMS += [f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")]


def check_pins(pins: Sequence[str], constraints: Path) -> list[str]:
    """Return how what is had for `pins` differs from `constraints`: nothing, when all is well. Raise SetupError with pip's reason."""
    with tempfile.TemporaryDirectory(prefix="minicolab-pins-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--dry-run", "--ignore-installed", "--report", str(report), "--target", folder]
        command += ["--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
        command += [word for name in PLATFORMS for word in ("--platform", name)]
        done = subprocess.run(
            [*command, "--constraint", str(constraints), *pins],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SetupError(done.stderr.strip()[-600:])
        found = {
            _plain(item["metadata"]["name"]): item["metadata"]["version"]
            for item in json.loads(report.read_text("utf-8"))["install"]
        }
    wanted = dict(line.split("==") for line in constraints.read_text("utf-8").splitlines())
    return [
        f"{name}: {found.get(name, 'not installed')} instead of {wanted.get(name, 'nothing')}"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
