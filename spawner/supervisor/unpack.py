"""/content of an earlier runtime, put into this one: an archive that comes in parts, while code inside may do what it likes there.

Whoever unpacks has no more rights than that code, and still nothing is put outside the folder: no link is followed on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tarfile
import zlib
from pathlib import Path
from typing import IO

from spawner import keep
from spawner.supervisor.drives import Refused
from spawner.supervisor.handover import part_of


async def receive(reader: asyncio.StreamReader, content: Path) -> int:
    """Put what comes in, one part a line, into `content`; return how many files. Raise Refused, OSError, ValueError, KeyError."""
    out, into = os.pipe()

    def unpack() -> int:
        with os.fdopen(out, "rb") as archive:
            return keep.unpack(archive, lambda parts, source, mode: _put(content, parts, source, mode))

    unpacking = asyncio.create_task(asyncio.to_thread(unpack))
    try:
        with os.fdopen(into, "wb", buffering=0) as pipe:
            while True:
                event = json.loads(await reader.readline())
                with contextlib.suppress(BrokenPipeError):  # it has failed: why, is said in the end
                    await asyncio.to_thread(_write, pipe.fileno(), part_of(event))
                if event["last"]:
                    break
    finally:
        await asyncio.gather(unpacking, return_exceptions=True)
    try:
        return unpacking.result()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise Refused("bad_snapshot", f"The snapshot can not be read: {error}.") from error
    except OSError as error:
        raise Refused("restore_failed", f"The snapshot was not restored: {error.strerror}.") from error


def _write(fd: int, part: bytes) -> None:
    left = memoryview(part)
    while left:
        left = left[os.write(fd, left) :]


def _put(content: Path, parts: list[str], source: IO[bytes], mode: int) -> None:
    """Make a file that is not there yet. Raise OSError."""
    folder = os.open(content, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=folder)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = below
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(parts[-1], flags, 0o600, dir_fd=folder), "wb") as file:
            try:
                for chunk in keep.chunks(source):
                    file.write(chunk)
                file.flush()
            except OSError:
                os.unlink(parts[-1], dir_fd=folder)
                raise
            os.fchmod(file.fileno(), mode)
    finally:
        os.close(folder)
