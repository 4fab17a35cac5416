"""The control service in a process of its own, over the stand-in backend: `run_control.py --state DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from file_backend import FileBackend

from hub.control.__main__ import main

if __name__ == "__main__":
    state = Path(sys.argv[sys.argv.index("--state") + 1])
    raise SystemExit(main(FileBackend(state / "fake-runtimes")))
