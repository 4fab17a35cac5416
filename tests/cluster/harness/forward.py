"""Carry TCP connections from this machine's loopback to an address in the cluster: forward.py PORT HOST PORT."""

from __future__ import annotations

import asyncio
import contextlib
import sys

BLOCK = 1 << 16


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copy bytes until the source ends; then say so to the target."""
    with contextlib.suppress(OSError):
        while block := await source.read(BLOCK):
            target.write(block)
            await target.drain()
        target.write_eof()


async def serve(port: int, host: str, target_port: int) -> None:
    """Carry every connection until told to end."""

    async def connected(source: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            answers, target = await asyncio.open_connection(host, target_port)
        except OSError:
            back.close()
            return
        await asyncio.gather(carry(source, target), carry(answers, back))
        target.close()
        back.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
