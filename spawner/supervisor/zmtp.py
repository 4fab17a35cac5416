"""A client of ZMTP 3.0, the protocol of ZeroMQ sockets: what a supervisor needs to hear a kernel's iopub channel, and to ask it.

The standard library alone, and nothing trusted: what sends is a program of the runtime's user. No frame makes us hold more than
MOST_BYTES; a longer one is read past and told as None.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence

MOST_BYTES = 64 * 1024
MOST_FRAMES = 64
HANDSHAKE_SECONDS = 10.0
CHUNK = 64 * 1024

_MORE, _LONG, _COMMAND = 0x01, 0x02, 0x04
_SIGNATURE, _VERSION, _MECHANISM = b"\xff" + bytes(8) + b"\x7f", b"\x03\x00", b"NULL"
GREETING = _SIGNATURE + _VERSION + _MECHANISM.ljust(20, b"\0") + bytes(32)


class NotZmtp(Exception):
    """The other end does not speak as a publisher should."""


def frame(body: bytes, flags: int = 0) -> bytes:
    """Return one frame."""
    if len(body) > 255:
        return struct.pack(">BQ", flags | _LONG, len(body)) + body
    return struct.pack("BB", flags, len(body)) + body


def ready(socket_type: bytes) -> bytes:
    """Return the command that ends the handshake."""
    return frame(b"\x05READY" + _socket_type(socket_type), _COMMAND)


def _socket_type(socket_type: bytes) -> bytes:
    return b"\x0bSocket-Type" + struct.pack(">I", len(socket_type)) + socket_type


async def subscribe(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, topics: Sequence[bytes]
) -> None:
    """Shake hands and ask for the messages that begin with one of `topics`. Raise NotZmtp, OSError or TimeoutError."""
    await shake_hands(reader, writer, b"SUB", (b"PUB", b"XPUB"))
    for topic in topics:
        writer.write(frame(b"\x01" + topic))
    await writer.drain()


async def send(writer: asyncio.StreamWriter, parts: Sequence[bytes]) -> None:
    """Send one message after the handshake. Raise OSError."""
    for number, part in enumerate(parts, 1):
        writer.write(frame(part, _MORE if number < len(parts) else 0))
    await writer.drain()


async def shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ours: bytes, theirs: Sequence[bytes]
) -> None:
    """Say which kind of socket we are, to one of the kinds `theirs`. Raise NotZmtp, OSError or TimeoutError."""
    async with asyncio.timeout(HANDSHAKE_SECONDS):
        writer.write(GREETING)
        greeting = await _exactly(reader, len(GREETING))
        if greeting[0] != 0xFF or not greeting[9] & 1 or greeting[10] < 3:
            raise NotZmtp("no greeting of version 3")
        if greeting[12:32].rstrip(b"\0") != _MECHANISM:
            raise NotZmtp(f"another mechanism: {greeting[12:32]!r}")
        writer.write(ready(ours))
        flags, body = await _frame(reader)
        if not flags & _COMMAND or body is None or not body.startswith(b"\x05READY"):
            raise NotZmtp("refused")
        if not any(_socket_type(kind) in body for kind in theirs):
            raise NotZmtp("another kind of socket")


async def messages(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncIterator[list[bytes | None]]:
    """Yield message after message, each as its frames, until the connection ends. Raise NotZmtp or OSError."""
    parts: list[bytes | None] = []
    while True:
        flags, body = await _frame(reader)
        if flags & _COMMAND:
            # A heartbeat: PING, two bytes of time to live, a context that is sent back.
            if body is not None and body.startswith(b"\x04PING"):
                writer.write(frame(b"\x04PONG" + body[7:23], _COMMAND))
                await writer.drain()
            continue
        parts.append(body)
        if len(parts) > MOST_FRAMES:
            raise NotZmtp("a message of too many frames")
        if not flags & _MORE:
            yield parts
            parts = []


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes | None]:
    flags, size = await _exactly(reader, 2)
    if flags & ~(_MORE | _LONG | _COMMAND):
        raise NotZmtp("unknown flags")
    if flags & _LONG:
        (size,) = struct.unpack(">Q", bytes([size]) + await _exactly(reader, 7))
    if size <= MOST_BYTES:
        return flags, await _exactly(reader, size)
    while size:
        chunk = await reader.read(min(size, CHUNK))
        if not chunk:
            raise NotZmtp("the connection ended within a frame")
        size -= len(chunk)
    return flags, None


async def _exactly(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise NotZmtp("the connection ended") from error
