"""The Docker backend: a runtime is a container of the engine on this machine, found by its name and labels.

Below `folder` (DIR/runtimes) a runtime has a folder that holds its /content; like the local backend's, what ended ones left
lies in `.ended`. Hub and control each have an instance; who looks first at a container that ended puts its reason and /content there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from docker.errors import APIError

from quota.clock import SystemClock
from spawner.container.backend import GOOD_ID, LOST, ContainerBackend, Place
from spawner.container.server import Places
from spawner.docker import bind, containers, looks
from spawner.docker.apart import Failed, apart
from spawner.docker.containers import ContainerSettings, container_arguments, container_name, is_ours
from spawner.docker.devices import device_arguments, told_refusal
from spawner.docker.engine import Engine, Unreachable
from spawner.docker.folders import Folders
from spawner.docker.layers import Layers
from spawner.docker.looks import CRASHED, OUT_OF_MEMORY
from spawner.model import EndReason, IsolationReport, LeftBehind, Observed, Phase, RuntimeSpec
from spawner.ports import BackendError, OnPhase
from spawner.remove_tree import StillMounted
from spawner.supervised import gone
from spawner.supervisor import handover

log = logging.getLogger(__name__)

ENGINE_AGAIN_SECONDS = 0.5
LAST_LINES = 50
FULL_GRACE_SECONDS = 5.0
NETWORK_LOCK = ".network"
EXECUTIONS = f"{Places().run}/{handover.EXECUTIONS}"
MEASURED = (
    "space beside /content is measured only (the engine's storage has no quotas): who takes too much is ended"
)


class DockerBackend(ContainerBackend):
    """Runtimes as containers made with `settings` on the engine at `url`.

    `device_names` gives what the drivers call the device files of this machine (device_arguments).
    """

    name = "docker"
    keeps_content = True

    def __init__(
        self,
        folder: Path,
        supervisor_key: Callable[[str], bytes],
        settings: ContainerSettings,
        *,
        url: str | None = None,
        pull: bool = True,
        device_names: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._folders = Folders(folder, settings.disk_bytes)
        super().__init__(supervisor_key, self._folders.left)
        self._settings, self._pull, self._device_names = settings, pull, device_names
        self._engine = Engine(url)
        self._layers = Layers(self._engine, settings)
        self._shift: int | None = None

    def isolation(self) -> IsolationReport:
        rights = "few capabilities" if self._settings.root else "no capabilities"
        isolates = [
            "processes, files and users",
            "network of its own, runtimes do not reach each other",
            "memory, CPU and processes are limited",
            f"no new privileges, {rights}",
        ]
        does_not = ["the machine's kernel"]
        if self._settings.disk_bytes is None:
            does_not.append("disk space")
        else:
            isolates.append("space of /content is limited")
            match self._layers.are_limited():
                case True:
                    isolates.append("space beside /content is limited")
                case False:
                    does_not.append(MEASURED)
                case None:
                    does_not.append("space beside /content is perhaps not limited: no engine or image to ask")
        return IsolationReport("docker", tuple(isolates), tuple(does_not))

    # -- make -------------------------------------------------------------------------------------------------

    async def _create(self, spec: RuntimeSpec, told: str, on_phase: OnPhase) -> None:
        if await self._inspect_any(spec.id) is not None or self._folders.exists(spec.id):
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
            await asyncio.to_thread(self._folders.make, spec, owner)
        except FileExistsError:
            raise _taken(spec.id) from None
        except OSError as error:
            message = f"The runtime's folder can not be made: {error.strerror}."
            raise BackendError("start_failed", message) from error
        devices = device_arguments(spec.devices, self._device_names() if spec.devices else {})
        name = container_name(self._settings.installation, spec.id)
        try:
            with self._folders.content(spec.id) as content:
                arguments = container_arguments(
                    spec, self._settings, told, content, devices, SystemClock().now()
                )
                made = await self._layers.make(arguments, name)
                await self._engine.call(lambda api: api.start(made["Id"]))
        except APIError as error:
            why = str(error.explanation or error)[:300]
            if error.status_code == 409 and "in use" in why:
                await asyncio.to_thread(self._folders.remove, spec.id)
                raise _taken(spec.id) from error
            if (refusal := told_refusal(str(error.explanation or error))) is not None:
                raise BackendError("no_capacity", refusal) from error
            raise BackendError("start_failed", f"The container can not be started: {why}") from error
        except OSError as error:
            message = f"A disk for /content can not be made: {error.strerror}."
            raise BackendError("start_failed", message) from error

    async def _abandon(self, runtime_id: str) -> None:
        """Leave nothing of a start that failed or was given up."""
        await self._remove(runtime_id)
        await self._folders.forget(runtime_id)

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
        self._folders.make_top()
        with (self._folders.top / NETWORK_LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not any(network["Name"] == name for network in api.networks(names=[name])):
                api.create_network(name, **containers.network_arguments(self._settings))

    async def _owner(self) -> int:
        """Return the user of this machine as whom code inside writes."""
        if self._shift is None:
            info = await self._engine.look(lambda api: api.info())
            remapped = any("name=userns" in option for option in info.get("SecurityOptions") or [])
            folder = re.search(r"/(\d+)\.\d+$", str(info.get("DockerRootDir", "")))
            self._shift = int(folder[1]) if remapped and folder else 0
        return self._shift + self._settings.user

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
            await self._folders.forget(spec.id)  # this start's caller is told, nobody later
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
        labels, now = found["Config"]["Labels"], SystemClock().now()
        ended = looks.has_ended(found, now)
        return Place(
            labels[containers.RUNTIME],
            labels[containers.USER],
            labels[containers.FILE],
            looks.address(found),
            ended,
            await self._reason(found) if ended else None,
            looks.ended_seconds_ago(found, now) if ended else None,
        )

    async def _reason(self, found: dict[str, Any]) -> EndReason:
        """Return why a container ended: its supervisor's last words, else what the kernel and the engine know."""
        if said := looks.last_words(await self._engine.log_lines(found["Id"], LAST_LINES)):
            return said
        if looks.was_never_started(found, SystemClock().now()):
            return LOST
        state = found["State"]
        if last := looks.killed_at_the_end_of(found):
            # The engine's own mark says that memory was short once: a cell that was killed for it is no reason of an end.
            short = await asyncio.to_thread(self._engine.ran_out_of_memory, found["Id"], *last)
            if short:
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
        for runtime_id in self._folders:
            if runtime_id not in known:
                await self._put_away(runtime_id)
        await self._engine.remove_unused_volumes(self._own_labels())
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
            return self._folders.age(runtime_id) < containers.START_ALLOWANCE.total_seconds()
        return False

    # -- end --------------------------------------------------------------------------------------------------

    async def stop(self, runtime_id: str, *, reason: EndReason, grace_seconds: float) -> None:
        if GOOD_ID.fullmatch(runtime_id):
            self._folders.ask(runtime_id, reason)
        await super().stop(runtime_id, reason=reason, grace_seconds=grace_seconds)

    async def _until_ended(self, runtime_id: str) -> Place | None:
        async def ended() -> tuple[Place | None] | None:
            place = await self._find(runtime_id)
            return (place,) if place is None or place.ended else None

        found: tuple[Place | None] = await self._engine.until(ended)
        return found[0]

    async def wait_end(self, runtime_id: str) -> EndReason:
        async with self._layers.watched(self._end_full):
            return await self._wait_end(runtime_id)

    async def _end_full(self, runtime_id: str, reason: EndReason) -> None:
        await self.stop(runtime_id, reason=reason, grace_seconds=FULL_GRACE_SECONDS)

    async def _wait_end(self, runtime_id: str) -> EndReason:
        while True:
            try:
                return await super().wait_end(runtime_id)
            except Unreachable:
                await asyncio.sleep(ENGINE_AGAIN_SECONDS)  # it lives on without its engine

    async def _remove(self, runtime_id: str) -> None:
        if not GOOD_ID.fullmatch(runtime_id):
            return
        async with self._folders.locked(runtime_id):
            found = await self._inspect(runtime_id)
            if found is not None:
                place = await self._place(found)
                if not place.ended and (asked := self._folders.asked(runtime_id)) is not None:
                    place = replace(place, reason=asked, ended_seconds_ago=0.0)
                if place.reason is not None:
                    await self._engine.kill(found["Id"])
                    await self._leave(found, place)
                await self._engine.remove(found["Id"])
            await asyncio.to_thread(self._folders.remove, runtime_id)

    async def _leave(self, found: dict[str, Any], place: Place) -> None:
        """Keep why a runtime ended for a control that was not there, and /content when its user wants it."""
        self._note(place.id, self._dated(place) or CRASHED)
        if not await self._was_ready(found):
            return
        await self._leave_executions(found["Id"], place.id)
        most_bytes = self._folders.kept_at_most(place.id)
        if most_bytes is None:
            most_bytes = int(found["Config"]["Labels"].get(containers.SNAPSHOT, 0))
        if most_bytes > 0:
            with contextlib.suppress(OSError):
                await self._folders.set_aside(place.id, most_bytes)

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
        return any(looks.event(line).get("event") == "ready" for line in lines)

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
            raise gone()
        pid, owner = str(found["State"]["Pid"]), str(await self._owner())
        try:
            await apart(bind, pid, verb, source, name, "1" if readonly else "0", owner)
        except Failed as error:
            done = "mounted" if verb == "mount" else "taken away"
            raise BackendError("mount_failed", f"The drive could not be {done}: {error}") from error

    # -- /content ---------------------------------------------------------------------------------------------

    async def set_snapshot(self, runtime_id: str, *, snapshot_bytes: int) -> None:
        await super().set_snapshot(runtime_id, snapshot_bytes=snapshot_bytes)
        self._folders.keep_at_most(runtime_id, snapshot_bytes)

    async def restore(self, runtime_id: str, *, snapshot: Path) -> int:
        await self._call(runtime_id, {"op": "status"})
        found = await self._inspect(runtime_id)
        if found is None or not found["State"]["Pid"]:
            raise gone()
        return await self._folders.restore(runtime_id, found["State"]["Pid"], snapshot, await self._owner())

    async def left_behind(self, runtime_id: str) -> LeftBehind | None:
        return await self._folders.left_behind(runtime_id) if GOOD_ID.fullmatch(runtime_id) else None

    async def forget(self, runtime_id: str) -> None:
        if GOOD_ID.fullmatch(runtime_id):
            await self._folders.forget(runtime_id)


def _taken(runtime_id: str) -> BackendError:
    return BackendError("already_exists", f"A runtime named {runtime_id} exists already.")


def _is_taken(error: object) -> bool:
    return isinstance(error, BackendError) and error.code == "already_exists"
