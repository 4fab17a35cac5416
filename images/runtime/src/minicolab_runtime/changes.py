"""What was changed since somebody last looked: one rising number for all executions of this server, and a way to wait for the next.

A page is not the only one who wants a cell's outputs: the service writes them to the document when no page is open. It asks
for what changed since its last answer and waits for more, so that nothing is sent twice and nothing is asked in vain.
"""

from __future__ import annotations

import asyncio
import secrets


class Changes:
    """`instance` names this server's life: a number of another one says nothing here."""

    def __init__(self) -> None:
        self.instance = secrets.token_hex(8)
        self.number = 0
        self._next = asyncio.Event()

    def note(self) -> int:
        """Count one more change and return its number."""
        self.number += 1
        self._next.set()
        self._next = asyncio.Event()
        return self.number

    async def wait(self, after: int, seconds: float) -> None:
        """Return once there is a change later than number `after`, or after `seconds`."""
        if self.number <= after:
            coming = self._next
            try:
                async with asyncio.timeout(seconds):
                    await coming.wait()
            except TimeoutError:
                return
