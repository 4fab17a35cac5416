"""Who is asking: hub API tokens for clients, one signed session cookie for browsers.

Documents and control are JupyterHub services that share one OAuth client. `HubIdentity` asks the hub who a token belongs to,
remembers the answer for a short while, and while the hub is down keeps honouring tokens it already knew, so that a hub
restart disturbs nobody who is signed in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from tornado import web
from tornado.web import create_signed_value, decode_signed_value

from hub.web.errors import ApiError, denied
from quota.clock import Clock

SESSION_COOKIE = "minicolab-session"
STATE_COOKIE = "minicolab-oauth-state"
FRESH_SECONDS = 30.0  # how long an answer of the hub is believed without asking again
STALE_SECONDS = 3600.0  # how long it is believed while the hub does not answer at all
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class User:
    """A signed-in person: `name` and `groups` as JupyterHub knows them; `via` is "token" or "cookie"."""

    name: str
    admin: bool
    via: str
    scopes: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True)
class IdentitySettings:
    """How to reach the hub, and who we are to it. `app_origin` such as `http://localhost:8000`."""

    hub_api_url: str
    api_token: str
    service_name: str
    oauth_client_id: str
    oauth_redirect_uri: str
    hub_public_url: str
    app_origin: str
    cookie_secret: bytes
    secure_cookies: bool


class HubUnavailable(ApiError):
    """The hub did not answer, so nobody new can be recognised."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "hub_unavailable",
            "The sign-in service is not answering. Try again in a moment.",
            headers={"Retry-After": "5"},
        )


class HubIdentity:
    """Recognises the user of a request. One per process."""

    def __init__(self, settings: IdentitySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._known: dict[str, tuple[User | None, float]] = {}
        self._services: dict[str, tuple[str, float]] = {}
        self._session: aiohttp.ClientSession | None = None

    @property
    def settings(self) -> IdentitySettings:
        return self._settings

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def user(self, handler: web.RequestHandler) -> User | None:
        """Return who makes this request, or None. Raise 403 `cross_site` for a cookie used from another site."""
        token = bearer_token(handler)
        if token is not None:
            return await self.user_for_token(token, "token")
        token = self._cookie_token(handler)
        if token is None:
            return None
        if handler.request.method not in SAFE_METHODS or is_websocket(handler):
            self._require_same_origin(handler)
        return await self.user_for_token(token, "cookie")

    async def user_for_token(self, token: str, via: str) -> User | None:
        """Return the owner of a hub token that may use this service, or None. Raise HubUnavailable."""
        if not _can_be_a_token(token):
            return None
        key = hashlib.sha256(f"{via}:{token}".encode()).hexdigest()
        now = self._clock.boottime()
        known = self._known.get(key)
        if known is not None and now - known[1] < FRESH_SECONDS:
            return known[0]
        try:
            user = await self._ask_hub(token, via)
        except (aiohttp.ClientError, TimeoutError, HubUnavailable):
            if known is not None and known[0] is not None and now - known[1] < STALE_SECONDS:
                return known[0]
            raise HubUnavailable from None
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[key] = (user, now)
        return user

    async def service_of(self, token: str) -> str | None:
        """Return the name of the hub's service a token belongs to, or None. Raise HubUnavailable."""
        if not _can_be_a_token(token):
            return None
        key = hashlib.sha256(f"service:{token}".encode()).hexdigest()
        now = self._clock.boottime()
        known = self._services.get(key)
        if known is not None and now - known[1] < STALE_SECONDS:
            return known[0]
        try:
            model = await self._owner_of(token)
        except (aiohttp.ClientError, TimeoutError):
            raise HubUnavailable from None
        if model is None or model.get("kind") != "service":
            return None
        name = str(model["name"])
        self._services = {key: (name, now)}  # one service asks
        return name

    def forget(self, token: str) -> None:
        """Drop what is remembered about a token (sign-out)."""
        for via in ("token", "cookie"):
            self._known.pop(hashlib.sha256(f"{via}:{token}".encode()).hexdigest(), None)

    async def _ask_hub(self, token: str, via: str) -> User | None:
        model = await self._owner_of(token)
        if model is None or model.get("kind") != "user":
            return None
        scopes = frozenset(model.get("scopes", ()))
        name = self._settings.service_name
        if not {"access:services", f"access:services!service={name}"} & scopes:
            return None
        return User(
            name=model["name"],
            admin=bool(model.get("admin")),
            via=via,
            scopes=scopes,
            groups=frozenset(model.get("groups") or ()),
        )

    async def _owner_of(self, token: str) -> dict[str, Any] | None:
        """Return the hub's model of a token's owner, None when it knows none. Raise HubUnavailable, aiohttp.ClientError."""
        url = self._settings.hub_api_url.rstrip("/") + "/user"
        async with self._client().get(url, headers={"Authorization": f"token {token}"}) as reply:
            if reply.status in (401, 403, 404):
                return None
            if reply.status != 200:
                raise HubUnavailable
            model: dict[str, Any] = await reply.json()
            return model

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        return self._session

    # -- browsers ---------------------------------------------------------------------------------------------

    def _cookie_token(self, handler: web.RequestHandler) -> str | None:
        value = handler.get_cookie(SESSION_COOKIE)
        if value is None:
            return None
        token = decode_signed_value(self._settings.cookie_secret, SESSION_COOKIE, value, max_age_days=14)
        return token.decode("ascii", "replace") if token else None

    def _require_same_origin(self, handler: web.RequestHandler) -> None:
        headers = handler.request.headers
        origin = headers.get("Origin")
        if origin is not None:
            if origin == self._settings.app_origin:
                return
        elif headers.get("Sec-Fetch-Site") == "same-origin":
            return
        raise denied("cross_site", "Cross-site request blocked.")

    def begin_sign_in(self, handler: web.RequestHandler, next_path: str) -> str:
        """Set the state cookie and return the hub URL to send the browser to. `next_path` is where it comes back to."""
        state = secrets.token_urlsafe(24)
        verifier = secrets.token_urlsafe(48)
        payload = json.dumps({"s": state, "v": verifier, "n": safe_next(next_path)})
        handler.set_cookie(
            f"{STATE_COOKIE}-{state[:8]}",
            create_signed_value(self._settings.cookie_secret, STATE_COOKIE, payload).decode(),
            path="/services/documents/",
            httponly=True,
            samesite="Lax",
            max_age=600,
            secure=self._settings.secure_cookies,
        )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "client_id": self._settings.oauth_client_id,
            "redirect_uri": self._settings.oauth_redirect_uri,
            "response_type": "code",
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._settings.hub_public_url.rstrip('/')}/api/oauth2/authorize?{urlencode(query)}"

    async def finish_sign_in(self, handler: web.RequestHandler) -> str:
        """Exchange the code of the OAuth callback for a token, set the session cookie, return the path to go on to."""
        state = handler.get_query_argument("state", "")
        cookie_name = f"{STATE_COOKIE}-{state[:8]}"
        raw = handler.get_cookie(cookie_name)
        payload = (
            decode_signed_value(self._settings.cookie_secret, STATE_COOKIE, raw, max_age_days=1)
            if raw
            else None
        )
        if not payload:
            raise denied("bad_oauth_state", "OAuth state does not match. Try signing in again.")
        wanted = json.loads(payload)
        if not state or not secrets.compare_digest(wanted["s"], state):
            raise denied("bad_oauth_state", "OAuth state does not match. Try signing in again.")
        handler.clear_cookie(cookie_name, path="/services/documents/")
        form = {
            "client_id": self._settings.oauth_client_id,
            "client_secret": self._settings.api_token,
            "grant_type": "authorization_code",
            "code": handler.get_query_argument("code", ""),
            "redirect_uri": self._settings.oauth_redirect_uri,
            "code_verifier": wanted["v"],
        }
        url = self._settings.hub_api_url.rstrip("/") + "/oauth2/token"
        try:
            async with self._client().post(url, data=form) as reply:
                if reply.status != 200:
                    raise denied("sign_in_failed", "The hub did not accept the sign-in. Try again.")
                token = (await reply.json())["access_token"]
        except (aiohttp.ClientError, TimeoutError):
            raise HubUnavailable from None
        handler.set_cookie(
            SESSION_COOKIE,
            create_signed_value(self._settings.cookie_secret, SESSION_COOKIE, token).decode(),
            path="/",
            httponly=True,
            samesite="Lax",
            expires_days=14,
            secure=self._settings.secure_cookies,
        )
        return str(wanted["n"])

    def sign_out(self, handler: web.RequestHandler) -> None:
        """Forget this browser's session cookie."""
        token = self._cookie_token(handler)
        if token is not None:
            self.forget(token)
        handler.clear_cookie(SESSION_COOKIE, path="/")


def _can_be_a_token(text: str) -> bool:
    return len(text) <= 1024 and text.isascii() and text.isprintable()


def bearer_token(handler: web.RequestHandler) -> str | None:
    """Return the token of `Authorization: Bearer|token X`, or None."""
    header = handler.request.headers.get("Authorization", "")
    scheme, _, value = header.partition(" ")
    return value.strip() if scheme.lower() in ("bearer", "token") and value.strip() else None


def is_websocket(handler: web.RequestHandler) -> bool:
    """Return whether this request asks for a websocket."""
    return handler.request.headers.get("Upgrade", "").lower() == "websocket"


def safe_next(path: str) -> str:
    """Return `path` when it is a plain path on this host, else `/` (open redirects, header splitting)."""
    if (
        not path.startswith("/")
        or path.startswith(("//", "/\\"))
        or any(ord(c) < 0x21 or c in "\\\x7f" for c in path)
    ):
        return "/"
    parts = urlsplit(path)
    if parts.scheme or parts.netloc:
        return "/"
    return quote(path, safe="/?&=%#:@,;+~!$'()*-._")


def user_model(user: User) -> dict[str, Any]:
    """Return the JSON the pages show about the signed-in user."""
    return {"name": user.name, "admin": user.admin}
