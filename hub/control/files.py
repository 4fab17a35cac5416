"""Ask documents whether a caller may see a file, with the caller's own credentials."""

from __future__ import annotations

from typing import Any

import aiohttp
from tornado.httputil import HTTPServerRequest

from hub.web.errors import ApiError, bad_request, not_found, printable

FORWARDED = ("Authorization", "Cookie")


class Files:
    """The documents service, as control sees it."""

    def __init__(self, documents_url: str) -> None:
        self._url = documents_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, file_id: str, request: HTTPServerRequest) -> dict[str, Any]:
        """Return the file's model. Raise ApiError 404 when the caller may not see it, 503 when documents is away."""
        if (
            not file_id
            or len(file_id) > 128
            or not all(c.isascii() and (c.isalnum() or c in "-_") for c in file_id)
        ):
            raise not_found()
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        try:
            async with self._session.get(
                f"{self._url}/services/documents/api/v1/files/{file_id}", headers=headers
            ) as reply:
                if reply.status == 200:
                    model: dict[str, Any] = await reply.json()
                    if model["type"] != "notebook":
                        raise bad_request(
                            "not_a_notebook",
                            f"'{printable(model['name'])}' is not a notebook.",
                            field="file_id",
                        )
                    return model
                if reply.status in (400, 401, 403, 404):
                    raise not_found()
        except (aiohttp.ClientError, TimeoutError):
            pass
        raise ApiError(
            503,
            "documents_unavailable",
            "The Drive is not answering. Try again in a moment.",
            headers={"Retry-After": "5"},
        )
