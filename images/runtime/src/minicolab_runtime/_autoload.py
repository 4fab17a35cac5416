"""Run by `minicolab_runtime.pth` at every start of this environment's Python, also in `!python script.py`.

It only puts one finder in place, which acts when Keras is imported and then removes itself.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

_TARGET = "keras.src.saving.saving_api"


class _AfterImport:
    """A finder that lets the others find the target module, and patches it once it has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            _wrap(spec.loader)
        return spec


def _wrap(loader: Loader) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        from minicolab_runtime.keras_h5 import patch

        patch(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]


def install() -> None:
    """Put the finder first, once."""
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


install()
