"""One control service at a time: a lock on a file of the installation, naming who holds it.

The lock ends with its process, however that ends. An epoch in the database (quota.ports.Ledger.take_over) backs it where a
lock can not reach: a process that lost its place, and does not know it yet, writes nothing any more.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Held(Exception):
    """Another control service acts for this installation."""


class Lease:
    """The lock, held while this object is kept."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raise Held with a sentence that names the holder."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(64).strip() or "unknown"
            self._file.close()
            raise Held(f"Another control service acts for {path.parents[1]}: process {holder}.") from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Give the lock back."""
        self._file.close()
