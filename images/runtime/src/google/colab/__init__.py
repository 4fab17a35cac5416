"""Colab's names for a notebook in minicolab. Thin: the work is in `minicolab_runtime`.

Submodules load when they are first used, so that a kernel starts fast.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

__all__ = [
    "auth",
    "data_table",
    "drive",
    "errors",
    "files",
    "output",
    "patches",
    "runtime",
    "snippets",
    "syntax",
    "userdata",
    "widgets",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """Register Colab's magics with an IPython shell; minicolab's kernel does so at its start."""
    from google.colab import _magics

    _magics.register(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Nothing to undo: the magics stay until the session ends."""
