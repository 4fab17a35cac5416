"""Base class of every JSON endpoint of documents and control."""

from __future__ import annotations

import logging
from typing import Any

from tornado import web

from hub.web.body import MAX_BODY_BYTES, dump_json, int_argument, parse_json_object
from hub.web.errors import ApiError, bad_request
from hub.web.identity import HubIdentity, User

log = logging.getLogger(__name__)

API_HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class ApiHandler(web.RequestHandler):
    """Signed-in JSON endpoint: `self.user` is set, `json_body()` is strict, ApiError becomes the error body."""

    user: User
    max_body_bytes = MAX_BODY_BYTES

    @classmethod
    def body_limit(cls, settings: dict[str, Any]) -> int:
        """Return how large a body of this address may be (bytes). `settings` are the application's."""
        return cls.max_body_bytes

    @property
    def identity(self) -> HubIdentity:
        identity: HubIdentity = self.settings["identity"]
        return identity

    def set_default_headers(self) -> None:
        for name, value in API_HEADERS.items():
            self.set_header(name, value)

    async def prepare(self) -> None:
        user = await self.identity.user(self)
        if user is None:
            raise ApiError(
                401,
                "not_signed_in",
                "Sign in, or send 'Authorization: Bearer <API token>'.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        self.user = user

    def check_xsrf_cookie(self) -> None:
        """HubIdentity refuses cookies from another site; nothing is left to check here."""

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise bad_request("bad_path", "URL path is not valid UTF-8.") from None

    def json_body(self) -> dict[str, Any]:
        """Return the request's JSON object or raise ApiError."""
        return parse_json_object(
            self.request.body,
            self.request.headers.get("Content-Type", ""),
            max_bytes=self.body_limit(self.settings),
        )

    def page(self, *, default_limit: int = 100, max_limit: int = 200) -> tuple[int, int]:
        """Return (`offset`, `limit`) of the query string, or raise 400 `bad_page`."""
        limit = int_argument(
            self.get_query_argument("limit", str(default_limit)), "limit", 1, max_limit, "bad_page"
        )
        offset = int_argument(self.get_query_argument("offset", "0"), "offset", 0, 10**9, "bad_page")
        return offset, limit

    def reply(self, value: Any, status: int = 200) -> None:
        """Finish with strict JSON."""
        self.set_status(status)
        self.finish(dump_json(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        self.reply_error(error if isinstance(error, ApiError) else http_error(status_code, error))

    def reply_error(self, error: ApiError) -> None:
        for name, value in error.headers.items():
            self.set_header(name, value)
        self.set_header("Content-Type", "application/json")
        self.set_status(error.status)
        self.finish(dump_json(error.body()))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, ApiError):
            if value.status >= 500:
                log.warning("%s %s: %s", self.request.method, self.request.path[:200], value.message)
            return
        if isinstance(value, web.HTTPError):
            return
        log.error("%s %s failed", self.request.method, self.request.path[:200], exc_info=(typ, value, tb))

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        super().send_error(error.status if isinstance(error, ApiError) else status_code, **kwargs)


class NotFoundHandler(ApiHandler):
    """Every path nobody serves."""

    async def prepare(self) -> None:
        raise ApiError(404, "not_found", "No such address.")


def methods_of(handler: type[web.RequestHandler]) -> list[str]:
    """Return the methods a handler answers to; none for one that answers to all in `prepare`."""
    refuses = web.RequestHandler._unimplemented_method
    return [m for m in handler.SUPPORTED_METHODS if getattr(handler, m.lower()) is not refuses]


def http_error(status: int, error: BaseException | None) -> ApiError:
    """Return the error body for an exception that is not an ApiError; internals are never shown."""
    known = {
        400: ("bad_request", "The request could not be understood."),
        403: ("denied", "You may not do this."),
        404: ("not_found", "No such address."),
        405: ("method_not_allowed", "This address does not support that method."),
        413: ("too_large", "The request body is too large."),
    }
    code, message = known.get(
        status, ("internal_error", "Something went wrong on our side. It has been logged.")
    )
    if isinstance(error, web.MissingArgumentError):
        return ApiError(400, "missing_argument", f"{error.arg_name} is required.", field=error.arg_name)
    return ApiError(status if status in known else 500, code, message)
