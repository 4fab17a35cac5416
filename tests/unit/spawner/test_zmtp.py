"""Our subscriber against the real libzmq, and against publishers that are none."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from spawner.supervisor import zmtp
from support.patience import PATIENCE, until_async

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
READY = zmtp.ready(b"PUB")


@pytest.fixture(params=[zmq.PUB, zmq.XPUB], ids=["PUB", "XPUB"])
async def publisher(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[zmq.asyncio.Socket]:
    context = zmq.asyncio.Context()
    socket = context.socket(request.param)
    socket.linger = 0
    socket.bind(f"ipc://{tmp_path}/pub")
    yield socket
    socket.close()
    context.term()


async def connect(tmp_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(tmp_path / "pub"))


async def hear(
    publisher: zmq.asyncio.Socket, tmp_path: Path, topics: list[bytes], sent: list[list[bytes]]
) -> list[list[bytes | None]]:
    """Return what comes of `sent`, up to the last of it, which must be among the topics."""
    reader, writer = await connect(tmp_path)
    await zmtp.subscribe(reader, writer, topics)
    stream = zmtp.messages(reader, writer)

    async def until_subscribed() -> None:
        while True:  # a publisher drops what nobody has asked for yet
            await publisher.send_multipart([topics[-1] + b"?"])
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(until_subscribed())
    async with asyncio.timeout(PATIENCE):
        assert await anext(stream) == [topics[-1] + b"?"]
        asking.cancel()
        for message in sent:
            await publisher.send_multipart(message)
        out = []
        async for message in stream:
            if message != [topics[-1] + b"?"]:
                out.append(message)
            if message[0] == sent[-1][0]:
                break
    writer.close()
    return out


async def test_it_hears_libzmq_and_only_what_it_asked_for(
    publisher: zmq.asyncio.Socket, tmp_path: Path
) -> None:
    sent = [
        [b"kernel.1.status", b"<IDS|MSG>", b"", b"x" * 255, b"y" * 256],
        [b"stream.stdout", b"noise"],
        [b"statusquo"],
        [b"kernel.end"],
    ]
    heard = await hear(publisher, tmp_path, [b"kernel", b"status"], sent)
    assert heard == [sent[0], sent[2], sent[3]]


async def test_a_frame_that_is_too_long_is_read_past(publisher: zmq.asyncio.Socket, tmp_path: Path) -> None:
    most = zmtp.MOST_BYTES
    sent = [[b"k1", b"a" * most, b"b" * (most + 1), b"c"], [b"k2", b"d" * (20 << 20)], [b"k-end"]]
    heard = await hear(publisher, tmp_path, [b"k"], sent)
    assert heard == [[b"k1", b"a" * most, None, b"c"], [b"k2", None], [b"k-end"]]


async def test_it_answers_the_heartbeats_of_libzmq(tmp_path: Path) -> None:
    """Who does not is cut off after the publisher's time-out."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.PUB)
    socket.linger, socket.heartbeat_ivl, socket.heartbeat_timeout = 0, 100, 300
    socket.bind(f"ipc://{tmp_path}/pub")
    reader, writer = await connect(tmp_path)
    await zmtp.subscribe(reader, writer, [b""])
    heard: list[object] = []

    async def listen() -> None:
        async for message in zmtp.messages(reader, writer):
            heard.append(message)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(1.5)
    assert not listening.done()
    await socket.send(b"still here")
    await until_async(lambda: heard)
    assert heard == [[b"still here"]]
    listening.cancel()
    writer.close()
    socket.close()
    context.term()


# -- publishers that are none -----------------------------------------------------------------------------------


@asynccontextmanager
async def speaker(
    tmp_path: Path, speak: Speak
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    server = await asyncio.start_unix_server(speak, str(tmp_path / "pub"))
    async with server:
        reader, writer = await connect(tmp_path)
        yield reader, writer
        writer.close()


def says(text: bytes) -> Speak:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        writer.write_eof()
        await reader.read()  # all that comes, so that it is what was said that is refused
        writer.close()

    return speak


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100,
        zmtp.GREETING[:30],
        zmtp.GREETING[:10] + b"\x01" + zmtp.GREETING[11:],
        zmtp.GREETING.replace(b"NULL", b"CURV") + READY,
        zmtp.GREETING + zmtp.ready(b"DEALER"),
        zmtp.GREETING + zmtp.frame(b"\x05ERROR\x02no", 4),
        zmtp.GREETING + zmtp.frame(b"\x05READY"),
        zmtp.GREETING + b"\xf8\x01x",
        zmtp.GREETING + b"\x06" + struct.pack(">Q", 1 << 63),
    ],
    ids=range(10),
)
async def test_who_does_not_shake_hands_as_a_publisher_is_refused(tmp_path: Path, text: bytes) -> None:
    async with speaker(tmp_path, says(text)) as (reader, writer):
        with pytest.raises(zmtp.NotZmtp):
            await zmtp.subscribe(reader, writer, [b"k"])


async def test_who_keeps_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmtp, "HANDSHAKE_SECONDS", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with speaker(tmp_path, silent) as (reader, writer):
        with pytest.raises(TimeoutError):
            await zmtp.subscribe(reader, writer, [b"k"])


@pytest.mark.parametrize(
    "text",
    [
        b"\x00\x05ab",
        b"\x01\x01a" * (zmtp.MOST_FRAMES + 1),
        b"\x10\x01a",
        b"\x02" + struct.pack(">Q", 1 << 62) + b"x" * 1000,
    ],
    ids=["cut", "frames without end", "flags", "a frame without end"],
)
async def test_nonsense_ends_the_connection_and_is_no_message(tmp_path: Path, text: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(zmtp.GREETING + READY)
        await reader.readuntil(zmtp.frame(b"\x01k"))
        writer.write(text)
        writer.close()

    async with speaker(tmp_path, speak) as (reader, writer):
        await zmtp.subscribe(reader, writer, [b"k"])
        with pytest.raises(zmtp.NotZmtp):
            async for message in zmtp.messages(reader, writer):
                raise AssertionError(message)
