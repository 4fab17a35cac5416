"""Stand between a client and the API server and do to chosen requests what networks and busy servers do.

    with FaultProxy(cluster.kubeconfig) as proxy:
        rule = proxy.add(Rule(answer(429, after=1), method="POST", path=r"/pods$", times=2))
        ... a client that uses proxy.kubeconfig ...
        assert rule.hits == 2

What no rule matches passes unchanged, watches and upgraded connections (exec) too. TLS is spoken on both sides; the proxy shows the
kubeconfig's own credentials to the API server, and a certificate of its own to clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.harness import kubeconfig
from cluster.harness.certificates import Authority

BLOCK = 1 << 16
HEAD_LIMIT = 1 << 16
REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass
class Request:
    """A request as it came from the client."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def is_watch(self) -> bool:
        return bool(re.search(r"[?&]watch=(1|true)\b", self.target, re.IGNORECASE)) or "/watch/" in self.path

    @property
    def upgrades(self) -> bool:
        return any(name.lower() == "upgrade" for name, _ in self.headers)

    def encoded(self) -> bytes:
        """The request as it goes to the API server: one connection for each, unless it is upgraded."""
        left_out = {"transfer-encoding", "content-length"} | (
            set() if self.upgrades else {"connection", "keep-alive"}
        )
        headers = [f"{name}: {value}" for name, value in self.headers if name.lower() not in left_out]
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            headers.append(f"Content-Length: {len(self.body)}")
        if not self.upgrades:
            headers.append("Connection: close")
        return (
            "\r\n".join([f"{self.method} {self.target} HTTP/1.1", *headers, "", ""]).encode("latin-1")
            + self.body
        )


@dataclass
class Exchange:
    """One request, and what a fault may do with it."""

    request: Request
    heard: asyncio.StreamReader
    client: asyncio.StreamWriter
    upstream: Callable[[Request], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
    over: asyncio.Event

    async def until_given_up(self, *works: Coroutine[Any, Any, None]) -> None:
        """Return when one of the works is done, the client has gone away, or the proxy ends."""
        waits = [asyncio.ensure_future(work) for work in (self.heard.read(), self.over.wait(), *works)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def forward_all(self) -> bytes:
        """Pass the request on and return the whole reply, none of which the client has seen."""
        reader, writer = await self.upstream(self.request)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def reply(self, content: bytes) -> None:
        self.client.write(content)
        await self.client.drain()


Fault = Callable[[Exchange], Awaitable[None]]


@dataclass
class Rule:
    """Which requests a fault befalls, and how many of them."""

    fault: Fault
    method: str = ""
    path: str = ""  # a regular expression, searched in the path without its query
    watch: bool | None = None  # only watches, or only what is none
    times: int | None = None  # None: until the rule is removed
    skip: int = 0  # so many matching requests pass first
    every: int = 1  # of the others, every so manieth
    hits: int = 0
    seen: int = 0
    hit: threading.Event = field(default_factory=threading.Event)

    def befalls(self, request: Request) -> bool:
        """Whether the fault befalls this request; counts it."""
        if self.method and request.method != self.method:
            return False
        if self.watch is not None and request.is_watch != self.watch:
            return False
        if not re.search(self.path, request.path):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.hits >= self.times):
            return False
        if (self.seen - self.skip) % self.every:
            return False
        self.hits += 1
        self.hit.set()
        return True


def answer(
    code: int, *, reason: str = "", message: str = "a fault of the test", after: int | None = None
) -> Fault:
    """Answer with an error as the API server words it, without asking it; `after` is the Retry-After."""

    async def fault(exchange: Exchange) -> None:
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason or REASONS.get(code, ""),
            "code": code,
        }
        extra = f"Retry-After: {after}\r\n" if after is not None else ""
        await exchange.reply(_reply(code, json.dumps(status).encode(), extra))

    return fault


def hang() -> Fault:
    """Take the request and never say a word; the API server does not hear of it."""

    async def fault(exchange: Exchange) -> None:
        await exchange.until_given_up()

    return fault


def refuse() -> Fault:
    """Close the connection; the API server does not hear of the request."""

    async def fault(exchange: Exchange) -> None:
        exchange.client.transport.abort()

    return fault


def drop_reply() -> Fault:
    """Let the API server do it, and lose its reply."""

    async def fault(exchange: Exchange) -> None:
        await exchange.forward_all()
        exchange.client.transport.abort()

    return fault


def stale() -> Fault:
    """Answer every later request of the rule with the first one's reply: a list from a cache that lags behind."""
    remembered: list[bytes] = []

    async def fault(exchange: Exchange) -> None:
        if not remembered:
            remembered.append(await exchange.forward_all())
        await exchange.reply(remembered[0])

    return fault


def gone() -> Fault:
    """Begin a watch and say at once, as an event, that its resource version is too old."""

    async def fault(exchange: Exchange) -> None:
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "too old resource version",
            "reason": "Expired",
            "code": 410,
        }
        event = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
        await exchange.reply(_reply(200, event))

    return fault


def silent() -> Fault:
    """Begin a watch and never send an event: a connection that is dead and does not say so."""

    async def fault(exchange: Exchange) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        await exchange.reply(head.encode())
        await exchange.until_given_up()

    return fault


def cut(after: int) -> Fault:
    """Break the connection when so many bytes of the reply have reached the client."""

    async def fault(exchange: Exchange) -> None:
        reader, writer = await exchange.upstream(exchange.request)

        async def carry() -> None:
            left = after
            while left > 0 and (block := await reader.read(min(left, BLOCK))):
                await exchange.reply(block)
                left -= len(block)

        try:
            await exchange.until_given_up(carry())  # a silent watch would else outlive its client
        finally:
            writer.close()
            exchange.client.transport.abort()

    return fault


class FaultProxy:
    """A proxy that runs in a thread of its own while the `with` block lasts; rules may be added and removed at any time."""

    def __init__(self, upstream: Path, *, address: str = "127.0.0.1") -> None:
        self._access = kubeconfig.read(upstream)
        self._address = address
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._over = asyncio.Event()
        self._connections: dict[asyncio.Task[None], str] = {}  # and what was asked on each
        self.requests: list[tuple[str, str]] = []  # method and target of every request, in order

    def __enter__(self) -> FaultProxy:
        self._folder = tempfile.TemporaryDirectory(prefix="minicolab-fault-proxy-")
        folder = Path(self._folder.name)
        authority = Authority(folder / "keys")
        pair = authority.server("proxy", "fault-proxy", [self._address, "localhost"])
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pair.certificate, pair.key)
        listener = socket.create_server((self._address, 0))
        self.port: int = listener.getsockname()[1]
        self.url = f"https://{self._address}:{self.port}"
        self.kubeconfig = kubeconfig.write(
            folder / "kubeconfig", self.url, authority.pair.certificate, "not looked at"
        )
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, tls, ready), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._folder.cleanup()

    def add(self, rule: Rule) -> Rule:
        """Put a rule in force; of those that match a request, the one added first befalls it."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Take a rule out of force."""
        with self._lock:
            self._rules.remove(rule)

    def clear(self) -> None:
        """Take all rules out of force."""
        with self._lock:
            self._rules.clear()

    @property
    def open(self) -> list[str]:
        """What was asked on the connections there are now."""
        return list(self._connections.values())

    def cut_all(self) -> None:
        """Break every connection there is now, watches above all."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._connections])

    def _run(self, listener: socket.socket, tls: ssl.SSLContext, ready: threading.Event) -> None:
        async def serve() -> None:
            server = await asyncio.start_server(self._connected, sock=listener, ssl=tls)
            ready.set()
            await self._over.wait()
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(serve())
        finally:
            self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = "nothing yet"
        try:
            request = await _read_request(reader)
            if request is not None:
                self.requests.append((request.method, request.target))
                self._connections[task] = f"{request.method} {request.target}"
                await self._exchange(request, reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of both sides went away
        finally:
            self._connections.pop(task, None)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _exchange(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with self._lock:
            rule = next((rule for rule in self._rules if rule.befalls(request)), None)
        if rule is not None:
            await rule.fault(Exchange(request, reader, writer, self._upstream, self._over))
            return
        answers, target = await self._upstream(request)
        back = asyncio.ensure_future(_carry(answers, writer))
        on = asyncio.ensure_future(_carry(reader, target))
        try:
            # What the client sends later matters only on an upgraded connection; its going away always does.
            await asyncio.wait({back, on}, return_when=asyncio.FIRST_COMPLETED)
            if request.upgrades and not back.done():
                await back
        finally:
            for each in (back, on):
                each.cancel()
            target.close()
            await asyncio.gather(back, on, return_exceptions=True)

    async def _upstream(self, request: Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            self._access.host, self._access.port, ssl=self._access.tls, limit=BLOCK
        )
        request.headers = [pair for pair in request.headers if pair[0].lower() != "authorization"]
        if self._access.token:
            request.headers.append(("Authorization", f"Bearer {self._access.token}"))
        writer.write(request.encoded())
        await writer.drain()
        return reader, writer


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await source.read(BLOCK):
            target.write(block)
            await target.drain()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]
    known = {name.lower(): value for name, value in headers}
    if "chunked" in known.get("transfer-encoding", "").lower():
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(known.get("content-length", 0)))
    return Request(method, target, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def _reply(code: int, body: bytes, extra: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {code} Fault\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}"
    )
    return f"{head}Connection: close\r\n\r\n".encode() + body
