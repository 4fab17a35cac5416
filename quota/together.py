"""Changes that come at the same time are written in one transaction: what a disk makes each of them wait for is waited for once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from quota.ports import Ledger

MOST = 64  # changes in a transaction: whoever else is served here waits for one, not for all of a thousand

Change = Callable[[], Any]
T = TypeVar("T")


class Together:
    """Writes to one ledger, in the order in which they were asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Change, asyncio.Future[Any]]] = []

    async def write(self, change: Callable[[], T]) -> T:
        """Carry out `change`, which calls the ledger and awaits nothing; return what it returns, once that is durable.

        Raise what it raises. A caller that is cancelled before its turn has changed nothing.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((change, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._carry_out)
        return await future

    def _carry_out(self) -> None:
        batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._carry_out)
        wanted = [(change, future) for change, future in batch if not future.done()]
        if not wanted:
            return
        begun = False
        try:
            with self._ledger.together():
                begun = True
                results = [change() for change, _ in wanted]
        except Exception as error:
            for change, future in wanted:
                if begun:
                    _answer_alone(change, future)
                else:
                    future.set_exception(
                        error
                    )  # a ledger that is held or not ours: no reason to wait for it once for each
            return
        for (_, future), result in zip(wanted, results, strict=True):
            future.set_result(result)


def _answer_alone(change: Change, future: asyncio.Future[Any]) -> None:
    """One of several could not be: each by itself then, and each caller is told of its own."""
    try:
        future.set_result(change())
    except Exception as error:
        future.set_exception(error)
