"""What docker and kubernetes have in common: a container whose first process is our supervisor, found by its name.

A backend adds how containers are made, found, listed and removed, how one that has ended says why, and how a drive is bound outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spawner.container import link
from spawner.container.spec import SERVER_PORT, SUPERVISOR_PORT, bind_name, describe
from spawner.container.taking import Taking
from spawner.ended import Ended
from spawner.model import (
    Endpoint,
    EndReason,
    IsolationReport,
    LeftBehind,
    Observed,
    Phase,
    RuntimeSpec,
)
from spawner.ports import BackendError, OnPhase
from spawner.supervised import Supervised, gone, stop_request, told
from spawner.supervisor import linux
from spawner.supervisor.handover import CONTENT_SECONDS
from spawner.supervisor.wire import NoAnswer, SupervisorGone

log = logging.getLogger(__name__)

READY_SECONDS = 90.0  # from the start of the container's first process
STATUS_SECONDS = 5.0
END_SECONDS = 30.0  # on top of the grace
RESTORE_SECONDS = 300.0
LAST_BREATH_SECONDS = 5.0  # from the last word of a supervisor to its end
CONNECT_AGAIN_SECONDS = 0.05  # a port of another machine can not be awaited
GOOD_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LOST = EndReason("lost", "The machine disappeared without saying why.")


@dataclass(frozen=True)
class Place:
    """A container as its engine sees it.

    `host` is its address, None while it has none; `ended`: its first process has ended, and `reason` is what its engine knows of
    why; `ended_seconds_ago` when, None when nobody knows.
    """

    id: str
    user: str
    file_id: str
    host: str | None
    ended: bool = False
    reason: EndReason | None = None
    ended_seconds_ago: float | None = None
    server_port: int = SERVER_PORT
    supervisor_port: int = SUPERVISOR_PORT


class ContainerBackend(Supervised, ABC):
    """Runtimes in containers. `supervisor_key` gives the key of a runtime's supervisor (quota.ticket.supervisor_key).

    What ended ones left is kept by `left`. Where a container's files go with it, its supervisor hands over what its cells printed
    last, and /content of users who keep that, and waits `hand_over_seconds` for somebody to take it.
    """

    name: str
    hand_over_seconds = 0.0
    keeps_content = False

    def __init__(self, supervisor_key: Callable[[str], bytes], left: Ended) -> None:
        self._supervisor_key = supervisor_key
        self._left = left
        self._followed: dict[str, Observed | None] = {}  # whose end is listened for, and what they are

    # -- what an engine adds ----------------------------------------------------------------------------------

    @abstractmethod
    async def _create(self, spec: RuntimeSpec, told: str, on_phase: OnPhase) -> None:
        """Make the container of `spec` with MINICOLAB_SPEC=`told`. Raise BackendError (`already_exists`: nothing is touched)."""

    @abstractmethod
    async def _until_placed(self, runtime_id: str, on_phase: OnPhase) -> Place:
        """Return where the container runs, once it does or has ended. Raise BackendError when it never will."""

    @abstractmethod
    async def _find(self, runtime_id: str) -> Place | None:
        """Return the container of a runtime, None when there is none."""

    @abstractmethod
    async def _list(self) -> list[Place]:
        """Return every container of this installation, ended ones too."""

    @abstractmethod
    async def _until_ended(self, runtime_id: str) -> Place | None:
        """Return the container once its first process has ended, None once it is gone."""

    @abstractmethod
    async def _remove(self, runtime_id: str) -> None:
        """Kill the container if it lives and remove it and all that is its; return once nothing is left. None there: no error."""

    @abstractmethod
    async def _bind(self, runtime_id: str, name: str, source: str, *, readonly: bool) -> None:
        """See to it that the drive folder `source` appears at /drives/<name>. Raise BackendError."""

    @abstractmethod
    async def _unbind(self, runtime_id: str, name: str) -> None:
        """Take it away again. Raise BackendError."""

    def _bind_name(self, target: str, *, readonly: bool) -> str:
        """Return the name below /drives of what is to be seen at `target`."""
        return bind_name(target, readonly=readonly)

    @abstractmethod
    def isolation(self) -> IsolationReport: ...

    # -- start ------------------------------------------------------------------------------------------------

    async def start(self, spec: RuntimeSpec, on_phase: OnPhase) -> Endpoint:
        if not GOOD_ID.fullmatch(spec.id):
            raise BackendError("bad_id", "A runtime's id has lower-case letters, digits and '-' only.")
        key = self._supervisor_key(spec.id)
        told = describe(spec, key, hand_over_seconds=self.hand_over_seconds)
        await self._create(spec, told, on_phase)
        try:
            place = await self._until_placed(spec.id, on_phase)
            on_phase(Phase.SERVER)
            async with asyncio.timeout(READY_SECONDS):
                await self._until_ready(place)
            on_phase(Phase.READY)
            return _endpoint(place)
        except BaseException as error:
            with contextlib.suppress(BackendError):
                words = (
                    (await self.logs(spec.id)).strip()
                    if not isinstance(error, asyncio.CancelledError)
                    else ""
                )
                if words:
                    log.warning("runtime %s did not start; its last words:\n%s", spec.id, words[-4000:])
            await asyncio.shield(self._remove(spec.id))
            if isinstance(error, TimeoutError):
                message = f"The machine did not start within {READY_SECONDS:.0f} seconds."
                raise BackendError("start_timeout", message) from None
            raise

    async def _until_ready(self, place: Place) -> None:
        """Return once the supervisor says that the server answers. Raise BackendError when it ends before."""
        ended = asyncio.ensure_future(self._until_ended(place.id))
        ready = asyncio.ensure_future(self._hear_ready(place))
        try:
            await asyncio.wait((ended, ready), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                return
            found = ended.result()
            reason = found.reason if found is not None else None
            if reason is None:
                raise BackendError("start_failed", "The machine ended while it was starting.")
            raise BackendError(reason.code, reason.message)
        finally:
            for task in (ended, ready):
                task.cancel()
            await asyncio.gather(ended, ready, return_exceptions=True)

    async def _hear_ready(self, place: Place) -> None:
        while True:
            with contextlib.suppress(SupervisorGone):
                async with contextlib.aclosing(link.watch(self._address(place))) as events:
                    async for event in events:
                        if event.get("event") == "ready":
                            return
                        if event.get("event") == "end":
                            raise BackendError(str(event["code"]), str(event["message"]))
            await asyncio.sleep(CONNECT_AGAIN_SECONDS)

    # -- end --------------------------------------------------------------------------------------------------

    async def stop(self, runtime_id: str, *, reason: EndReason, grace_seconds: float) -> None:
        if not GOOD_ID.fullmatch(runtime_id):
            return
        place = await self._find(runtime_id)
        if place is not None:
            found = self._dated(place) if place.ended else None
            told = await self._end(place, reason, grace_seconds)
            self._note(runtime_id, told or found or replace(reason, boottime=linux.boottime()))
        await self._remove(runtime_id)

    async def _end(self, place: Place, reason: EndReason, grace_seconds: float) -> EndReason | None:
        """Have a container end itself, and wait for that; return the reason it tells: it may have had another already."""
        heard: EndReason | None = None
        if place.host is None or place.ended:
            return heard
        try:
            content_seconds = CONTENT_SECONDS if self.keeps_content and self.hand_over_seconds > 0 else 0.0
            async with asyncio.timeout(grace_seconds + END_SECONDS + content_seconds):
                heard = await self._listen_for_end(place, ask=stop_request(reason, grace_seconds))
                await self._until_ended(place.id)
        except (SupervisorGone, TimeoutError) as error:
            log.warning("runtime %s does not end by itself (%s): it is removed", place.id, error)
        return heard

    def _note(self, runtime_id: str, reason: EndReason) -> None:
        """Leave why a runtime ended until it is forgotten: who asked first may die before that is written down."""
        try:
            self._left.put_reason(runtime_id, reason)
        except OSError as error:
            log.warning("why runtime %s ended (%s) can not be kept: %s", runtime_id, reason.code, error)

    async def wait_end(self, runtime_id: str) -> EndReason:
        heard: EndReason | None = None
        if not GOOD_ID.fullmatch(runtime_id):
            return LOST
        while True:
            place = await self._find(runtime_id)
            if place is None:
                return self._left.reason(runtime_id) or heard or LOST
            if not place.ended and heard is None and place.host is not None:
                heard = await self._hear_end(place)
            if heard is None and not place.ended:
                # The connection broke, but nobody says it has ended: then the engine is asked, and the supervisor again.
                place = await self._doubt(place)
                if not place.ended:
                    continue
            reason = heard or self._dated(place) or LOST
            self._note(runtime_id, reason)
            if heard is not None:
                # It has said its last word and is about to end: what it left is whole then.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_BREATH_SECONDS):
                        await self._until_ended(runtime_id)
            await self._remove(runtime_id)
            return reason

    async def _doubt(self, place: Place) -> Place:
        """Return what the engine says within a while of a container whose supervisor does not answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_SECONDS):
                return await self._until_ended(place.id) or place
        return place

    async def _hear_end(self, place: Place) -> EndReason | None:
        """Return the reason the supervisor tells when it ends, None when the connection ends without."""
        ended = asyncio.ensure_future(self._until_ended(place.id))
        hears = asyncio.ensure_future(self._listen_for_end(place))
        self._followed[place.id] = None
        try:
            await asyncio.wait((ended, hears), return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not hears.done():
                # Its last words may still be on the way.
                await asyncio.wait((hears,), timeout=1.0)
            return hears.result() if hears.done() else None
        except SupervisorGone:
            return None
        finally:
            self._followed.pop(place.id, None)
            for task in (ended, hears):
                task.cancel()
            await asyncio.gather(ended, hears, return_exceptions=True)

    async def _listen_for_end(self, place: Place, *, ask: dict[str, Any] | None = None) -> EndReason | None:
        """Take what the supervisor tells and hands over at its end; return the reason, None when the connection ends without.

        Who follows a runtime keeps what it leaves; who merely asks it to end does that only when nobody follows.
        """

        async def most_content() -> int:
            return await self._most_content(place.id)

        taking = Taking(self._left, place.id, most_content)
        watch = link.watch(self._address(place), taking=taking, keeps_content=ask is None, ask=ask)
        async with contextlib.aclosing(watch) as events:
            async for event in events:
                if event.get("event") == "end":
                    at = linux.boottime() - float(event["seconds_ago"])
                    return EndReason(str(event["code"]), str(event["message"]), at)
        return None

    def _dated(self, place: Place) -> EndReason | None:
        """Return what the engine knows of an end, with its time by our own clock."""
        if place.reason is None:
            return None
        ago = place.ended_seconds_ago
        at = linux.boottime() - max(0.0, ago) if ago is not None else None
        return EndReason(place.reason.code, place.reason.message, at)

    # -- look -------------------------------------------------------------------------------------------------

    async def observe(self, runtime_id: str) -> Observed | None:
        if not GOOD_ID.fullmatch(runtime_id):
            return None
        place = await self._find(runtime_id)
        return await self._look(place) if place is not None and not place.ended else None

    async def list_all(self) -> list[Observed]:
        self._left.forget_old()
        places = [place for place in await self._list() if not place.ended]
        return list(await asyncio.gather(*(self._look_or_believe(place) for place in places)))

    async def _look(self, place: Place) -> Observed:
        """Return the runtime as its supervisor sees it. Raise BackendError `no_answer`: what does not answer is not gone."""
        if place.host is None:
            return Observed(place.id, place.user, place.file_id, "starting", None, None)
        try:
            status = await link.call(self._address(place), {"op": "status"}, seconds=STATUS_SECONDS)
        except (SupervisorGone, NoAnswer) as error:
            raise BackendError("no_answer", f"The supervisor of {place.id} gives {error}.") from error
        ago = status["ready_seconds_ago"]
        ready = linux.boottime() - ago if ago is not None else None
        endpoint = _endpoint(place) if ready is not None else None
        return Observed(place.id, place.user, place.file_id, status["state"], endpoint, ready)

    async def _look_or_believe(self, place: Place) -> Observed:
        """Return the runtime as its supervisor sees it; a ready one whose end is listened for is still what it was."""
        known = self._followed.get(place.id)
        if known is not None:
            return known
        try:
            seen = await self._look(place)
            if place.id in self._followed and seen.state == "ready":
                self._followed[place.id] = seen
            return seen
        except BackendError:
            return Observed(place.id, place.user, place.file_id, "unknown", None, None)

    # -- change -----------------------------------------------------------------------------------------------

    async def mount(self, runtime_id: str, *, source: str, target: str, readonly: bool) -> None:
        for mounted in await self.mounts(runtime_id):
            if mounted.target == target and mounted.readonly is not readonly:
                await self.unmount(runtime_id, target=target)
        name = self._bind_name(target, readonly=readonly)
        await self._bind(runtime_id, name, source, readonly=readonly)
        try:
            request = {"op": "mount", "source": name, "target": target, "readonly": readonly}
            await self._call(runtime_id, request)
        except BackendError:
            with contextlib.suppress(BackendError):
                await self._unbind(runtime_id, name)
            raise

    async def unmount(self, runtime_id: str, *, target: str) -> None:
        mounted = {m.target: m.readonly for m in await self.mounts(runtime_id)}
        await self._call(runtime_id, {"op": "unmount", "target": target})
        if target in mounted:
            await self._unbind(runtime_id, self._bind_name(target, readonly=mounted[target]))

    # -- what ended ones left: an engine that keeps /content says so itself --------------------------------------

    async def left_behind(self, runtime_id: str) -> LeftBehind | None:
        return await self._left.left_behind(runtime_id) if GOOD_ID.fullmatch(runtime_id) else None

    async def forget(self, runtime_id: str) -> None:
        if GOOD_ID.fullmatch(runtime_id):
            await self._left.forget(runtime_id)

    async def _most_content(self, runtime_id: str) -> int:
        """Return how many bytes of /content may be kept of what a runtime hands over."""
        return 0

    async def restore(self, runtime_id: str, *, snapshot: Path) -> int:
        address = self._address(await self._living(runtime_id))
        try:
            answer = await link.send_content(address, snapshot, seconds=RESTORE_SECONDS)
        except (SupervisorGone, NoAnswer) as error:
            raise BackendError("no_answer", f"The supervisor of {runtime_id} gives {error}.") from error
        except OSError as error:
            raise BackendError(
                "restore_failed", f"The snapshot can not be read: {error.strerror}."
            ) from error
        return int(told(answer)["files"])

    # -- the supervisor ---------------------------------------------------------------------------------------

    def _address(self, place: Place) -> link.Address:
        assert place.host is not None
        return link.Address(place.host, place.supervisor_port, self._supervisor_key(place.id))

    async def _living(self, runtime_id: str) -> Place:
        """Return where a runtime is. Raise BackendError when there is nobody to ask."""
        place = await self._find(runtime_id) if GOOD_ID.fullmatch(runtime_id) else None
        if place is None or place.ended or place.host is None:
            raise gone()
        return place

    async def _call(self, runtime_id: str, request: dict[str, Any]) -> dict[str, Any]:
        place = await self._living(runtime_id)
        try:
            answer = await link.call(self._address(place), request)
        except (SupervisorGone, NoAnswer) as error:
            raise BackendError("no_answer", f"The supervisor of {runtime_id} gives {error}.") from error
        return told(answer)


def _endpoint(place: Place) -> Endpoint:
    assert place.host is not None
    return Endpoint(place.host, place.server_port)
