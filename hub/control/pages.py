"""The HTML pages of control: consent to a mount and the code to paste; and foreign hosts. hub.control.limit_pages has the rest."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from oauthlib.oauth2 import InvalidRequestError, OAuth2Error, WebApplicationServer
from tornado import web

from hub.control.consent import CHALLENGE, OUT_OF_BAND, SCOPE
from hub.control.handlers import ControlHandler
from hub.web.errors import ApiError, printable
from hub.web.identity import User

CSP = "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"


FORM = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 8192


class PageHandler(ControlHandler):
    """A page for a signed-in person; others are sent to sign in and come back."""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", CSP)
        self.set_header("Referrer-Policy", "same-origin")

    async def prepare(self) -> None:
        user = await self.identity.user(self)
        if user is None:
            self.redirect(self.identity.begin_sign_in(self, self.request.uri or "/drive"))
            raise web.Finish
        self.user: User = user

    def reply_error(self, error: ApiError) -> None:
        self.set_status(error.status)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.render("message.html", title="This did not work", message=error.message)


class AuthorizeHandler(PageHandler):
    """`oauth/authorize`: may this runtime use my Drive?"""

    @property
    def server(self) -> WebApplicationServer:
        server: WebApplicationServer = self.settings["oauth_server"]
        return server

    def get(self) -> None:
        session = self._check()
        self.render("authorize.html", session=session, user=self.user.name, action=self.request.uri)

    def post(self) -> None:
        session = self._check()
        if self.get_body_argument("decision", "") != "allow":
            self.render(
                "message.html",
                title="Access was not given",
                message="The notebook can not see your Drive. You may close this page.",
            )
            return
        try:
            headers, _, _ = self.server.create_authorization_response(
                self._uri(), http_method="GET", scopes=None, credentials={"user": self.user.name}
            )
        except OAuth2Error as error:
            raise _refusal(error) from None
        code = parse_qs(urlsplit(headers["Location"]).query)["code"][0]
        detail = {"scope": SCOPE, "by": self.user.name}
        self.control.sessions.ledger.record(session.id, "consented", detail, self.control.clock.now())
        self.render("code.html", code=code)

    def _check(self) -> Any:
        """Return the runtime that asks, after oauthlib has looked at the request. Raise ApiError 400 or 404."""
        try:
            _, info = self.server.validate_authorization_request(self._uri(), http_method="GET")
        except OAuth2Error as error:
            raise _refusal(error) from None
        if info["request"].code_challenge_method != "S256":
            raise ApiError(400, "invalid_request", "PKCE with S256 is required.")
        if not CHALLENGE.fullmatch(info["request"].code_challenge or ""):
            raise ApiError(400, "invalid_request", "code_challenge is not the base64url of a SHA-256 hash.")
        session = self.control.sessions.ledger.get(info["client_id"])
        if session is None or session.user != self.user.name:
            raise ApiError(404, "not_found", "This request does not come from a runtime of yours.")
        return session

    def _uri(self) -> str:
        # oauthlib insists on https in its own address; the transport is the proxy's business.
        return f"https://control{self.request.uri}"


class OAuthTokenHandler(ControlHandler):
    """`oauth/token`: a code for a token; errors as RFC 6749 section 5.2."""

    async def prepare(self) -> None:
        """The code in the body says who it is for."""

    def post(self) -> None:
        server: WebApplicationServer = self.settings["oauth_server"]
        try:
            body = self._form()
            headers, text, status = server.create_token_response(
                "https://control/oauth/token",
                http_method="POST",
                body=body,
                headers={"Content-Type": FORM},
            )
        except ValueError as error:  # oauthlib's own word for a form it can not read
            refusal = InvalidRequestError(description=printable(str(error), 120))
            headers, text, status = {}, refusal.json, refusal.status_code
        for name, value in headers.items():
            self.set_header(name, value)
        self.set_status(status)
        self.finish(text)

    def _form(self) -> str:
        """Return the request's form as text. Raise ValueError."""
        if self.request.headers.get("Content-Type", "").split(";")[0].strip().lower() != FORM:
            raise ValueError(f"Content-Type must be {FORM}.")
        if len(self.request.body) > MAX_FORM_BYTES:
            raise ValueError("The form is too long.")
        try:
            text = self.request.body.decode("ascii")
        except UnicodeDecodeError:
            raise ValueError("The form is not ASCII.") from None
        parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=20, errors="strict")
        return text


class CanonicalHostHandler(web.RequestHandler):
    """A page asked for under a host that is not the app's: send the browser to the app."""

    def initialize(self, app_origin: str, api_host: str) -> None:
        self._app_origin = app_origin
        # A redirect to the host the request came to already would go round for ever.
        self._hosts = {api_host, "127.0.0.1", "localhost"} - {urlsplit(app_origin).hostname}

    def prepare(self) -> None:
        wants_page = "text/html" in self.request.headers.get("Accept", "") and self.request.method in (
            "GET",
            "HEAD",
        )
        if wants_page and self.request.host_name in self._hosts:
            self.redirect(self._app_origin + "/" + (self.request.uri or "/").lstrip("/"))
            return
        self.set_status(404)
        self.set_header("Content-Type", "application/json")
        self.finish(
            '{"status":404,"code":"not_found","message":"Nothing is served under this host and path."}'
        )


def _refusal(error: OAuth2Error) -> ApiError:
    messages = {
        "invalid_client_id": "This request does not come from a live runtime.",
        "mismatching_redirect_uri": "redirect_uri does not match the registered value.",
        "invalid_redirect_uri": "redirect_uri does not match the registered value.",
    }
    description = str(error.description or "The request is not valid.").rstrip(".")
    pkce = "PKCE with S256 is required." if "code challenge" in description.lower() else None
    return ApiError(400, str(error.error), messages.get(error.error) or pkce or f"{description}.")


def authorize_link(base: str, runtime_id: str, challenge: str, state: str) -> str:
    """Return the address a notebook prints (used by tests; the runtime builds its own)."""
    query = {
        "response_type": "code",
        "client_id": runtime_id,
        "redirect_uri": OUT_OF_BAND,
        "scope": "drive.mount",
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{base}oauth/authorize?{urlencode(query)}"
