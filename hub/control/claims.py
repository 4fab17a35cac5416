"""Accelerators of a cluster: every runtime that wants one has a claim, waits its turn, and gives it back when it is provably gone.

A claim is granted before the hub is asked for anything, so who waits costs nothing. The pod is born gated all the same, and its gate
is opened here, for the runtime that holds the lease: a start that comes late can not take what was given to somebody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from gpu_scheduler.model import NONE, Claim, ClaimState, Waiting
from gpu_scheduler.placing import POOL
from gpu_scheduler.queue import ClaimQueue
from quota.model import LIVE, Session, State
from quota.ports import Ledger
from spawner.ports import BackendError

log = logging.getLogger(__name__)

BUSY_SECONDS, QUIET_SECONDS = 0.2, 2.0  # between looks while something is to be done soon, and otherwise


class Gates(Protocol):
    """What must be possible with the machines of a backend for its accelerators to be claimed."""

    async def open_gate(self, runtime_id: str, *, node: str | None) -> bool:
        """Let a runtime's machine start, best on a node; return whether it may now. False: there is none yet. Raise BackendError."""
        ...

    async def holds_accelerator(self, runtime_id: str) -> bool:
        """Return whether a runtime has, or may still get, what its claim was for. Raise BackendError when nobody knows."""
        ...


class ClaimCarrier:
    """Carries the claims of one installation. Belongs to the one control service that acts."""

    def __init__(self, queue: ClaimQueue, gates: Gates, ledger: Ledger) -> None:
        self.queue = queue
        self._gates = gates
        self._ledger = ledger
        self._changed = asyncio.Event()
        self._soon = asyncio.Event()

    async def until_granted(self, session: Session, tell: Callable[[str], Awaitable[None]]) -> Claim:
        """Ask for what a session needs and return once it is granted. `tell` gets a sentence whenever the wait looks different."""
        self.queue.ask(session.id, session.user, session.teams, session.accelerator)
        self._soon.set()
        told = ""
        while True:
            changed = self._changed
            claim, waiting = self.queue.get(session.id), self.queue.waiting(session.id)
            if claim is not None and claim.state is ClaimState.GRANTED:
                return claim
            if waiting is not None and (sentence := sentence_of(session.accelerator, waiting)) != told:
                told = sentence
                await tell(sentence)
            await changed.wait()

    def look_soon(self) -> None:
        """Something ended or began: look now."""
        self._soon.set()

    async def look_for_ever(self) -> None:
        """Grant, open and take back, again and again. What fails is logged, and the next look tries again."""
        while True:
            busy = True
            try:
                busy = await self.look()
            except Exception:
                log.exception("looking at the accelerators failed; it is tried again")
            self._soon.clear()
            try:
                async with asyncio.timeout(BUSY_SECONDS if busy else QUIET_SECONDS):
                    await self._soon.wait()
            except TimeoutError:
                pass

    async def look(self) -> bool:
        """Take back what nobody holds, grant what is free, open the gates of what is granted; return whether more is to come."""
        await self._take_back()
        self.queue.admit()
        self._changed.set()
        self._changed = asyncio.Event()
        return await self._open()

    async def _take_back(self) -> None:
        for claim in self.queue.live():
            session = self._ledger.get(claim.id)
            if session is not None and session.state in LIVE:
                continue
            try:
                held = await self._gates.holds_accelerator(claim.id)
            except BackendError as error:
                log.warning("whether runtime %s still has its accelerator is not known: %s", claim.id, error)
                continue
            if not held:
                self.queue.end(claim.id)

    async def _open(self) -> bool:
        """Open what is granted and starting. Opened again each time: a start that is repeated makes another pod."""
        starting = False
        for claim in self.queue.live():
            session = self._ledger.get(claim.id)
            if (
                claim.state is not ClaimState.GRANTED
                or session is None
                or session.state is not State.STARTING
            ):
                continue
            starting = True
            try:
                await self._gates.open_gate(claim.id, node=node_of(claim))
            except BackendError as error:
                log.warning("the gate of runtime %s was not opened: %s", claim.id, error)
        return starting


def wants_one(session: Session) -> bool:
    """Return whether a session needs a claim."""
    return session.accelerator != NONE


def node_of(claim: Claim) -> str | None:
    """Return the node a claim's slots are on, None when that is the cluster's to decide."""
    if not claim.slots or claim.slots[0].startswith(POOL):
        return None
    return claim.slots[0].partition("/")[0]


def sentence_of(accelerator: str, waiting: Waiting) -> str:
    """Return what a person who waits is told."""
    place = f"position {waiting.position} of {waiting.of}" if waiting.of > 1 else "you are next"
    return f"Waiting for an accelerator ({accelerator}): {place}. {waiting.reason}"
