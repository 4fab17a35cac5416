"""The door of both services: what the head of a request already decides is answered before its body arrives.

Refused here are a path that is no clean text (400), a method the address does not have (405), and a body larger than the
address takes (413), announced or not. The rest of a refused body is read for a while and dropped: a connection that is closed
while the other side still writes would swallow the answer, and a proxy that keeps connections would send the next request into it.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Awaitable
from typing import Any
from urllib.parse import unquote_to_bytes

from tornado import httputil, web

from hub.web.body import MAX_BODY_BYTES, dump_json
from hub.web.errors import ApiError, bad_request
from hub.web.handlers import API_HEADERS, ApiHandler, methods_of

MAX_URI_BYTES = 8192
DRAIN_SECONDS = 2.0  # how long the body of a refused request is read and dropped
DRAIN_BYTES = 64 << 20
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


class GatedApplication(web.Application):
    """A tornado application behind the gate. Addresses below `strict` are for programs: they must be clean text."""

    strict = "/services/"

    def get_handler_delegate(  # type: ignore[override]  # tornado names its own private class
        self,
        request: httputil.HTTPServerRequest,
        target_class: type[web.RequestHandler],
        *args: Any,
        **kwargs: Any,
    ) -> httputil.HTTPMessageDelegate:
        error = self._refused(request, target_class)
        if error is not None:
            return Refusal(request, error)
        inner = super().get_handler_delegate(request, target_class, *args, **kwargs)
        if "Content-Length" in request.headers:
            return inner
        return Bounded(request, inner, self._limit(target_class))

    def _limit(self, target: type[web.RequestHandler]) -> int:
        return target.body_limit(self.settings) if issubclass(target, ApiHandler) else MAX_BODY_BYTES

    def _refused(
        self, request: httputil.HTTPServerRequest, target: type[web.RequestHandler]
    ) -> ApiError | None:
        if (request.path or "").startswith(self.strict):
            error = bad_url(request.uri or "")
            if error is not None:
                return error
        methods = methods_of(target)
        if methods and request.method not in methods:
            return not_allowed(methods)
        length = request.headers.get("Content-Length", "0")
        limit = self._limit(target)
        if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limit):
            return too_large(limit)
        return None


def bad_url(uri: str) -> ApiError | None:
    """Return why `uri` is refused: 414 `uri_too_long`, 400 `bad_path`; None when it is not."""
    if len(uri) > MAX_URI_BYTES:
        return ApiError(414, "uri_too_long", f"The URL is longer than {MAX_URI_BYTES} bytes.")
    try:
        path = unquote_to_bytes(uri.partition("?")[0]).decode("utf-8")
    except UnicodeDecodeError:
        return bad_request("bad_path", "URL path is not valid UTF-8.")
    if CONTROL_CHARACTER.search(path):
        return bad_request("bad_path", "The URL path contains a control character.")
    return None


def not_allowed(methods: list[str]) -> ApiError:
    """Return a 405 that names the methods there are."""
    message = "This address does not support that method."
    return ApiError(405, "method_not_allowed", message, headers={"Allow": ", ".join(methods)})


def too_large(limit: int) -> ApiError:
    """Return a 413. `limit` is in bytes."""
    shown = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
    return ApiError(413, "too_large", f"Request body is larger than {shown}.")


class Refusal(httputil.HTTPMessageDelegate):
    """Answers a request with an error at once, then drops its body."""

    def __init__(self, request: httputil.HTTPServerRequest, error: ApiError) -> None:
        self._request = request
        self._error = error

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        connection: Any = self._request.connection
        connection.set_max_body_size(DRAIN_BYTES if "Content-Length" not in headers else 1 << 62)
        connection.set_body_timeout(DRAIN_SECONDS)
        self.answer()
        return None

    def answer(self) -> None:
        """Send the answer; the connection ends with the request."""
        connection: Any = self._request.connection
        body = dump_json(self._error.body())
        lines = {
            **API_HEADERS,
            **self._error.headers,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        reason = http.client.responses.get(self._error.status, "Refused")
        start = httputil.ResponseStartLine("", self._error.status, reason)
        connection.write_headers(
            start, httputil.HTTPHeaders(lines), b"" if self._request.method == "HEAD" else body
        )

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None

    def finish(self) -> None:
        connection: Any = self._request.connection
        connection.finish()


class Bounded(httputil.HTTPMessageDelegate):
    """Passes a body of unknown length on until it is larger than `limit` bytes; then the request is refused."""

    def __init__(
        self, request: httputil.HTTPServerRequest, inner: httputil.HTTPMessageDelegate, limit: int
    ) -> None:
        self._request, self._inner, self._limit = request, inner, limit
        self._size = 0
        self._refusal: Refusal | None = None

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        connection: Any = self._request.connection
        connection.set_max_body_size(self._limit + DRAIN_BYTES)
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self._size += len(chunk)
        if self._refusal is None and self._size > self._limit:
            self._inner.on_connection_close()  # what was begun with the first bytes is given up
            self._refusal = Refusal(self._request, too_large(self._limit))
            self._refusal.answer()
        return None if self._refusal is not None else self._inner.data_received(chunk)

    def finish(self) -> None:
        (self._refusal or self._inner).finish()

    def on_connection_close(self) -> None:
        if self._refusal is None:
            self._inner.on_connection_close()
