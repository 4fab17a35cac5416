"""How backend and supervisor talk: one JSON object a line over a unix socket; and how each knows whether the other lives.

A live supervisor holds a lock on its folder. The backend takes the lock before it starts one and hands it over, so there is no
moment in which a folder of a runtime that lives, or is about to, looks abandoned.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

SOCKET = "supervisor.sock"
SPEC = "spec.json"
MAX_LINE = 1 << 20


class SupervisorGone(Exception):
    """There is no supervisor to talk to."""


class NoAnswer(Exception):
    """There is a supervisor, but it does not answer."""


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Yield an address of the socket in `folder` that fits into the 107 bytes an address may have. Raise OSError."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


def listen(folder: Path) -> socket.socket:
    """Return the listening socket of a runtime's folder, for our own user only. Raise OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with short_path(folder) as path:
        listener.bind(path)
    (folder / SOCKET).chmod(0o600)
    listener.listen(64)
    return listener


def lock(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock, None when somebody else holds it. Raise FileNotFoundError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def held_lock(folder: Path) -> int | None:
    """Return the descriptor by which this process holds the folder's lock, None when it was given none."""
    wanted = os.stat(folder)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), wanted):
                return int(name)
    return None


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return process id and user id of the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("iii", credentials)
    return pid, uid


async def connect(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the supervisor of a runtime's folder. Raise SupervisorGone."""
    try:
        with short_path(folder) as path:
            return await asyncio.open_unix_connection(path, limit=MAX_LINE)
    except OSError as error:
        raise SupervisorGone(str(error)) from None


async def call(folder: Path, request: dict[str, Any], *, seconds: float = 30.0) -> dict[str, Any]:
    """Ask one thing and return the answer. Raise SupervisorGone, or NoAnswer after `seconds`."""
    return await ask(*await connect(folder), request, seconds=seconds)


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, Any], *, seconds: float
) -> dict[str, Any]:
    """Ask one thing on a connection, and close it. Raise SupervisorGone, or NoAnswer after `seconds`."""

    async def say() -> None:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()

    return await answer_to(say, reader, writer, seconds=seconds)


async def answer_to(
    say: Callable[[], Awaitable[None]],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    seconds: float,
) -> dict[str, Any]:
    """Say what is to be said on a connection, return the answer, and close it. Raise SupervisorGone, or NoAnswer after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await say()
            line = await reader.readline()
    except TimeoutError:
        raise NoAnswer(f"no answer in {seconds:g} s") from None
    except OSError as error:
        raise SupervisorGone(str(error)) from None
    finally:
        writer.close()
    if not line:
        raise SupervisorGone("the connection ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    return answer


def process_of(writer: asyncio.StreamWriter) -> int | None:
    """Return a descriptor of the process at the other end of a connection, None when it has ended."""
    pid, _ = peer(writer.get_extra_info("socket"))
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


async def ended(process: int, *, seconds: float) -> bool:
    """Return whether the process behind the descriptor ended within `seconds`."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(process, done.set)
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(process)
