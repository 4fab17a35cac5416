"""Carry a start from its row to a machine that is ready: environment, accelerator, the hub's server, the Drive it starts with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from hub.control.claims import ClaimCarrier, wants_one
from hub.control.drives_at_start import Agreed, DrivesAtStart
from hub.control.ends import Ends
from hub.control.hub_client import HubClient, HubDown, HubRefused
from hub.settings import Service
from hub.wiring import environment_status
from quota.model import Reason, Session
from quota.service import Sessions
from spawner.model import PHASE_SENTENCES, Budget, EndReason, Phase
from spawner.ports import BackendError, RuntimeBackend
from storage_mount.errors import StorageError

log = logging.getLogger(__name__)

HUB_PATIENCE_SECONDS = 60.0
ENVIRONMENT_LOOK_SECONDS = 0.5
START_TRIES = 2
PHASE_SENTENCE_LENGTH = 500

Tell = Callable[[str, Phase, str], Awaitable[None]]


class StartFailed(Exception):
    """A start that will not succeed."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


class Starts:
    """The starts of one installation. `tell` gets the phase of a session and a sentence."""

    def __init__(
        self,
        service: Service,
        sessions: Sessions,
        backend: RuntimeBackend,
        hub: HubClient,
        ends: Ends,
        claims: ClaimCarrier | None,
        drives_at_start: DrivesAtStart,
        snapshot_bytes: Callable[[str], int],
        tell: Tell,
    ) -> None:
        self._service, self._sessions = service, sessions
        self._backend, self._hub = backend, hub
        self._ends, self._claims, self._drives_at_start = ends, claims, drives_at_start
        self._snapshot_bytes, self._tell = snapshot_bytes, tell

    async def run(self, session: Session) -> None:
        """Return once the runtime of a session is ready. Raise StartFailed."""
        await self._prepare_environment(session)
        devices = await self._accelerator(session)
        await self._start_server(session, devices)
        await self._connect_drive(session)

    async def known_to_hub(self, session: Session) -> bool:
        """Return whether the hub has the runtime's server, once it answers; False when it does not in time."""
        await self._hub.wait_until_it_answers(HUB_PATIENCE_SECONDS)
        try:
            return await self._hub.server(session.user, session.id) is not None
        except HubDown:
            return False

    async def _drive_from_start(self, session: Session) -> Agreed | None:
        """Return the Drive that the runtime starts with, None for most. Raise StartFailed when its disk does not do its work."""
        try:
            return await asyncio.to_thread(self._drives_at_start.of, session)
        except StorageError as error:
            raise StartFailed(Reason(error.code, error.message)) from error

    async def _connect_drive(self, session: Session) -> None:
        """Let the Drive that the runtime has from its start be seen where its user wanted it."""
        agreed = await self._drive_from_start(session)
        if agreed is None:
            return
        try:
            await self._backend.mount(
                session.id, source=str(agreed.folder), target=agreed.path, readonly=agreed.readonly
            )
        except BackendError as error:  # a cell that asks for it is told
            log.warning("runtime %s has no Drive from its start: %s", session.id, error)
            return
        detail = {"path": agreed.path, "readonly": agreed.readonly}
        self._sessions.ledger.record(session.id, "mounted", detail, self._sessions.moment().wall)

    async def _prepare_environment(self, session: Session) -> None:
        """Wait until the runtime environment is installed; the page sees how far it is."""
        told = ""
        while True:
            status = environment_status(self._service)
            if status.state == "complete":
                return
            if status.state == "failed":
                message = f"The runtime environment is not installed: {status.message}"
                raise StartFailed(Reason("environment_failed", message))
            if status.message != told:
                told = status.message
                await self._tell(session.id, Phase.PREPARING, f"{PHASE_SENTENCES[Phase.PREPARING]}: {told}")
            await asyncio.sleep(ENVIRONMENT_LOOK_SECONDS)  # another process's file: nothing to await

    async def _accelerator(self, session: Session) -> list[str]:
        """Return the devices the runtime gets, once they are its own."""
        if self._claims is None or not wants_one(session):
            return [session.device] if session.device is not None else []

        async def tell(sentence: str) -> None:
            await self._tell(session.id, Phase.QUEUED, sentence)

        return list((await self._claims.until_granted(session, tell)).slots)

    async def _start_server(self, session: Session, devices: list[str]) -> None:
        agreed = await self._drive_from_start(session)
        options = {
            "runtime_id": session.id,
            "file_id": session.file_id,
            "accelerator": session.accelerator,
            "shape": session.shape,
            "devices": devices,
            "max_lifetime_seconds": session.max_lifetime_seconds,
            "idle_limit_seconds": session.idle_limit_seconds,
            "budget": _budget_option(self._ends.first_budget(session)),
            "snapshot_bytes": self._snapshot_bytes(session.user),
            "drive": asdict(agreed.drive) if agreed is not None else None,
        }
        for attempt in range(START_TRIES):
            try:
                if not await self._hub.start(session.user, session.id, options):
                    await self._follow(session)
                if await self._backend.observe(session.id) is not None:
                    return
                raise HubDown("the hub has a server without a machine")
            except HubRefused as refused:
                raise StartFailed(_hub_reason(str(refused))) from refused
            except HubDown as down:
                log.warning("start of runtime %s was lost (try %d): %s", session.id, attempt + 1, down)
                if not await self._hub.wait_until_it_answers(HUB_PATIENCE_SECONDS):
                    raise StartFailed(
                        Reason("hub_unavailable", "The hub does not answer. Try again in a moment.")
                    ) from None
                if await self._hub_has(session):
                    return
                await self.undo(session)
        raise StartFailed(
            Reason("start_failed", "The machine could not be started: the hub went away twice.")
        )

    async def undo(self, session: Session) -> None:
        """End what the hub began before it died or could write it down, so that the start can be repeated."""
        try:
            await self._hub.remove(session.user, session.id)
        except HubDown:
            log.warning("the hub did not forget the start of runtime %s", session.id)
        await self._backend.stop(
            session.id, reason=EndReason("restarted", "The start was repeated."), grace_seconds=0.0
        )

    async def _hub_has(self, session: Session) -> bool:
        try:
            model = await self._hub.server(session.user, session.id)
        except HubDown:
            return False
        return bool(model and model.get("ready")) and await self._backend.observe(session.id) is not None

    async def _follow(self, session: Session) -> None:
        async for event in self._hub.follow(session.user, session.id):
            if event.get("ready"):
                return
            if event.get("failed"):
                raise HubRefused(str(event.get("message", "")))
            phase = event.get("phase")
            if phase in set(Phase) and phase != Phase.READY:
                sentence = str(event.get("message") or PHASE_SENTENCES[Phase(phase)])
                await self._tell(session.id, Phase(phase), sentence[:PHASE_SENTENCE_LENGTH])
        raise HubDown("the progress ended early")


def _budget_option(budget: Budget | None) -> dict[str, Any] | None:
    if budget is None:
        return None
    return {"seconds": budget.seconds, "code": budget.reason.code, "message": budget.reason.message}


def _hub_reason(message: str) -> Reason:
    """Return the backend's code and sentence out of the hub's message (`Spawn failed: code: sentence`)."""
    text = message.removeprefix("Spawn failed:").strip()
    text = text.partition("HTTP 500: Internal Server Error")[2].strip(" ()") or text
    code, colon, sentence = text.partition(": ")
    if colon and code.replace("_", "").isalpha() and code.islower():
        return Reason(code, sentence)
    return Reason("start_failed", text or "The machine could not be started.")
