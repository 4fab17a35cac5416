"""Who may use a runtime's server: whoever shows a ticket for it. No cookies, no login page, no second road."""

from __future__ import annotations

import json
import re
import time
from typing import NoReturn

from jupyter_server.auth import Authorizer, IdentityProvider, User
from jupyter_server.base.handlers import JupyterHandler
from tornado import web

from minicolab_runtime.settings import RuntimeSettings
from minicolab_runtime.ticket import TicketError, verify

_AUTHORIZATION = re.compile(r"(?:token|bearer)\s+(\S+)\s*", re.IGNORECASE)
_ALLOWED_HEADERS = (
    "Accept, Authorization, Content-Type, If-Match, If-None-Match, Range, X-XSRFToken, X-Requested-With"
)


def cors_headers(allow_origin: str) -> dict[str, str]:
    """Return the headers by which a browser lets pages of `allow_origin`, and no others, read our answers."""
    if not allow_origin:
        return {}
    return {
        "Access-Control-Allow-Origin": allow_origin,
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        "Access-Control-Expose-Headers": "Content-Disposition, Content-Length, Content-Range, ETag, Location",
        "Access-Control-Max-Age": "600",
        "Vary": "Origin",
    }


class TicketIdentityProvider(IdentityProvider):
    """Lets in who carries a valid ticket, in `Authorization: Bearer|token …` or `?token=…`."""

    settings: RuntimeSettings  # set by the server before the first request

    async def get_user(self, handler: web.RequestHandler) -> User | None:
        """Return the ticket's user; answer 401 or 403 as JSON, or a preflight, here and end the request otherwise."""
        if handler.request.method == "OPTIONS":
            handler.set_status(204)
            for name, value in cors_headers(self.settings.allow_origin).items():
                handler.set_header(name, value)
            raise web.Finish
        token = self.get_token(handler)
        if token is None:
            self._refuse(
                handler,
                TicketError(
                    401, "no_ticket", "Send a ticket for this runtime: 'Authorization: Bearer <ticket>'."
                ),
            )
        try:
            ticket = verify(
                token, self.settings.ticket_key, runtime_id=self.settings.runtime_id, now=time.time()
            )
            if ticket.user != self.settings.user:
                raise TicketError(403, "wrong_user", "The ticket belongs to another user.")
        except TicketError as refusal:
            self._refuse(handler, refusal)
        handler._token_authenticated = True  # type: ignore[attr-defined]  # Jupyter's own mark: no XSRF cookie needed
        return User(
            username=ticket.user, name=ticket.user, display_name=ticket.user, initials=ticket.user[:2].upper()
        )

    def get_token(self, handler: web.RequestHandler) -> str | None:
        """Return the ticket a request carries, or None."""
        match = _AUTHORIZATION.fullmatch(handler.request.headers.get("Authorization", ""))
        return match.group(1) if match else handler.get_query_argument("token", "") or None

    def _refuse(self, handler: web.RequestHandler, refusal: TicketError) -> NoReturn:
        handler.set_status(refusal.status)
        for name, value in cors_headers(self.settings.allow_origin).items():
            handler.set_header(name, value)
        handler.set_header("Content-Type", "application/json")
        handler.set_header("Cache-Control", "no-store")
        if refusal.status == 401:
            handler.set_header("WWW-Authenticate", "Bearer")
        raise web.Finish(
            json.dumps({"status": refusal.status, "code": refusal.code, "message": refusal.message})
        )

    def should_check_origin(self, handler: web.RequestHandler) -> bool:
        """A ticket does not excuse a page of a foreign origin; clients that send no Origin are not pages."""
        return True

    def get_handlers(self) -> list[tuple[str, object]]:
        return []

    @property
    def login_available(self) -> bool:
        return False

    @property
    def logout_available(self) -> bool:
        return False


class WholeRuntimeAuthorizer(Authorizer):
    """All or nothing: the runtime's own user may do everything in it, nobody else anything."""

    def is_authorized(self, handler: JupyterHandler, user: User, action: str, resource: str) -> bool:
        provider = handler.identity_provider
        return isinstance(provider, TicketIdentityProvider) and user.username == provider.settings.user
