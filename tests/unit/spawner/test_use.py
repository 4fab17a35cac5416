"""What a runtime says of its use is judged here: R4, nothing it says lengthens its own life."""

from __future__ import annotations

import asyncio

import pytest

from quota.clock import SystemClock
from quota.ticket import verify
from spawner.local import use

KEY = b"k" * 32


async def ask(answer: bytes) -> tuple[use.Use, str]:
    """Return what is made of a server's answer, and what it was asked."""
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        seen = await use.ask(use.Server(port, "/user/ada/r-1/", "r-1", "ada", KEY))
    return seen, asked[0]


def reply(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n{body}".encode()


async def test_the_server_is_asked_with_a_ticket_of_its_own() -> None:
    seen, asked = await ask(reply('{"kernels": [], "last_activity_seconds_ago": 12.5}'))
    assert seen == use.Use(False, 12.5)
    assert asked.startswith("GET /user/ada/r-1/minicolab/activity HTTP/1.0\r\n")
    token = asked.partition("Authorization: token ")[2].partition("\r\n")[0]
    assert verify(KEY, token, SystemClock().now().timestamp()).user == "ada"


async def test_a_busy_kernel_is_use_however_silent() -> None:
    seen, _ = await ask(reply('{"kernels": [{"state": "busy"}], "last_activity_seconds_ago": 5000}'))
    assert seen == use.Use(True, 0.0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        reply("{}", "403 Forbidden"),
        reply("{}"),
        reply("[]"),
        reply('{"last_activity_seconds_ago": -5}'),
        reply('{"last_activity_seconds_ago": NaN}'),
        reply('{"last_activity_seconds_ago": true}'),
        reply('{"last_activity_seconds_ago": "0"}'),
        reply("[" * 50000),
        reply('{"last_activity_seconds_ago": 0, "x": "' + "y" * 100000 + '"}'),
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200000,
    ],
    ids=range(12),
)
async def test_an_answer_that_is_none_is_no_use(answer: bytes) -> None:
    with pytest.raises(use.NoUse):
        await ask(answer)


async def test_a_server_that_keeps_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "ANSWER_SECONDS", 0.1)
    server = await asyncio.start_server(lambda r, w: asyncio.sleep(60), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(use.NoUse):
        await use.ask(use.Server(port, "/", "r-1", "ada", KEY))
    server.close()
