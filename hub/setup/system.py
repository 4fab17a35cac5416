"""Debian packages: installed when we are root on Debian, named clearly when not."""

from __future__ import annotations

import os
import shutil
import subprocess

from hub.settings import cache_folder
from hub.setup.steps import SetupError, run, say, step


def missing_programs(needed: dict[str, str]) -> dict[str, str]:
    """Return those of `needed` (program → Debian package) that are not on PATH."""
    return {program: package for program, package in needed.items() if shutil.which(program) is None}


def install_packages(needed: dict[str, str], *, required: bool) -> None:
    """Install what is missing. Without root: say what to install; raise SetupError when `required`."""
    packages = sorted(set(missing_programs(needed).values()))
    if not packages:
        return
    command = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        message = f"Missing: {', '.join(packages)}. As an administrator: {command}"
        if required:
            raise SetupError(message)
        say(f"• {message}")
        return
    log = cache_folder() / "logs" / "apt.log"
    with step(f"Installing Debian packages: {' '.join(packages)}", 15 * len(packages)):
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        try:
            run(["apt-get", "install", "-y", "--no-install-recommends", *packages], env=environment, log=log)
        except SetupError:
            subprocess.run(
                ["apt-get", "update"], stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False
            )
            run(["apt-get", "install", "-y", "--no-install-recommends", *packages], env=environment, log=log)
