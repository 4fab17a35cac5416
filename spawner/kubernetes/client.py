"""The API server, asked in a bounded number of threads.

Objects are dicts as the API writes them: making the client package's typed values of a thousand pods costs seconds. A call that got
no answer, 429 or 5xx is repeated; a create whose answer was lost is found by reading, and told from a stranger's object.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3

from spawner.kubernetes import retry

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

log = logging.getLogger(__name__)

THREADS = 16
CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0
PATIENCE_SECONDS = 60.0
SILENCE = "Silence"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

Query = Mapping[str, str]


class ApiFault(Exception):
    """The API server refused, or did not answer (`status` 0). `reason` is the API's own word, such as AlreadyExists."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class AlreadyThere(Exception):
    """What should be made exists; `holder` is what is there."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__("it exists already")
        self.holder = holder


def connect(kubeconfig: Path | None, *, read_seconds: float = READ_SECONDS) -> Cluster:
    """Return the cluster of a kubeconfig file; None: the one this process runs in. Raise ApiFault when there is none."""
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration

    configuration = type.__call__(Configuration)
    load: Callable[..., None] = (
        config.load_incluster_config if kubeconfig is None else config.load_kube_config
    )
    named = {} if kubeconfig is None else {"config_file": str(kubeconfig), "persist_config": False}
    try:
        load(client_configuration=configuration, **named)
    except (config.ConfigException, OSError) as error:
        raise ApiFault(retry.NO_ANSWER, "NoCluster", f"There is no cluster to talk to: {error}") from error
    configuration.retries = False  # ours know what may be repeated
    configuration.connection_pool_maxsize = THREADS + 4  # and the watches
    return Cluster(ApiClient(configuration), read_seconds=read_seconds)


class Cluster:
    """One API server."""

    def __init__(self, api: ApiClient, *, read_seconds: float = READ_SECONDS) -> None:
        self._api = api
        self._read_seconds = read_seconds
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="kubernetes")

    # -- calls, repeated where that helps ---------------------------------------------------------------------

    async def get(self, path: str, query: Query | None = None) -> dict[str, Any] | None:
        """Return an object or a list, None when there is none. Raise ApiFault."""
        try:
            return await self._patiently("GET", path, query)
        except ApiFault as fault:
            if fault.status == 404:
                return None
            raise

    async def create(
        self, path: str, body: dict[str, Any], *, is_mine: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """Make an object and return it. `is_mine` knows an object this very call made. Raise ApiFault, AlreadyThere."""
        for _ in range(3):
            try:
                return await self._patiently("POST", path, body=body)
            except ApiFault as fault:
                if fault.status != 409:
                    raise
            holder = await self.get(f"{path}/{body['metadata']['name']}")
            if holder is None:
                continue  # it went away meanwhile
            if is_mine(holder):
                return holder  # an earlier try was carried out, and only its answer lost
            raise AlreadyThere(holder)
        raise ApiFault(409, "Conflict", "The name is taken and given back again and again.")

    async def patch(self, path: str, body: Any, *, kind: str = MERGE_PATCH) -> dict[str, Any] | None:
        """Change an object and return it, None when there is none. Raise ApiFault."""
        try:
            return await self._patiently("PATCH", path, body=body, kind=kind)
        except ApiFault as fault:
            if fault.status == 404:
                return None
            raise

    async def delete(self, path: str, *, uid: str, grace_seconds: int) -> bool:
        """Ask for the end of exactly this object; return whether it was still there. Raise ApiFault."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": grace_seconds,
            "preconditions": {"uid": uid},
        }
        try:
            await self._patiently("DELETE", path, body=body)
        except ApiFault as fault:
            if fault.status in (404, 409):  # it is gone, or another one has its name
                return False
            raise
        return True

    async def _patiently(
        self, method: str, path: str, query: Query | None = None, body: Any = None, kind: str | None = None
    ) -> dict[str, Any]:
        until, tries = 0.0, 0
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, self.call, method, path, query, body, kind
                )
            except ApiFault as fault:
                tries += 1
                until = until or time.monotonic() + PATIENCE_SECONDS  # waiting for a thread is no fault
                wait = retry.delay(tries, fault.status, fault.retry_after, random.random())
                if wait is None or time.monotonic() + wait > until:
                    raise
                log.info("%s %s: %s; again in %.1f s", method, path, fault, wait)
            await asyncio.sleep(wait)

    # -- one call, in the caller's thread ---------------------------------------------------------------------

    def call(
        self, method: str, path: str, query: Query | None = None, body: Any = None, kind: str | None = None
    ) -> dict[str, Any]:
        """Call once and return the answer. Raise ApiFault."""
        timeout = (CONNECT_SECONDS, self._read_seconds)
        response = self._open(method, path, query, body, kind, timeout)
        try:
            text = response.read()
        except Exception as error:
            raise _no_answer(error) from error
        try:
            answer: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise _fault(response, {}) from error
        if response.status >= 400:
            raise _fault(response, answer)
        return answer

    def follow(
        self, path: str, query: Query, *, silence_seconds: float, opened: Callable[[Any], None]
    ) -> Iterator[dict[str, Any]]:
        """Yield the events of a watch until it ends. Raise ApiFault, also when it is silent for too long.

        `opened` gets the response, whose `shutdown` from another thread ends the watch.
        """
        response = self._open("GET", path, query, None, None, (CONNECT_SECONDS, silence_seconds))
        if response.status >= 400:
            try:
                raise _fault(response, json.loads(response.read()))
            except ValueError as error:
                raise _fault(response, {}) from error
        opened(response.response)
        rest = b""
        try:
            for piece in response.response.stream(1 << 16, decode_content=True):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line:
                        yield json.loads(line)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise ApiFault(retry.NO_ANSWER, SILENCE, "The watch was silent.") from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _no_answer(error) from error
        finally:
            response.response.close()

    def _open(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Any,
        kind: str | None,
        timeout: tuple[float, float],
    ) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = kind or "application/json"
        try:
            request = self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            return self._api.call_api(*request, _request_timeout=timeout)
        except Exception as error:  # urllib3's, the client's, and the system's own
            raise _no_answer(error) from error

    def close(self) -> None:
        """Let go of the threads; a call under way ends by its own time."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def daemon(work: Callable[[], None], name: str) -> threading.Thread:
    """Run `work` in a thread that does not hold up the end of the process."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def _no_answer(error: Exception) -> ApiFault:
    text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ApiFault(retry.NO_ANSWER, "NoAnswer", f"The cluster does not answer ({text}).")


def _fault(response: Any, answer: Any) -> ApiFault:
    answer = answer if isinstance(answer, dict) else {}
    message = str(answer.get("message") or f"The cluster answers with status {response.status}.")
    asked = response.headers.get("Retry-After") or (answer.get("details") or {}).get("retryAfterSeconds")
    try:
        seconds = float(asked) if asked is not None else None
    except (TypeError, ValueError):
        seconds = None
    return ApiFault(int(response.status), str(answer.get("reason", "")), message, seconds)
