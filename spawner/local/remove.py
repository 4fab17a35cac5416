"""Remove what a runtime that ended leaves on this machine: its folder, its short link, its control groups."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from spawner.local.sandbox import Layout, Rung
from spawner.remove_tree import StillMounted, remove_tree

# The kernel takes a moment to let go of killed processes, and tells nobody when it has.
CLEAN_TRIES, CLEAN_PAUSE_SECONDS = 250, 0.02


def clean(folder: Path, remove_groups: Callable[[], bool]) -> bool:
    """Remove the folder of a runtime whose processes have ended, and its control groups; return whether nothing is left."""
    _remove_short_link(folder)
    problem = "its control groups are busy"
    for _ in range(CLEAN_TRIES):
        # Groups first: as long as the folder is there, whoever looks next knows that something is left.
        if remove_groups():
            try:
                remove_tree(folder)
                return True
            except (OSError, StillMounted) as error:
                problem = str(error)
        time.sleep(CLEAN_PAUSE_SECONDS)
    sys.stderr.write(f"{folder} could not be removed: {problem}\n")
    return False


def _remove_short_link(folder: Path) -> None:
    layout = Layout(folder, Path(), Path(), Path(), Rung.PLAIN)
    try:
        if os.readlink(layout.short_kernels) == str(layout.kernels):
            layout.short_kernels.unlink()
    except OSError:
        return  # there is none, or one of somebody else
