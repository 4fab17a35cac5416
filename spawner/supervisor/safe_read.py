"""Read what a runtime's own code may have written: no link is followed, nothing but a small regular file is read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import BinaryIO

from spawner.supervisor import linux

MOST_BYTES = 64 * 1024
_CHUNK_BYTES = 1 << 20


def read_object(folder: Path, path: str) -> dict[str, object]:
    """Return the JSON object in the file `path` below `folder`. Raise OSError or ValueError."""
    with _opened(folder, path) as file:
        text = file.read(MOST_BYTES + 1)
    return parse_object(text)


def read(folder: Path, path: str, most_bytes: int) -> bytes:
    """Return what is in the file `path` below `folder`. Raise OSError, or ValueError when it is larger."""
    with _opened(folder, path) as file:
        text = file.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise ValueError(f"{path} is larger than {most_bytes} bytes")
    return text


def copy(folder: Path, path: str, target: Path, most_bytes: int) -> None:
    """Copy the file `path` below `folder` to `target`, whole or not at all. Raise OSError, or ValueError when it is larger."""
    draft = target.with_name(f".{target.name}")
    try:
        with _opened(folder, path) as file, draft.open("wb") as out:
            left = most_bytes
            while part := file.read(min(_CHUNK_BYTES, left + 1)):
                left -= len(part)
                if left < 0:
                    raise ValueError(f"{path} is larger than {most_bytes} bytes")
                out.write(part)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _opened(folder: Path, path: str) -> BinaryIO:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: a pipe put there instead of a file must not make us wait.
        fd = linux.open_beneath(place, path, os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(place)
    file = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise ValueError(f"{path} is not a regular file")
    return file


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
