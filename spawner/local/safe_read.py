"""Read what a runtime's own code may have written: no link is followed, nothing but a small regular file is read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from spawner.local import linux

MOST_BYTES = 64 * 1024


def read_object(folder: Path, path: str) -> dict[str, object]:
    """Return the JSON object in the file `path` below `folder`. Raise OSError or ValueError."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: a pipe put there instead of a file must not make us wait.
        fd = linux.open_beneath(place, path, os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(place)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{path} is not a regular file")
        text = file.read(MOST_BYTES + 1)
    return parse_object(text)


def parse_object(text: bytes) -> dict[str, object]:
    """Return the JSON object in `text`. Raise ValueError for anything else, however it is meant."""
    if len(text) > MOST_BYTES:
        raise ValueError("too long")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
