"""How a backend and the supervisor in a container talk: one JSON object a line over TCP, after a challenge.

The supervisor sends a nonce, the other end answers with its HMAC under the runtime's supervisor key: whoever can reach the port, but
does not have the key, is not listened to. What is said afterwards is not secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import secrets
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spawner.container.taking import Taking
from spawner.supervisor.handover import PART_BYTES, Gathered, carried
from spawner.supervisor.wire import MAX_LINE, SupervisorGone, answer_to
from spawner.supervisor.wire import ask as ask_on

GREETING_SECONDS = 10.0
CONNECT_SECONDS = 5.0
TAKEN, CONTENT = b'{"op": "taken"}\n', b'{"op": "content"}\n'
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


@dataclass(frozen=True)
class Address:
    """Where the supervisor of one runtime listens, and the key it knows us by."""

    host: str
    port: int
    key: bytes


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> bool:
    """The supervisor's side: return whether the other end has the key."""
    nonce = secrets.token_hex(16)
    with contextlib.suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(GREETING_SECONDS):
            writer.write(json.dumps({"nonce": nonce}).encode() + b"\n")
            await writer.drain()
            answer = json.loads(await reader.readline())
            return isinstance(answer, dict) and hmac.compare_digest(str(answer.get("mac")), _mac(key, nonce))
    return False


async def connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection on which requests are answered. Raise SupervisorGone."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=MAX_LINE)
            wire: socket.socket = writer.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                wire.setsockopt(socket.IPPROTO_TCP, option, value)
            nonce = json.loads(await reader.readline())["nonce"]
            writer.write(json.dumps({"mac": _mac(address.key, str(nonce))}).encode() + b"\n")
            await writer.drain()
            return reader, writer
    except (OSError, ValueError, KeyError, TypeError) as error:  # TimeoutError is an OSError
        if writer is not None:
            writer.close()
        raise SupervisorGone(str(error) or "no greeting") from None


async def call(address: Address, request: dict[str, Any], *, seconds: float = 30.0) -> dict[str, Any]:
    """Ask one thing and return the answer. Raise SupervisorGone, or NoAnswer after `seconds`."""
    return await ask_on(*await connect(address), request, seconds=seconds)


async def watch(
    address: Address,
    *,
    taking: Taking | None = None,
    keeps_content: bool = False,
    ask: dict[str, Any] | None = None,
) -> AsyncGenerator[dict[str, Any]]:
    """Yield what the supervisor tells (`ready`, `end`) until the connection ends. Raise SupervisorGone when there is none.

    `taking` takes what the runtime left when it ended, before its end is told: /content when we are one that `keeps_content`, or
    nobody is. `ask` is asked as soon as we are sure to hear that.
    """
    reader, writer = await connect(address)
    gathered = Gathered()
    try:
        watch = {"op": "watch", "keeps_content": keeps_content}
        for request in (watch, *([ask] if ask is not None else [])):
            writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        while line := await reader.readline():
            event = json.loads(line)
            if event.get("event") not in ("left", "content"):
                yield event
            elif taking is not None and (answer := await _take(event, taking, gathered)) is not None:
                writer.write(answer)
    except (OSError, ValueError, KeyError):
        return  # a connection that breaks means the same as one that ends
    finally:
        writer.close()
        if taking is not None:
            taking.close()


async def _take(event: dict[str, Any], taking: Taking, gathered: Gathered) -> bytes | None:
    """Take what is handed over, and return what is to be said to that. Raise OSError, ValueError, KeyError."""
    if event["event"] == "content":
        return TAKEN if await taking.content(event) else None
    if (left := gathered.take(event)) is None:
        return None
    await taking.executions(left)
    return CONTENT if event.get("content") and await taking.wants_content() else TAKEN


async def send_content(address: Address, archive: Path, *, seconds: float) -> dict[str, Any]:
    """Send an archive that is to be put into /content; return the answer.

    Raise OSError when it can not be opened, SupervisorGone, or NoAnswer after `seconds`.
    """
    with archive.open("rb") as file:
        reader, writer = await connect(address)

        async def say() -> None:
            writer.write(b'{"op": "restore"}\n')
            part = await asyncio.to_thread(file.read, PART_BYTES)
            last = False
            while not last:
                following = await asyncio.to_thread(file.read, PART_BYTES)
                last = not following
                writer.write(json.dumps({"part": carried(part), "last": last}).encode() + b"\n")
                await writer.drain()
                part = following

        return await answer_to(say, reader, writer, seconds=seconds)


def _mac(key: bytes, nonce: str) -> str:
    return hmac.new(key, nonce.encode(), hashlib.sha256).hexdigest()
