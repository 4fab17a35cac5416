"""Ask a runtime's server whether it is in use. What it answers is judged and stamped here: it can not lengthen its own life."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from quota.clock import SystemClock
from quota.ticket import mint
from spawner.local.safe_read import MOST_BYTES, parse_object

ANSWER_SECONDS = 5.0
TICKET_SECONDS = 60


class NoUse(Exception):
    """The server did not say; what does not answer was not used."""


@dataclass(frozen=True)
class Use:
    """`seconds_ago`: since a person acted or a cell ran, by the server's word. `busy`: a cell runs now."""

    busy: bool
    seconds_ago: float


@dataclass(frozen=True)
class Server:
    """Where the runtime's server is, and what opens it."""

    port: int
    base_url: str
    runtime_id: str
    user: str
    key: bytes


async def ask(server: Server) -> Use:
    """Return how the runtime is used. Raise NoUse."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = parse_object(await _get(server, "minicolab/activity"))
    except (OSError, ValueError, TimeoutError) as error:
        raise NoUse(str(error)) from error
    kernels, ago = answer.get("kernels"), answer.get("last_activity_seconds_ago")
    if isinstance(ago, bool) or not isinstance(ago, int | float) or not ago >= 0:
        raise NoUse("no time of last use")
    listed = kernels if isinstance(kernels, list) else []
    busy = any(isinstance(kernel, dict) and kernel.get("state") == "busy" for kernel in listed)
    return Use(busy, 0.0 if busy else float(ago))


async def _get(server: Server, path: str) -> bytes:
    """Return the body of a GET; a whole HTTP library would be the largest part of a supervisor. Raise OSError or ValueError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=MOST_BYTES)
    try:
        expires = int(SystemClock().now().timestamp()) + TICKET_SECONDS
        ticket = mint(server.key, server.runtime_id, server.user, expires, secrets.token_urlsafe(8))
        head = (
            f"GET {server.base_url}{path} HTTP/1.0\r\n"
            f"Host: 127.0.0.1:{server.port}\r\nAuthorization: token {ticket}\r\n\r\n"
        )
        writer.write(head.encode("latin-1"))
        await writer.drain()
        status = await reader.readline()
        if status.split()[1:2] != [b"200"]:
            raise ValueError(f"the server answered {status[:60]!r}")
        while (await reader.readline()).strip():
            pass
        body = b""
        while len(body) <= MOST_BYTES and (part := await reader.read(MOST_BYTES)):
            body += part
        return body
    finally:
        writer.close()
