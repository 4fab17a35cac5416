"""What cells print reaches the document although no page is open: it is fetched from the runtimes and brought to documents.

A runtime records what its cells print. For every ready runtime one task here asks it for what changed and tells documents, which
knows whether the page that ran a cell is there to write the outputs, and asks for those that it is to write itself. A run is
told of again until documents says that it is settled, so a restart of either service, or of the hub, loses nothing. What a
runtime left at its end is kept on the disk until documents has it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from hub.settings import Service
from quota.clock import Clock
from quota.model import Session
from quota.ticket import mint, runtime_key
from spawner.ports import BackendError, RuntimeBackend

log = logging.getLogger(__name__)

TELL_SECONDS = 2  # how often documents is told again of what is not settled
LISTEN_SECONDS = 25  # how long a question to a runtime waits when everything is settled
SHORTEST_PAUSE_SECONDS = (
    0.25  # between two questions: a cell that prints without a pause is asked this often at most
)
PAUSE_FACTOR = 4  # ... and no more often than every fifth of the time is spent on it
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 30.0
ANSWER_SECONDS = 20.0
TICKET_SECONDS = 300
MAX_ANSWER_BYTES = 96 << 20
MAX_RUNS = 2000
KEPT_SECONDS = 7 * 24 * 3600.0
FOLDER = "pending-outputs"

Json = dict[str, Any]  # a model of an execution: JSON of a runtime, checked by documents


class NoAnswer(Exception):
    """The other side did not answer, or not what was expected. It is asked again."""


class Unwanted(Exception):
    """Documents will never take it: the file is gone, or the user may not change it."""


@dataclass
class Notes:
    """What one runtime has told and documents has not settled. `over`: the runtime has ended."""

    runtime_id: str
    user: str
    file_id: str
    runs: dict[str, Json] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)  # runs whose outputs documents wants
    sent: dict[str, object] = field(default_factory=dict)  # run → the version whose outputs were sent
    over: bool = False

    def take(self, executions: Iterable[object]) -> None:
        """Note what the runtime tells, in the order in which the cells were run."""
        for execution in executions:
            if not isinstance(execution, Mapping):
                continue
            run, cell = execution.get("msg_id"), execution.get("cell_id")
            if not isinstance(run, str) or not isinstance(cell, str) or run in self.settled:
                continue
            if run in self.runs or len(self.runs) < MAX_RUNS:
                self.runs[run] = dict(execution)
        self.runs = dict(sorted(self.runs.items(), key=lambda item: str(item[1].get("submitted", ""))))

    def message(self, wanted: frozenset[str] = frozenset()) -> Json:
        """Return what documents is to be told: every run, with the outputs it wants and does not have."""
        executions = []
        for run, model in self.runs.items():
            version = model.get("changed")
            if run in wanted or (run in self.asked and self.sent.get(run) != version):
                executions.append(model)
            else:
                executions.append({key: value for key, value in model.items() if key != "outputs"})
        return {
            "runtime_id": self.runtime_id,
            "user": self.user,
            "ended": self.over,
            "executions": executions,
        }

    def told(self, message: Json, answer: Json) -> frozenset[str]:
        """Note documents' answer to a message; return the runs whose outputs it wants now."""
        for model in message["executions"]:
            if "outputs" in model:
                self.sent[model["msg_id"]] = model.get("changed")
        for run in answer["settled"]:
            self.settled.add(run)
            self.runs.pop(run, None)
            self.sent.pop(run, None)
            self.asked.discard(run)
        wanted = frozenset(run for run in answer["wanted"] if run in self.runs)
        self.asked |= wanted
        return wanted


class Scribe:
    """Follows the runtimes of one installation. `documents_url` is where documents answers."""

    def __init__(self, service: Service, documents_url: str, backend: RuntimeBackend, clock: Clock) -> None:
        self._service, self._backend, self._clock = service, backend, clock
        self._files = f"{documents_url.rstrip('/')}/services/documents/api/v1/files/"
        self._folder = service.state / FOLDER
        self._followed: dict[str, tuple[Notes, asyncio.Task[None]]] = {}
        self._pending: dict[str, Notes] = {}
        self._more_pending = asyncio.Event()
        self._bringing: asyncio.Task[None] | None = None
        self._http: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Begin to bring what an earlier control kept."""
        for notes in self._kept():
            self._pending.setdefault(notes.runtime_id, notes)
        self._bringing = asyncio.create_task(self._bring_for_ever(), name="pending outputs")

    async def close(self) -> None:
        """Let go of everything; what is pending stays on the disk, and what is followed is asked for again by the next control."""
        tasks = [task for _, task in self._followed.values()]
        if self._bringing is not None:
            tasks.append(self._bringing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    # -- a runtime that lives -------------------------------------------------------------------------------------

    def follow(self, session: Session) -> None:
        """Begin to follow a ready runtime; nothing happens when it is followed already."""
        if session.id not in self._followed:
            notes = Notes(session.id, session.user, session.file_id)
            task = asyncio.create_task(self._follow(notes), name=f"outputs of {session.id}")
            self._followed[session.id] = (notes, task)

    async def unfollow(self, runtime_id: str) -> Notes | None:
        """Stop following a runtime; return what of it is not settled, None when it was not followed."""
        notes, task = self._followed.pop(runtime_id, (None, None))
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return notes

    async def _follow(self, notes: Notes) -> None:
        instance, number, address = "", -1, ""
        retry = FIRST_RETRY_SECONDS
        while True:
            began = self._clock.boottime()
            try:
                address = address or await self._address(notes)
                wait = TELL_SECONDS if notes.runs else LISTEN_SECONDS
                answer = await self._changes(notes, address, instance, number, wait)
                told = answer["instance"] != instance or answer["number"] != number
                instance, number = answer["instance"], answer["number"]
                asked = self._clock.boottime()
                notes.take(answer["executions"])
                await self._tell(notes)
                retry = FIRST_RETRY_SECONDS
                busy = self._clock.boottime() - (began if told else asked)
                await asyncio.sleep(max(SHORTEST_PAUSE_SECONDS, min(busy * PAUSE_FACTOR, LISTEN_SECONDS)))
            except NoAnswer as error:
                log.debug("outputs of runtime %s wait: %s", notes.runtime_id, error)
                address = ""
                await asyncio.sleep(retry)
                retry = min(retry * 2, LONGEST_RETRY_SECONDS)
            except Unwanted as error:
                log.info("outputs of runtime %s are not wanted: %s", notes.runtime_id, error)
                await asyncio.sleep(LONGEST_RETRY_SECONDS)  # a file may come back from the trash

    async def _address(self, notes: Notes) -> str:
        try:
            observed = await self._backend.observe(notes.runtime_id)
        except BackendError as error:
            raise NoAnswer(str(error)) from error
        if observed is None or observed.endpoint is None:
            raise NoAnswer("the runtime is not there")
        return observed.endpoint.url

    async def _changes(self, notes: Notes, address: str, instance: str, number: int, wait: int) -> Json:
        """Ask a runtime for what changed. Its code may be its user's, so nothing it answers is believed to be as it should."""
        key = runtime_key(self._service.key("ticket"), notes.runtime_id)
        expires = int(self._clock.now().timestamp()) + TICKET_SECONDS
        ticket = mint(key, notes.runtime_id, notes.user, expires, secrets.token_urlsafe(9))
        url = f"{address}/user/{quote(notes.user, safe='@~')}/{notes.runtime_id}/minicolab/executions/changes"
        query = {"after": str(number), "wait": str(wait), **({"instance": instance} if instance else {})}
        timeout = aiohttp.ClientTimeout(total=wait + ANSWER_SECONDS)
        try:
            async with self._client().get(
                url,
                params=query,
                headers={"Authorization": f"Bearer {ticket}"},
                timeout=timeout,
                allow_redirects=False,
            ) as reply:
                if reply.status != 200:
                    raise NoAnswer(f"the runtime answered {reply.status}")
                raw = await _at_most(reply, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(f"the runtime does not answer: {error}") from error
        answer = await asyncio.to_thread(_json_object, raw)
        told, counted, executions = answer.get("instance"), answer.get("number"), answer.get("executions")
        if not (isinstance(told, str) and len(told) <= 64 and isinstance(executions, list)):
            raise NoAnswer("the runtime answered something else")
        if not isinstance(counted, int) or isinstance(counted, bool) or abs(counted) > 10**15:
            raise NoAnswer("the runtime answered something else")
        return answer

    # -- a runtime that has ended ---------------------------------------------------------------------------------

    async def settled(self, session: Session, left: Iterable[Mapping[str, Any]]) -> None:
        """Bring the last outputs of a runtime that has ended. What can not be brought now is on the disk, and brought later."""
        notes = await self.unfollow(session.id) or Notes(session.id, session.user, session.file_id)
        notes.take(left)
        notes.over = True
        if not notes.runs:
            return
        await asyncio.to_thread(self._keep, notes)
        if not await self._bring(notes):
            self._pending[notes.runtime_id] = notes
            self._more_pending.set()

    async def _bring(self, notes: Notes) -> bool:
        """Tell documents what an ended runtime left; return whether nothing of it is left to tell."""
        try:
            await self._tell(notes)
        except NoAnswer as error:
            log.warning("the last outputs of runtime %s wait: %s", notes.runtime_id, error)
            return False
        except Unwanted as error:
            log.info("the last outputs of runtime %s are not wanted: %s", notes.runtime_id, error)
            notes.runs.clear()
        if notes.runs:
            return False
        await asyncio.to_thread(self._file(notes.runtime_id).unlink, missing_ok=True)
        return True

    async def _bring_for_ever(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while True:
            self._more_pending.clear()
            for notes in list(self._pending.values()):
                if await self._bring(notes) or await asyncio.to_thread(self._too_old, notes):
                    self._pending.pop(notes.runtime_id, None)
            if not self._pending:
                retry = FIRST_RETRY_SECONDS
                await self._more_pending.wait()
                continue
            try:
                async with asyncio.timeout(retry):
                    await self._more_pending.wait()
                retry = FIRST_RETRY_SECONDS
            except TimeoutError:
                retry = min(retry * 1.5, LONGEST_RETRY_SECONDS)

    def _too_old(self, notes: Notes) -> bool:
        """Return whether documents refused for so long that it will not take it; then it is removed."""
        file = self._file(notes.runtime_id)
        try:
            age = self._clock.now().timestamp() - file.stat().st_mtime
        except OSError:
            return False  # it could not be written: then it is tried while this process lives
        if age < KEPT_SECONDS:
            return False
        log.error("the last outputs of runtime %s could not be brought in a week; given up", notes.runtime_id)
        file.unlink(missing_ok=True)
        return True

    # -- documents ------------------------------------------------------------------------------------------------

    async def _tell(self, notes: Notes) -> None:
        """Tell documents of every run that is not settled, and send the outputs it asks for. Raise NoAnswer, Unwanted."""
        wanted: frozenset[str] = frozenset()
        if notes.runs:
            message = notes.message()
            wanted = notes.told(message, await self._post(notes, message))
        if wanted:
            message = notes.message(wanted)
            notes.told(message, await self._post(notes, message))

    async def _post(self, notes: Notes, message: Json) -> Json:
        url = f"{self._files}{quote(notes.file_id, safe='')}/outputs"
        headers = {
            "Authorization": f"Bearer {self._service.control_token}",
            "Content-Type": "application/json",
        }
        body = await asyncio.to_thread(_dump, message)
        try:
            async with self._client().post(
                url, data=body, headers=headers, timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            ) as reply:
                raw = await _at_most(reply, MAX_ANSWER_BYTES)
                status = reply.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(f"documents does not answer: {error}") from error
        if status in (400, 403, 404, 413, 422):
            raise Unwanted(raw[:300].decode("utf-8", "replace"))
        if status != 200:
            raise NoAnswer(f"documents answered {status}")
        return _json_object(raw)

    def _client(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession()
        return self._http

    # -- the disk -------------------------------------------------------------------------------------------------

    def _file(self, runtime_id: str) -> Path:
        return self._folder / f"{runtime_id}.json"

    def _keep(self, notes: Notes) -> None:
        """Put what is not settled on the disk, whole and durably; a full disk is no reason to end."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            draft = self._folder / f".{notes.runtime_id}"
            with draft.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(_dump({**notes.message(frozenset(notes.runs)), "file_id": notes.file_id}))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._file(notes.runtime_id))
        except OSError as error:
            log.error("the last outputs of runtime %s can not be kept: %s", notes.runtime_id, error)

    def _kept(self) -> list[Notes]:
        found: list[Notes] = []
        with suppress(FileNotFoundError):
            for draft in self._folder.glob(".r-*"):
                draft.unlink(missing_ok=True)  # not whole: a control that ended while it wrote
        for file in sorted(self._folder.glob("*.json")):
            try:
                data = _json_object(file.read_bytes())
                notes = Notes(data["runtime_id"], data["user"], data["file_id"], over=True)
                notes.take(data["executions"])
                found.append(notes)
            except (OSError, NoAnswer, KeyError, TypeError) as error:
                log.error("%s can not be read: %s", file.name, error)
        return found


async def _at_most(reply: aiohttp.ClientResponse, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in reply.content.iter_any():
        size += len(part)
        if size > most:
            raise NoAnswer("the answer is too long")
        parts.append(part)
    return b"".join(parts)


def _dump(value: Json) -> bytes:
    return json.dumps(value).encode("ascii")


def _json_object(raw: bytes) -> Json:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise NoAnswer("the answer is no JSON") from None
    if not isinstance(value, dict):
        raise NoAnswer("the answer is no object")
    return value
