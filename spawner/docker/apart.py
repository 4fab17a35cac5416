"""Runs modules of ours as processes of their own: a namespace is entered by a single thread."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import ModuleType


class Failed(Exception):
    """The process could not do it; the text says why."""


async def apart(module: ModuleType, *arguments: str) -> str:
    """Run `python -S -m <module> <arguments>` as this machine's root and return what it printed. Raise Failed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-S", "-m", module.__name__, *arguments),
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.defpath},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, problem = await process.communicate()
    if process.returncode != 0:
        raise Failed(problem.decode("utf-8", "replace").strip().rpartition("\n")[2][:200])
    return told.decode("utf-8", "replace")
