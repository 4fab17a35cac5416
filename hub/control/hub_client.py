"""What control asks of the hub: start a user's named server, follow it, remove it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp

PAGE = 100


class HubDown(Exception):
    """The hub does not answer, or lost what it was doing."""


class HubRefused(Exception):
    """The hub said no; the text is its message."""


class HubClient:
    """The hub's REST API, as the service `control`."""

    def __init__(self, api_url: str, token: str) -> None:
        self._url = api_url.rstrip("/")
        self._headers = {"Authorization": f"token {token}"}
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        seconds: float = 30.0,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        try:
            timeout = aiohttp.ClientTimeout(total=seconds)
            async with self._client().request(
                method, self._url + path, json=body, timeout=timeout, headers=headers
            ) as reply:
                text = await reply.text()
                try:
                    return reply.status, json.loads(text) if text else None
                except ValueError:
                    return reply.status, None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HubDown(str(error)) from None

    async def answers(self) -> bool:
        """Return whether the hub is there."""
        try:
            return (await self._call("GET", "/", seconds=3))[0] == 200
        except HubDown:
            return False

    async def wait_until_it_answers(self, seconds: float) -> bool:
        """Return whether the hub came back within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not await self.answers():  # noqa: ASYNC110  # another process's port: nothing to await
                    await asyncio.sleep(0.2)
        except TimeoutError:
            return False
        return True

    async def start(self, user: str, server: str, options: dict[str, Any]) -> bool:
        """Ask for the server; return whether it is ready already. Raise HubDown, HubRefused."""
        status, reply = await self._call("POST", _path(user, server), options, seconds=60)
        if status in (201, 202):
            return status == 201
        message = str(reply.get("message", "")) if isinstance(reply, dict) else ""
        if status == 400 and "already running" in message:
            return True
        if status == 400 and "pending" in message:
            return False
        if status in (502, 503, 504):
            raise HubDown(f"status {status}")
        raise HubRefused(message or f"status {status}")

    async def follow(self, user: str, server: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the hub's progress events until ready or failed. Raise HubDown, also when the hub knows of no start."""
        try:
            timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
            url = self._url + _path(user, server) + "/progress"
            async with self._client().get(url, timeout=timeout) as reply:
                if reply.status != 200:
                    raise HubDown(f"no progress: status {reply.status}")
                async for line in reply.content:
                    if line.startswith(b"data:"):
                        yield json.loads(line[5:])
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise HubDown(str(error)) from None

    async def server(self, user: str, server: str) -> dict[str, Any] | None:
        """Return the hub's model of the server, None when it has none. Raise HubDown."""
        status, reply = await self._call("GET", _path(user, server))
        if status == 404:
            return None
        if status != 200 or not isinstance(reply, dict):
            raise HubDown(f"status {status}")
        return reply

    async def servers(self) -> list[tuple[str, str]]:
        """Return (user, server) of every named server the hub knows, stopped ones too. Raise HubDown."""
        found: list[tuple[str, str]] = []
        offset = 0
        while True:
            path = f"/users?include_stopped_servers=1&offset={offset}&limit={PAGE}"
            accept = {"Accept": "application/jupyterhub-pagination+json"}
            status, reply = await self._call("GET", path, headers=accept)
            if status != 200 or not isinstance(reply, dict):
                raise HubDown(f"status {status}")
            for user in reply["items"]:
                found += [(user["name"], name) for name in user.get("servers") or {} if name]
            if reply["_pagination"]["next"] is None:
                return found
            offset = reply["_pagination"]["next"]["offset"]

    async def remove(self, user: str, server: str) -> None:
        """Have the hub forget the server, also when it is starting it now. Raise HubDown."""
        status, _ = await self._call("DELETE", _path(user, server), {"remove": True})
        if status not in (202, 204, 404):
            raise HubDown(f"status {status}")


def _path(user: str, server: str) -> str:
    return f"/users/{quote(user, safe='')}/servers/{quote(server, safe='')}"
