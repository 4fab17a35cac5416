"""A mirror of some of the cluster's objects: listed once, then kept true by a watch that never dies silently.

Whatever ends a watch (an error, an old version, silence) leads to another list or watch, for ever; `age` says how long ago the
server was heard. Who needs to know what is there now calls `look`: all who do so at once share one list. A list or an event that is
older than what is known already, such as a cache gives that lags behind, changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from spawner.kubernetes import retry
from spawner.kubernetes.client import SILENCE, ApiFault, Cluster, daemon

log = logging.getLogger(__name__)

SYNC_SECONDS = 10.0  # how long who looks waits for the first list
LOOK_SECONDS = 2.0  # how often the API server is asked where a mirror is not to be relied on
SILENCE_SECONDS = 75.0  # the server sends a bookmark about once a minute
STALE_SECONDS = 120.0
WATCH_SECONDS = 240
REMEMBERED = 2000
COMPLAIN_SECONDS = 60.0
SHORTEST_SECONDS = 0.5

Key = Callable[[dict[str, Any]], str]


def by_name(found: dict[str, Any]) -> str:
    return str(found["metadata"]["name"])


def by_involved(event: dict[str, Any]) -> str:
    """Return the id of the object an event is about."""
    return str(event.get("involvedObject", {}).get("uid", ""))


class Mirror:
    """The objects at one path. Belongs to the event loop it was first used in; a thread of its own talks to the server."""

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        key: Key,
        *,
        selector: dict[str, str] | None = None,
        silence_seconds: float = SILENCE_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._cluster, self._path, self._key = cluster, path, key
        self._selector = selector or {}
        self._silence_seconds, self._stale_seconds = silence_seconds, stale_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._objects: dict[str, dict[str, dict[str, Any]]] = {}  # key → uid → object
        self._gone: OrderedDict[str, dict[str, Any]] = OrderedDict()  # key → what was seen last
        self._dead: OrderedDict[str, None] = OrderedDict()  # ids of what is known to be gone
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._synced: asyncio.Event | None = None
        self._heard_at = 0.0
        self._version: str | None = None  # where to go on; None: list again
        self._closed = False
        self._response: Any = None
        self._looking: asyncio.Task[None] | None = None

    # -- for those who look -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow; once is enough."""
        if self._loop is None:
            self._loop, self._synced = asyncio.get_running_loop(), asyncio.Event()
            daemon(self._follow_for_ever, f"watch {self._path}")

    async def synced(self, seconds: float | None = None) -> bool:
        """Return whether the first list has arrived, waiting for it that long."""
        self.start()
        assert self._synced is not None
        try:
            async with asyncio.timeout(SYNC_SECONDS if seconds is None else seconds):
                await self._synced.wait()
        except TimeoutError:
            return False
        return True

    async def renew(self) -> None:
        """See to it that what is here can be relied on, where that is possible. Raise ApiFault."""
        await self.synced()
        if not self.fresh:
            await self.look(LOOK_SECONDS)

    async def look(self, seconds: float) -> None:
        """See to it that the server was heard at most so long ago. Raise ApiFault."""
        self.start()
        if self.age <= seconds:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._looking)  # one of those who wait may give up

    async def _look(self) -> None:
        asked_at = time.monotonic()
        answer = await self._cluster.get(self._path, self._selector)
        if answer is None:
            raise ApiFault(404, "NotFound", f"The cluster has no {self._path}.")
        self._replace([_slim(item) for item in answer.get("items") or ()], _version(answer))
        self._heard_at = max(self._heard_at, asked_at)

    @property
    def age(self) -> float:
        """How long ago the server was heard, in seconds."""
        return time.monotonic() - self._heard_at

    @property
    def fresh(self) -> bool:
        """Whether what is here can be relied on."""
        return self._synced is not None and self._synced.is_set() and self.age < self._stale_seconds

    def of(self, key: str) -> list[dict[str, Any]]:
        """Return the objects with a key."""
        return list(self._objects.get(key, {}).values())

    def all(self) -> list[dict[str, Any]]:
        return [found for of_key in self._objects.values() for found in of_key.values()]

    def last_seen(self, key: str) -> dict[str, Any] | None:
        """Return an object as it was when it was deleted."""
        return self._gone.get(key)

    def note(self, made: dict[str, Any]) -> None:
        """Take over an object that was just made or read; whatever else had its key is gone."""
        key, uid = self._key(made), made["metadata"]["uid"]
        if any(_version(known) >= _version(made) for known in self.of(key)):
            return  # it was read before what is here
        for other in list(self._objects.get(key, {})):
            if other != uid:
                self.forget(key, other)
        self._take("MODIFIED", _slim(made))

    def forget(self, key: str, uid: str) -> None:
        """Believe that an object is gone although the watch has not told yet."""
        found = self._objects.get(key, {}).get(uid)
        self._bury(uid)
        if found is not None:
            self._take("DELETED", found)

    @contextlib.contextmanager
    def listen(self, key: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever something with the key changes; who waits clears it."""
        event = asyncio.Event()
        self._listeners.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            self._listeners[key].discard(event)
            if not self._listeners[key]:
                del self._listeners[key]

    def close(self) -> None:
        """Stop to follow."""
        self._closed = True
        self._shut()

    def _shut(self) -> None:
        response = self._response
        if response is not None:
            with contextlib.suppress(Exception):
                response.shutdown()

    # -- in the event loop ------------------------------------------------------------------------------------

    def _replace(self, objects: list[dict[str, Any]], version: int) -> None:
        """Take over a list: what is not in it is gone, unless it is newer than the list."""
        fresh: dict[str, dict[str, dict[str, Any]]] = {}
        changed: set[str] = set()
        for found in objects:
            if found["metadata"]["uid"] not in self._dead:
                fresh.setdefault(self._key(found), {})[found["metadata"]["uid"]] = found
        for key, before in self._objects.items():
            for uid, known in before.items():
                listed = fresh.get(key, {}).get(uid)
                if _version(known) > (version if listed is None else _version(listed)):
                    fresh.setdefault(key, {})[uid] = known
                elif listed is None:
                    self._remember(key, known)
                    changed.add(key)
        for key, found_by_uid in fresh.items():
            if found_by_uid != self._objects.get(key):
                changed.add(key)
        self._objects = fresh
        assert self._synced is not None
        self._synced.set()
        for key in changed:
            self._tell(key)

    def _take(self, kind: str, found: dict[str, Any]) -> None:
        key, uid = self._key(found), found["metadata"]["uid"]
        if kind == "DELETED":
            of_key = self._objects.get(key, {})
            of_key.pop(uid, None)
            if not of_key:
                self._objects.pop(key, None)
            self._bury(uid)
            self._remember(key, found)
        elif uid not in self._dead:
            known = self._objects.get(key, {}).get(uid)
            if known is not None and _version(known) > _version(found):
                return
            self._objects.setdefault(key, {})[uid] = found
        self._tell(key)

    def _bury(self, uid: str) -> None:
        self._dead[uid] = None
        _bound(self._dead)

    def _remember(self, key: str, found: dict[str, Any]) -> None:
        self._gone[key] = found
        self._gone.move_to_end(key)
        _bound(self._gone)

    def _tell(self, key: str) -> None:
        for event in self._listeners.get(key, ()):
            event.set()

    # -- in the thread ----------------------------------------------------------------------------------------

    def _post(self, work: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(work, *arguments)

    def _follow_for_ever(self) -> None:
        tries, complained_at = 0, -COMPLAIN_SECONDS
        while not self._closed:
            try:
                if self._version is None:
                    self._list()
                else:
                    self._watch(self._version)
                tries = 0
                continue
            except ApiFault as fault:
                if fault.reason == SILENCE:
                    self._version = None  # nothing happened, or nothing is told: a list shows which
                    continue
                # One version too old, or a refusal that may be for now only: ask from the beginning.
                # And where watches fail for long, lists have to do.
                if fault.status not in retry.WORTH_ANOTHER or self.age > self._silence_seconds:
                    self._version = None
                trouble: Exception = fault
                asked = fault.retry_after
            except Exception as error:
                if self._loop is None or self._loop.is_closed():
                    return  # nobody is left to tell
                log.exception("watch of %s failed; it begins anew", self._path)
                self._version, trouble, asked = None, error, None
            if self._closed:
                return
            tries += 1
            if time.monotonic() - complained_at > COMPLAIN_SECONDS:
                complained_at = time.monotonic()
                log.warning("watch of %s: %s; it is tried again until it works", self._path, trouble)
            wait = retry.delay(tries, retry.NO_ANSWER, asked, random.random())
            time.sleep(wait if wait is not None else retry.LONGEST_SECONDS)

    def _list(self) -> None:
        answer = self._cluster.call("GET", self._path, self._selector)
        items = [_slim(item) for item in answer.get("items") or ()]
        self._heard_at = time.monotonic()
        self._post(self._replace, items, _version(answer))
        self._version = str(answer["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> None:
        """Follow from a version until the watch ends. Raise ApiFault."""
        query = {
            **self._selector,
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        began = time.monotonic()
        for event in self._cluster.follow(
            self._path, query, silence_seconds=self._silence_seconds, opened=self._opened
        ):
            kind, found = event.get("type"), event.get("object") or {}
            if kind == "ERROR":
                raise ApiFault(
                    int(found.get("code") or 0), str(found.get("reason")), str(found.get("message"))
                )
            self._heard_at = time.monotonic()
            if kind in ("ADDED", "MODIFIED", "DELETED"):
                self._post(self._take, kind, _slim(found))
            self._version = str(found["metadata"]["resourceVersion"])
        if time.monotonic() - began < SHORTEST_SECONDS and not self._closed:
            time.sleep(SHORTEST_SECONDS)  # a server that ends every watch at once is not asked all the time

    def _opened(self, response: Any) -> None:
        self._response = response
        if self._closed:  # while the server was being asked
            self._shut()


def _version(found: dict[str, Any]) -> int:
    version = str(found["metadata"]["resourceVersion"])
    return int(version) if version.isdigit() else 0


def _bound(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > REMEMBERED:
        remembered.popitem(last=False)


def _slim(found: dict[str, Any]) -> dict[str, Any]:
    """Return an object without what is large and nobody here reads."""
    slim = copy.copy(found)
    slim["metadata"] = {k: v for k, v in found["metadata"].items() if k != "managedFields"}
    return slim
