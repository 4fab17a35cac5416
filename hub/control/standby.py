"""Standing by: a control service that waits for its turn, and meanwhile passes connections on to the one that acts.

So each of several pods answers for control, whichever of them acts, and an update may replace them one after the other. The
acting one says its address where it says who it is: in the epoch of the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable

from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from hub.control.lease import Held, Lock

POLL_SECONDS = 0.5
FIND_SECONDS = 10.0  # between an end and the next one's first answer, a connection waits
BLOCK_BYTES = 64 << 10
log = logging.getLogger(__name__)
_AT = re.compile(r" at (\S+):(\d+)$")


def acting_address(engine: Engine) -> tuple[str, int] | None:
    """Return host and port of the control service that acts, or acted last; None when it said none."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("quota_epoch"):
            return None
        holder = connection.scalar(text("SELECT holder FROM quota_epoch")) or ""
    match = _AT.search(holder)
    return (match[1].strip("[]"), int(match[2])) if match is not None else None


class Standby:
    """Passes connections on until the place is free."""

    def __init__(
        self, find: Callable[[], tuple[str, int] | None], *, own: tuple[str, int] | None = None
    ) -> None:
        """`find` returns the acting one's address; `own` is this process's, to which nothing is passed on."""
        self._find, self._own = find, own
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(
        self, take: Callable[[], list[Lock]], stop: asyncio.Event, *, port: int, bind: str
    ) -> list[Lock] | None:
        """Serve on `port` until `take` succeeds; return what it took, or None when told to stop first.

        Raise what `take` raises other than Held.
        """
        server: asyncio.Server | None = None
        try:
            while not stop.is_set():
                try:
                    return await asyncio.to_thread(take)
                except Held as held:
                    if server is None:
                        log.info("%s This one stands by.", held)
                        server = await asyncio.start_server(self._accept, bind, port)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_SECONDS)
            return None
        finally:
            if server is not None:
                server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._pass_on(reader, writer)
        except (OSError, TimeoutError) as error:
            log.info("a connection could not be passed on: %s", error or type(error).__name__)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(FIND_SECONDS):
            there_reader, there_writer = await self._connect()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, there_writer))
                group.create_task(_pump(there_reader, writer))
        except* (OSError, RuntimeError):
            pass  # either side went away
        finally:
            there_writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            with contextlib.suppress(OSError, SQLAlchemyError):
                address = await asyncio.to_thread(self._find)
                if address is not None and address != self._own:
                    return await asyncio.open_connection(*address)
            await asyncio.sleep(0.1)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(BLOCK_BYTES):
        writer.write(block)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
