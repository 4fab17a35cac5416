"""The kernel of a runtime: `python -m minicolab_runtime.kernel -f CONNECTION_FILE`."""

from __future__ import annotations

import sqlite3
from typing import Any


class HastyConnection(sqlite3.Connection):
    """A database that is not written through to the disk at every step: IPython's history goes with the machine anyway."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA synchronous = OFF")
        self.execute("PRAGMA journal_mode = MEMORY")


def main() -> None:
    """Run an IPython kernel that is Colab's to the notebook."""
    from ipykernel.kernelapp import IPKernelApp
    from traitlets.config import Config

    from google.colab._kernel import Kernel
    from minicolab_runtime import _autoload

    _autoload.install()  # also where this package is on the path without its .pth file
    config = Config()
    config.HistoryAccessor.connection_options = {"check_same_thread": False, "factory": HastyConnection}
    IPKernelApp.launch_instance(kernel_class=Kernel, extensions=["google.colab"], config=config)


if __name__ == "__main__":
    main()
