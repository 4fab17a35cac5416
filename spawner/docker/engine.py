"""The Docker engine, asked through its own Python package, in threads: no answer it owes one user keeps another waiting.

Ends are heard from its event stream; a stream that breaks wakes everybody who waits, so that they look again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from spawner.docker.pull import PullFailed, PullMeter
from spawner.ports import BackendError

log = logging.getLogger(__name__)

CALLS_AT_ONCE = 32
CALL_SECONDS = 120  # to make, start or remove something on a disk that is busy
LOOK_SECONDS = 20  # to answer a question
COPY_BYTES = 1 << 20
PULL_SECONDS = 3600
CONNECT_AGAIN_SECONDS = 0.5
LOOK_AGAIN_SECONDS = 15.0  # an event may be lost; nobody waits longer for it than this
ENDS = ("die", "destroy", "oom")

T = TypeVar("T")


class Unreachable(BackendError):
    """The engine does not answer. What it runs may well live on."""

    def __init__(self, error: object) -> None:
        cause = getattr(error, "__cause__", None)  # of the first question, which is for the engine's version
        silent = isinstance(error, requests.Timeout) or isinstance(cause, requests.Timeout)
        why = "it is silent" if silent else str(error)
        super().__init__("no_answer", f"The Docker engine does not answer: {why}.")


class _Parts:
    """A stream that comes in parts, to be read as a file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def read(self, _size: int) -> bytes:
        return next(self._parts, b"")


class Engine:
    """One engine; `url` None: DOCKER_HOST, or the local one."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._pool = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="docker")
        self._pulls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="docker-pull")
        self._clients: dict[float, Any] = {}
        self._making = threading.Lock()
        self._waiting = threading.Lock()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._listening = False

    def api(self, seconds: float = CALL_SECONDS) -> Any:
        """Return the low-level client that waits so long for an answer. Raise DockerException."""
        with self._making:
            if seconds not in self._clients:
                self._clients[seconds] = self._connect(seconds)
            return self._clients[seconds]

    def _connect(self, seconds: float) -> Any:
        client = (
            docker.DockerClient(base_url=self._url, timeout=seconds, max_pool_size=CALLS_AT_ONCE)
            if self._url
            else docker.from_env(timeout=seconds, max_pool_size=CALLS_AT_ONCE)
        )
        return client.api

    async def call(self, ask: Callable[[Any], T]) -> T:
        """Return `ask(client)`, made in a thread. Raise Unreachable, or what the engine answered (APIError)."""
        return await self._in(self._pool, lambda: ask(self.api()))

    async def look(self, ask: Callable[[Any], T]) -> T:
        """The same for a question, which takes no time when the engine is well."""
        return await self._in(self._pool, lambda: ask(self.api(LOOK_SECONDS)))

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        except APIError:
            raise
        except (DockerException, requests.RequestException) as error:
            raise Unreachable(error) from error

    # -- containers -------------------------------------------------------------------------------------------

    async def inspect(self, name: str) -> dict[str, Any] | None:
        """Return the container called `name`, None when there is none."""
        try:
            found: dict[str, Any] = await self.look(lambda api: api.inspect_container(name))
            return found
        except NotFound:
            return None
        except APIError as error:
            raise Unreachable(error.explanation or error) from error

    async def find(self, labels: dict[str, str]) -> list[str]:
        """Return the ids of the containers with these labels, ended ones too."""
        wanted = {"label": [f"{name}={value}" for name, value in labels.items()]}
        try:
            return [c["Id"] for c in await self.look(lambda api: api.containers(all=True, filters=wanted))]
        except APIError as error:
            raise Unreachable(error.explanation or error) from error

    async def log_lines(self, identity: str, count: int) -> list[str]:
        """Return the last lines of what a container's first process wrote to its standard output."""
        with contextlib.suppress(APIError):
            text: bytes = await self.look(
                lambda api: api.logs(identity, stdout=True, stderr=False, tail=count)
            )
            return text.decode("utf-8", "replace").splitlines()
        return []

    async def copy_out(
        self, identity: str, path: str, most_bytes: int, take: Callable[[Iterator[bytes]], None]
    ) -> None:
        """Give `take` what is in the regular file `path` of a container, in parts; nothing where there is none.

        Raise ValueError when it is larger than `most_bytes`.
        """

        def copy(api: Any) -> None:
            try:
                stream, status = api.get_archive(identity, path)
            except NotFound:
                return
            try:
                if status["size"] > most_bytes:
                    raise ValueError(f"{path} is larger than {most_bytes} bytes")
                with tarfile.open(fileobj=_Parts(stream), mode="r|") as archive:  # type: ignore[call-overload]
                    found = archive.next()
                    file = archive.extractfile(found) if found is not None and found.isreg() else None
                    if file is not None:
                        take(iter(lambda: file.read(COPY_BYTES), b""))
            finally:
                # The engine keeps the container to itself while it sends; only a stream that was begun lets go of it.
                next(stream, b"")
                stream.close()

        await self.call(copy)

    async def kill(self, identity: str) -> None:
        """Kill a container's processes; one that has ended or is gone is no error."""
        with contextlib.suppress(APIError):
            await self.call(lambda api: api.kill(identity))

    async def remove(self, identity: str) -> None:
        """Kill and remove a container; one that is gone is no error."""
        try:
            await self.call(lambda api: api.remove_container(identity, force=True, v=True))
        except NotFound:
            return
        except APIError as error:
            if error.status_code == 409:  # somebody else is removing it
                while await self.inspect(identity) is not None:  # noqa: ASYNC110  # the engine's own work
                    await asyncio.sleep(0.05)
                return
            raise Unreachable(error.explanation or error) from error

    async def remove_unused_volumes(self, labels: dict[str, str]) -> None:
        """Remove the volumes with these labels that no container has any more.

        Who removes a container may leave its volume; and an engine that was restarted under a container counts its volume as in use
        until the next restart. It is empty then: what it showed went with the container.
        """
        wanted = {"label": [f"{name}={value}" for name, value in labels.items()], "dangling": True}
        try:
            found = await self.look(lambda api: api.volumes(filters=wanted))
        except APIError as error:
            raise Unreachable(error.explanation or error) from error
        for volume in found.get("Volumes") or []:
            with contextlib.suppress(APIError):
                await self.call(partial(_remove_volume, volume["Name"]))

    # -- images -----------------------------------------------------------------------------------------------

    async def has_image(self, image: str) -> bool:
        try:
            await self.look(lambda api: api.inspect_image(image))
        except ImageNotFound:
            return False
        except APIError as error:
            raise Unreachable(error.explanation or error) from error
        return True

    async def pull(self, image: str, tell: Callable[[str], None]) -> None:
        """Bring an image here, telling how far it is. Raise BackendError `image_unavailable`."""
        loop = asyncio.get_running_loop()

        def work() -> None:
            meter = PullMeter(image)
            for message in self._connect(PULL_SECONDS).pull(image, stream=True, decode=True):
                if (sentence := meter.hear(message)) is not None:
                    loop.call_soon_threadsafe(tell, sentence)

        try:
            await self._in(self._pulls, work)
        except (APIError, PullFailed) as error:
            why = str(error.explanation if isinstance(error, APIError) else error)
            raise BackendError(
                "image_unavailable", f"The image {image} can not be had: {why[:300]}"
            ) from error

    # -- events -----------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Return what `condition()` (a coroutine function) gives once that is true; it is asked again after every event.

        While the engine does not answer, wait for it.
        """
        self._listen()
        woken = asyncio.Event()
        waiter = (asyncio.get_running_loop(), woken)
        with self._waiting:
            self._waiters.add(waiter)
        try:
            while True:
                woken.clear()
                with contextlib.suppress(Unreachable):
                    if found := await condition():
                        return found
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                        await woken.wait()
        finally:
            with self._waiting:
                self._waiters.discard(waiter)

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            threading.Thread(target=self._follow_events, daemon=True, name="docker-events").start()

    def _follow_events(self) -> None:
        while True:
            try:
                # No time limit: an engine on which nothing ends is silent for hours.
                client = self._connect(CALL_SECONDS)
                client.timeout = None
                stream = client.events(decode=True, filters={"type": "container", "event": list(ENDS)})
                self._wake()  # what happened before we listened
                for _ in stream:
                    self._wake()
            except (DockerException, requests.RequestException, OSError, ValueError) as error:
                log.debug("the engine's events: %s", error)
            self._wake()
            time.sleep(CONNECT_AGAIN_SECONDS)

    def _wake(self) -> None:
        with self._waiting:
            waiters = tuple(self._waiters)
        for loop, woken in waiters:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(woken.set)

    def ran_out_of_memory(self, identity: str, since: float, until: float) -> bool:
        """Return whether the kernel killed a process of the container for want of memory; the engine remembers lately only."""
        filters = {"container": identity, "event": "oom"}
        events = self.api().events(since=int(since), until=int(until) + 1, decode=True, filters=filters)
        with contextlib.suppress(DockerException, requests.RequestException):
            return any(True for _ in events)
        return False


def _remove_volume(name: str, api: Any) -> None:
    api.remove_volume(name)
