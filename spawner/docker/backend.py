"""The Docker backend: a runtime is a container of the engine on this machine, found by its name and labels.

Below `folder` (DIR/runtimes) a runtime has a folder that holds its /content; like the local backend's, what ended ones left
lies in `.ended`. Hub and control each have an instance; who looks first at a container that ended puts its reason and /content there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import sys
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from docker.errors import APIError

from quota.clock import SystemClock
from spawner import keep
from spawner.container.backend import GOOD_ID, LOST, ContainerBackend, Place
from spawner.container.machine import Places
from spawner.docker import bind, containers
from spawner.docker.containers import ContainerSettings, container_arguments, container_name, is_ours
from spawner.docker.engine import Engine, Unreachable
from spawner.ended import CONTENT, NOTE, Ended, restore
from spawner.model import EndReason, IsolationReport, Observed, Phase, RuntimeSpec
from spawner.ports import BackendError, OnPhase
from spawner.remove_tree import StillMounted, remove_tree
from spawner.supervisor import handover

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05  # a folder's lock can not be awaited
ENGINE_AGAIN_SECONDS = 0.5
LAST_LINES = 50
KILLED = 137
JUST_NOW_SECONDS = 10.0
CRASHED = EndReason("crashed", "The machine ended by itself.")
OUT_OF_MEMORY = EndReason("out_of_memory", "The machine ran out of memory.")
# What the engine says when more CPUs are asked of it than there are, or GPUs where there are none.
NO_CAPACITY = ("CPUs available", "could not select device driver", "unknown device")
NETWORK_LOCK = ".network"
EXECUTIONS = f"{Places().run}/{handover.EXECUTIONS}"
MADE, SNAPSHOT_BYTES, ASKED = "made", "snapshot-bytes", "asked.json"


class DockerBackend(ContainerBackend):
    """Runtimes as containers made with `settings` on the engine at `url`."""

    name = "docker"

    def __init__(
        self,
        folder: Path,
        supervisor_key: Callable[[str], bytes],
        settings: ContainerSettings,
        *,
        url: str | None = None,
        pull: bool = True,
    ) -> None:
        super().__init__(supervisor_key, Ended(folder / ".ended"))
        self._folder, self._settings, self._pull = folder, settings, pull
        self._engine = Engine(url)
        self._shift: int | None = None

    def isolation(self) -> IsolationReport:
        root = self._settings.root
        return IsolationReport(
            "docker",
            (
                "processes, files and users",
                "network of its own, runtimes do not reach each other",
                "memory, CPU and processes are limited",
                "no new privileges, " + ("few capabilities" if root else "no capabilities"),
            ),
            (
                "the machine's kernel",
                "disk space" if self._settings.disk_bytes is None else "space of /content",
            ),
        )

    # -- make -------------------------------------------------------------------------------------------------

    async def _create(self, spec: RuntimeSpec, told: str, on_phase: OnPhase) -> None:
        if await self._inspect_any(spec.id) is not None or (self._folder / spec.id).exists():
            raise _taken(spec.id)
        await self._have_image(on_phase)
        on_phase(Phase.SANDBOX)
        await self._have_network()
        making = asyncio.ensure_future(self._make(spec, told, await self._owner()))
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            [made] = await asyncio.gather(making, return_exceptions=True)
            if not _is_taken(made):  # now it is known what there is to remove
                await asyncio.shield(self._abandon(spec.id))
            raise
        except BackendError as error:
            if not _is_taken(error):
                await asyncio.shield(self._abandon(spec.id))
            raise

    async def _make(self, spec: RuntimeSpec, told: str, owner: int) -> None:
        """Make the runtime's folder and container, and start it. Raise BackendError; `already_exists`: nothing is ours."""
        try:
            content = await asyncio.to_thread(self._make_folder, spec, owner)
        except FileExistsError:
            raise _taken(spec.id) from None
        except OSError as error:
            message = f"The runtime's folder can not be made: {error.strerror}."
            raise BackendError("start_failed", message) from error
        arguments = container_arguments(spec, self._settings, told, str(content), SystemClock().now())
        name = container_name(self._settings.installation, spec.id)
        try:
            made = await self._engine.call(lambda api: api.create_container_from_config(arguments, name))
            await self._engine.call(lambda api: api.start(made["Id"]))
        except APIError as error:
            why = str(error.explanation or error)[:300]
            if error.status_code == 409 and "in use" in why:
                await asyncio.to_thread(self._remove_folder, spec.id)
                raise _taken(spec.id) from error
            if any(words in why for words in NO_CAPACITY):
                message = f"This machine does not have what the runtime needs: {why}"
                raise BackendError("no_capacity", message) from error
            raise BackendError("start_failed", f"The container can not be started: {why}") from error

    async def _abandon(self, runtime_id: str) -> None:
        """Leave nothing of a start that failed or was given up."""
        await self._remove(runtime_id)
        await self._left.forget(runtime_id)

    async def _have_image(self, on_phase: OnPhase) -> None:
        image = self._settings.image
        if await self._engine.has_image(image):
            return
        if not self._pull:
            raise BackendError("image_unavailable", f"The image {image} is not on this machine.")
        on_phase(Phase.PREPARING, f"Pulling the image {image}")
        await self._engine.pull(image, lambda sentence: on_phase(Phase.PREPARING, sentence))

    async def _have_network(self) -> None:
        name = self._settings.network
        try:
            await self._engine.call(self._make_network)
        except APIError as error:
            why = error.explanation or error
            raise BackendError("start_failed", f"The network {name} can not be made: {why}") from error

    def _make_network(self, api: Any) -> None:
        """Make the network when it is not there; by one at a time, for an engine makes two of one name without a word."""
        name = self._settings.network
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        with (self._folder / NETWORK_LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not any(network["Name"] == name for network in api.networks(names=[name])):
                api.create_network(name, **containers.network_arguments(self._settings))

    async def _owner(self) -> int:
        """Return the user of this machine as whom code inside writes."""
        if self._shift is None:
            info = await self._engine.call(lambda api: api.info())
            remapped = any("name=userns" in option for option in info.get("SecurityOptions") or [])
            folder = re.search(r"/(\d+)\.\d+$", str(info.get("DockerRootDir", "")))
            self._shift = int(folder[1]) if remapped and folder else 0
        return self._shift + self._settings.user

    def _make_folder(self, spec: RuntimeSpec, owner: int) -> Path:
        """Make the runtime's folder, whole before it has its name; return /content's."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        draft, folder = self._folder / f".new-{spec.id}", self._folder / spec.id
        draft.mkdir(mode=0o711)
        try:
            content = draft / "content"
            content.mkdir(mode=0o755)
            if owner != os.geteuid():
                os.chown(content, owner, owner)
            (draft / MADE).touch(mode=0o600)
            (draft / SNAPSHOT_BYTES).write_text(str(spec.snapshot_bytes))
            if folder.exists():
                raise FileExistsError(str(folder))
            draft.rename(folder)
        except OSError:
            remove_tree(draft)
            raise
        return folder / "content"

    async def _until_placed(self, runtime_id: str, on_phase: OnPhase) -> Place:
        place = await self._find(runtime_id)
        if place is None:
            raise BackendError("start_failed", "The container was removed while it was starting.")
        if place.ended and place.reason is not None:
            raise BackendError(place.reason.code, place.reason.message)
        if place.host is None:
            raise BackendError("start_failed", "The container has no address in its network.")
        return place

    async def start(self, spec: RuntimeSpec, on_phase: OnPhase) -> Any:
        try:
            return await super().start(spec, on_phase)
        except (BackendError, asyncio.CancelledError) as error:
            if _is_taken(error) or not GOOD_ID.fullmatch(spec.id):
                raise
            left = self._left.reason(spec.id)
            await self._left.forget(spec.id)  # this start's caller is told, nobody later
            if left is not None and isinstance(error, BackendError) and error.code == "start_failed":
                # Somebody else may have put the container away before we could look.
                raise BackendError(left.code, left.message) from error
            raise

    # -- look -------------------------------------------------------------------------------------------------

    async def _inspect_any(self, runtime_id: str) -> dict[str, Any] | None:
        return await self._engine.inspect(container_name(self._settings.installation, runtime_id))

    async def _inspect(self, runtime_id: str) -> dict[str, Any] | None:
        """Return our container of this runtime; one of somebody else with its name is none."""
        found = await self._inspect_any(runtime_id)
        return found if found and is_ours(found["Config"]["Labels"], self._settings.installation) else None

    async def _find(self, runtime_id: str) -> Place | None:
        found = await self._inspect(runtime_id)
        return await self._place(found) if found is not None else None

    async def _place(self, found: dict[str, Any]) -> Place:
        labels, state = found["Config"]["Labels"], found["State"]
        networks = found["NetworkSettings"]["Networks"]
        host = next((n["IPAddress"] for n in networks.values() if n.get("IPAddress")), None)
        ended = state["Status"] in ("exited", "dead", "removing") or _was_never_started(found)
        reason, ago = None, None
        if ended:
            reason = await self._reason(found)
            finished = _time(state["FinishedAt"])
            ago = (SystemClock().now() - finished).total_seconds() if finished else None
        return Place(
            labels[containers.RUNTIME],
            labels[containers.USER],
            labels[containers.FILE],
            host,
            ended,
            reason,
            ago,
        )

    async def _reason(self, found: dict[str, Any]) -> EndReason:
        """Return why a container ended: its supervisor's last words, else what the kernel and the engine know."""
        for line in reversed(await self._engine.log_lines(found["Id"], LAST_LINES)):
            event = _event(line)
            if event.get("event") == "end":
                return EndReason(str(event["code"]), str(event["message"]))
        if _was_never_started(found):
            return LOST
        state = found["State"]
        finished = _time(state["FinishedAt"])
        if state["ExitCode"] == KILLED and finished:
            # The engine's own mark says that memory was short once: a cell that was killed for it is no reason of an end.
            span = finished.timestamp() - JUST_NOW_SECONDS, finished.timestamp()
            if await asyncio.to_thread(self._engine.ran_out_of_memory, found["Id"], *span):
                return OUT_OF_MEMORY
        if state.get("Error"):
            return EndReason("start_failed", f"The container can not be started: {state['Error'][:300]}")
        return CRASHED

    async def _list(self) -> list[Place]:
        found = await asyncio.gather(
            *(self._engine.inspect(i) for i in await self._engine.find(self._own_labels()))
        )
        return list(await asyncio.gather(*(self._place(one) for one in found if one is not None)))

    def _own_labels(self) -> dict[str, str]:
        return containers.own_labels(self._settings.installation)

    async def list_all(self) -> list[Observed]:
        """Return the living; what has ended or lost its container is put away."""
        places = await self._list()
        known = {place.id for place in places}
        for place in places:
            if place.ended:
                await self._put_away(place.id)
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.is_dir() and not path.name.startswith(".") and path.name not in known:
                await self._put_away(path.name)
        return await super().list_all()

    async def _put_away(self, runtime_id: str) -> None:
        try:
            if await self._is_starting(runtime_id):
                return
            await self._remove(runtime_id)
        except (BackendError, OSError, StillMounted) as error:
            log.error("runtime %s: %s", runtime_id, error)

    async def _is_starting(self, runtime_id: str) -> bool:
        """Return whether somebody may be making this runtime's container just now."""
        if await self._inspect(runtime_id) is not None:
            return False
        with contextlib.suppress(OSError):
            made = (self._folder / runtime_id / MADE).stat().st_mtime
            return SystemClock().now().timestamp() - made < containers.START_ALLOWANCE.total_seconds()
        return False

    # -- end --------------------------------------------------------------------------------------------------

    async def stop(self, runtime_id: str, *, reason: EndReason, grace_seconds: float) -> None:
        if GOOD_ID.fullmatch(runtime_id):
            with contextlib.suppress(OSError):  # it has no folder: then there is nothing to stop
                asked = json.dumps({"code": reason.code, "message": reason.message})
                (self._folder / runtime_id / ASKED).write_text(asked, "utf-8")
        await super().stop(runtime_id, reason=reason, grace_seconds=grace_seconds)

    async def _until_ended(self, runtime_id: str) -> Place | None:
        async def ended() -> tuple[Place | None] | None:
            place = await self._find(runtime_id)
            return (place,) if place is None or place.ended else None

        found: tuple[Place | None] = await self._engine.until(ended)
        return found[0]

    async def wait_end(self, runtime_id: str) -> EndReason:
        while True:
            try:
                return await super().wait_end(runtime_id)
            except Unreachable:
                await asyncio.sleep(ENGINE_AGAIN_SECONDS)  # it lives on without its engine

    async def _remove(self, runtime_id: str) -> None:
        if not GOOD_ID.fullmatch(runtime_id):
            return
        async with self._locked(runtime_id):
            found = await self._inspect(runtime_id)
            if found is not None:
                place = await self._place(found)
                if not place.ended and (asked := self._asked(runtime_id)) is not None:
                    place = replace(place, reason=asked, ended_seconds_ago=0.0)
                if place.reason is not None:
                    await self._engine.kill(found["Id"])
                    await self._leave(found, place)
                await self._engine.remove(found["Id"])
            await asyncio.to_thread(self._remove_folder, runtime_id)

    def _asked(self, runtime_id: str) -> EndReason | None:
        """Return why somebody asked this runtime to end, for one that has to be killed."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            data = json.loads((self._folder / runtime_id / ASKED).read_text("utf-8"))
            return EndReason(data["code"], data["message"])
        return None

    @asynccontextmanager
    async def _locked(self, runtime_id: str) -> AsyncIterator[None]:
        """Hold the lock of a runtime's name: hub and control may want to put the same one away."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        path = self._folder / f".lock-{runtime_id}"
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await _lock(fd)
            except asyncio.CancelledError:
                os.close(fd)
                raise
            if _is_still(path, fd):
                break
            os.close(fd)  # who held it has put it away: there may be a new one by now
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    async def _leave(self, found: dict[str, Any], place: Place) -> None:
        """Keep why a runtime ended for a control that was not there, and /content when its user wants it."""
        reason = self._dated(place) or CRASHED
        with contextlib.suppress(OSError):
            self._left.put_reason(place.id, reason)
        if not await self._was_ready(found):
            return
        await self._leave_executions(found["Id"], place.id)
        most_bytes = self._snapshot_bytes(found)
        if most_bytes <= 0:
            return
        with contextlib.suppress(OSError):
            self._left.make()
            content, kept = self._folder / place.id / "content", self._left.path(place.id, CONTENT)
            why_not = await asyncio.to_thread(keep.set_aside, content, kept, most_bytes)
            if why_not:
                self._left.path(place.id, NOTE).write_text(why_not, "utf-8")

    async def _leave_executions(self, identity: str, runtime_id: str) -> None:
        """Keep what a container's cells printed last; its user's code may have put anything there."""
        try:
            await self._engine.copy_out(
                identity,
                EXECUTIONS,
                handover.MOST_BYTES,
                lambda parts: self._left.put_executions(runtime_id, parts),
            )
        except (APIError, Unreachable, OSError, ValueError, tarfile.TarError) as error:
            log.warning("what the cells of runtime %s printed last can not be kept: %s", runtime_id, error)

    async def _was_ready(self, found: dict[str, Any]) -> bool:
        lines = await self._engine.log_lines(found["Id"], LAST_LINES)
        return any(_event(line).get("event") == "ready" for line in lines)

    def _snapshot_bytes(self, found: dict[str, Any]) -> int:
        labels = found["Config"]["Labels"]
        with contextlib.suppress(OSError, ValueError):
            return int((self._folder / labels[containers.RUNTIME] / SNAPSHOT_BYTES).read_text())
        return int(labels.get(containers.SNAPSHOT, 0))

    def _remove_folder(self, runtime_id: str) -> None:
        try:
            remove_tree(self._folder / runtime_id)
        except StillMounted as error:
            raise BackendError("stop_failed", f"Runtime {runtime_id} can not be removed: {error}.") from error

    # -- drives -----------------------------------------------------------------------------------------------

    async def _bind(self, runtime_id: str, name: str, source: str, *, readonly: bool) -> None:
        if not Path(source).is_absolute() or not Path(source).is_dir():
            raise BackendError("no_such_drive", "The drive to mount does not exist.")
        await self._in_namespace(runtime_id, "mount", name, source, readonly=readonly)

    async def _unbind(self, runtime_id: str, name: str) -> None:
        await self._in_namespace(runtime_id, "umount", name, "", readonly=False)

    async def _in_namespace(
        self, runtime_id: str, verb: str, name: str, source: str, *, readonly: bool
    ) -> None:
        found = await self._inspect(runtime_id)
        if found is None or not found["State"]["Pid"]:
            raise BackendError("no_such_runtime", "This runtime is not there any more.")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-S", "-m", bind.__name__, str(found["State"]["Pid"]), verb, source, name),
            *("1" if readonly else "0", str(await self._owner())),
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.defpath},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, problem = await process.communicate()
        if process.returncode != 0:
            why = problem.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
            done = "mounted" if verb == "mount" else "taken away"
            raise BackendError("mount_failed", f"The drive could not be {done}: {why}")

    # -- /content ---------------------------------------------------------------------------------------------

    async def set_snapshot(self, runtime_id: str, *, snapshot_bytes: int) -> None:
        await super().set_snapshot(runtime_id, snapshot_bytes=snapshot_bytes)
        with contextlib.suppress(OSError):
            (self._folder / runtime_id / SNAPSHOT_BYTES).write_text(str(snapshot_bytes))

    async def restore(self, runtime_id: str, *, snapshot: Path) -> int:
        await self._call(runtime_id, {"op": "status"})
        return await restore(snapshot, self._folder / runtime_id / "content", await self._owner())


async def _lock(fd: int) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            await asyncio.sleep(LOOK_SECONDS)


def _is_still(path: Path, fd: int) -> bool:
    """Return whether the file that is open is the one that has this name now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except OSError:
        return False


def _taken(runtime_id: str) -> BackendError:
    return BackendError("already_exists", f"A runtime named {runtime_id} exists already.")


def _is_taken(error: object) -> bool:
    return isinstance(error, BackendError) and error.code == "already_exists"


def _event(line: str) -> dict[str, Any]:
    """Return what the supervisor says in a line, nothing when it is no word of its own."""
    with contextlib.suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}


def _was_never_started(found: dict[str, Any]) -> bool:
    """Return whether who made the container is gone: it was made, and not started within what a start may take."""
    made = _time(found["Created"])
    if found["State"]["Status"] != "created" or made is None:
        return False
    return SystemClock().now() - made > containers.START_ALLOWANCE


def _time(text: str) -> datetime | None:
    """Return a time as the engine writes it (nanoseconds), None for "never"."""
    if text.startswith("0001-"):
        return None
    return datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", text))
