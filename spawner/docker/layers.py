"""What containers write beside /content: their own layers, in the engine's storage, which all containers share.

Where that storage has quotas, the engine limits a layer and code inside gets "no space left". Elsewhere control measures, and ends
a runtime that took more than its share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from docker.errors import APIError, ImageNotFound

from spawner.docker import containers
from spawner.docker.containers import ContainerSettings
from spawner.docker.engine import LOOK_SECONDS, Engine
from spawner.model import EndReason
from spawner.ports import BackendError

log = logging.getLogger(__name__)

WITH_QUOTAS = frozenset({"overlay2", "btrfs", "zfs", "devicemapper"})
WITH_IMAGE = frozenset({"btrfs", "devicemapper"})  # their limits count the image too
WATCH_SECONDS = 2.0
MEASURE_SECONDS = 60.0  # at the latest; measuring walks through all that was written
BLIND_SECONDS = 10.0  # where it is not seen how much room the engine has
DISK_FULL = "disk_full"

TellFull = Callable[[str, EndReason], Awaitable[None]]


def may_have_quotas(info: Mapping[str, Any]) -> bool:
    """Return whether an engine that says this of itself can have limits of layers; whether it has, a try must show."""
    status = dict(info.get("DriverStatus") or [])
    if "snapshotter" in str(status.get("driver-type", "")):
        return False  # it takes such a limit without a word, and does not hold it
    if info.get("Driver") == "overlay2":
        return status.get("Backing Filesystem") == "xfs"
    return info.get("Driver") in WITH_QUOTAS


def is_refusal(error: APIError) -> bool:
    """Return whether the engine refused a limit of a layer."""
    why = str(error.explanation or error).lower()
    return any(word in why for word in ("storage-opt", "storage opt", "pquota"))


def full(most_bytes: int) -> EndReason:
    most = f"{most_bytes / 2**30:.1f}".removesuffix(".0")
    return EndReason(
        DISK_FULL,
        f"The runtime wrote more than {most} GiB beside /content and its Drive, which is all it has.",
    )


class Layers:
    """The layers of one installation. `limited` is known after the first start, or when somebody asks."""

    def __init__(self, engine: Engine, settings: ContainerSettings) -> None:
        self._engine, self._settings = engine, settings
        self._limited: bool | None = None if settings.disk_bytes is not None else False
        self._counts_image: bool | None = None
        self._waiting, self._measuring = 0, None  # type: int, asyncio.Task[None] | None

    def are_limited(self) -> bool | None:
        """Return whether the engine limits layers, by trying; None when there is no image to try with, or no engine."""
        if self._limited is None:
            with contextlib.suppress(Exception):
                self._limited = self._probe(self._engine.api(LOOK_SECONDS))
        return self._limited

    def _probe(self, api: Any) -> bool | None:
        info = api.info()
        if not may_have_quotas(info):
            return False
        try:
            image = int(api.inspect_image(self._settings.image)["Size"])
        except ImageNotFound:
            return None
        size = (self._settings.disk_bytes or 0) + (image if info["Driver"] in WITH_IMAGE else 0)
        probe = {"Image": self._settings.image, "HostConfig": {"StorageOpt": {"size": str(size)}}}
        try:
            made = api.create_container_from_config(probe)
        except APIError as error:
            if is_refusal(error):
                return False
            raise
        api.remove_container(made["Id"], v=True)
        return True

    async def make(self, arguments: dict[str, Any], name: str) -> dict[str, Any]:
        """Make a container with its layer limited where the engine can do that. Raise APIError, Unreachable."""
        if self._limited is not False and self._counts_image is None:
            info = await self._engine.look(lambda api: api.info())
            self._counts_image = info.get("Driver") in WITH_IMAGE
            if not may_have_quotas(info):
                self._limited = False
        if self._limited is not False:
            option = {"StorageOpt": {"size": str(await self._size())}}
            limited = {**arguments, "HostConfig": {**arguments["HostConfig"], **option}}
            try:
                made = await self._create(limited, name)
                self._limited = True
                return made
            except APIError as error:
                if self._limited or not is_refusal(error):
                    raise
                self._limited = False
                log.warning("the engine can not limit layers: %s", error.explanation)
        return await self._create(arguments, name)

    async def _size(self) -> int:
        """Return what the engine is to limit a layer to."""
        most = self._settings.disk_bytes or 0
        if not self._counts_image:
            return most
        image = await self._engine.look(lambda api: api.inspect_image(self._settings.image))
        return most + int(image["Size"])

    async def _create(self, arguments: dict[str, Any], name: str) -> dict[str, Any]:
        made: dict[str, Any] = await self._engine.call(
            lambda api: api.create_container_from_config(arguments, name)
        )
        return made

    # -- measure ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watched(self, tell: TellFull) -> AsyncIterator[None]:
        """While inside, tell of every runtime whose layer the engine does not limit and that has more than its share."""
        if self._settings.disk_bytes is None or self._limited:
            yield
            return
        self._waiting += 1
        if self._measuring is None:
            self._measuring = asyncio.create_task(self._measure(self._settings.disk_bytes, tell))
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting and self._measuring is not None:
                self._measuring.cancel()
                self._measuring = None

    async def _measure(self, most: int, tell: TellFull) -> None:
        if await asyncio.to_thread(self.are_limited):
            return
        now, free_then, at = asyncio.get_running_loop().time, 0, -MEASURE_SECONDS
        while True:
            with contextlib.suppress(BackendError, APIError, OSError):
                free = await self._free()
                taken = free is not None and free_then - free > most // 16
                if taken or now() - at >= (MEASURE_SECONDS if free is not None else BLIND_SECONDS):
                    free_then, at = free or 0, now()
                    for runtime_id in await self._too_large(most):
                        await tell(runtime_id, full(most))
            await asyncio.sleep(WATCH_SECONDS)

    async def _free(self) -> int | None:
        """Return how much room the engine's storage has, None when it is not seen from here."""
        info = await self._engine.look(lambda api: api.info())
        try:
            status = await asyncio.to_thread(os.statvfs, info["DockerRootDir"])
        except OSError:
            return None
        return status.f_bavail * status.f_frsize

    async def _too_large(self, most: int) -> list[str]:
        labels = containers.own_labels(self._settings.installation)
        wanted = {"label": [f"{name}={value}" for name, value in labels.items()], "status": ["running"]}
        found = await self._engine.call(lambda api: api.containers(size=True, filters=wanted))
        large = [c for c in found if int(c.get("SizeRw") or 0) > most]
        looked = [await self._engine.inspect(c["Id"]) for c in large]
        return [
            one["Config"]["Labels"][containers.RUNTIME]
            for one in looked
            if one is not None and not one["HostConfig"].get("StorageOpt")
        ]
