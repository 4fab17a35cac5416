"""OAuth 2 for `drive.mount` without a page: authorization code with PKCE (S256), by oauthlib.

The client is a runtime (client id = runtime id), the resource is its owner's Drive, the scope is `drive.mount`. The code is
shown to the person, who pastes it into the notebook. Codes live five minutes and work once; a code used twice takes back the
token it gave. Tokens open the mounts of that one runtime, for ten minutes.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from oauthlib.common import Request as OAuthRequest
from oauthlib.oauth2 import RequestValidator, WebApplicationServer
from sqlalchemy import Boolean, DateTime, String, delete
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from quota.clock import Clock
from quota.model import LIVE
from quota.ports import Ledger
from quota.tables import create_tables

SCOPE = "drive.mount"
OUT_OF_BAND = "urn:ietf:wg:oauth:2.0:oob"
CODE_LIFETIME = timedelta(minutes=5)
TOKEN_SECONDS = 600
TOKEN_PREFIX = "mcd_"
RUNTIME_ID = re.compile(r"r-[a-z2-7]{12}")
CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # base64url of a SHA-256


class _Base(DeclarativeBase):
    pass


class _Code(_Base):
    __tablename__ = "control_oauth_codes"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True, comment="SHA-256 of the code")
    runtime_id: Mapped[str] = mapped_column(String(32))
    user: Mapped[str] = mapped_column(String(255))
    challenge: Mapped[str] = mapped_column(String(128))
    expires: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    used: Mapped[bool] = mapped_column(Boolean, default=False)


class _Token(_Base):
    __tablename__ = "control_oauth_tokens"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True, comment="SHA-256 of the token")
    code: Mapped[str] = mapped_column(String(64), comment="the code it was given for")
    runtime_id: Mapped[str] = mapped_column(String(32))
    user: Mapped[str] = mapped_column(String(255))
    expires: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class ConsentStore:
    """Codes and tokens."""

    def __init__(self, engine: Engine, ledger: Ledger, clock: Clock) -> None:
        self._engine, self._ledger, self._clock = engine, ledger, clock
        create_tables(engine, _Base.metadata)

    def owner_of(self, runtime_id: str | None) -> str | None:
        """Return who owns the live runtime, None when there is none."""
        session = self._ledger.get(runtime_id) if runtime_id and RUNTIME_ID.fullmatch(runtime_id) else None
        return session.user if session is not None and session.state in LIVE else None

    def save_code(self, code: str, runtime_id: str, user: str, challenge: str) -> None:
        with Session(self._engine) as db, db.begin():
            db.execute(delete(_Code).where(_Code.expires < self._clock.now() - timedelta(days=1)))
            expires = self._clock.now() + CODE_LIFETIME
            db.add(
                _Code(
                    digest=_digest(code),
                    runtime_id=runtime_id,
                    user=user,
                    challenge=challenge,
                    expires=expires,
                    used=False,
                )
            )

    def read_code(self, code: str, runtime_id: str) -> tuple[str, str] | None:
        """Return (user, challenge) of an unused, unexpired code of this runtime. A code used before takes its tokens back."""
        with Session(self._engine) as db, db.begin():
            row = db.get(_Code, _digest(code))
            if row is None or row.runtime_id != runtime_id:
                return None
            if row.used:
                db.execute(delete(_Token).where(_Token.code == row.digest))
                return None
            return (row.user, row.challenge) if _utc(row.expires) > self._clock.now() else None

    def spend_code(self, code: str, token: str, runtime_id: str, user: str) -> None:
        """Keep the token a code was exchanged for, and mark the code as used, in one transaction."""
        with Session(self._engine) as db, db.begin():
            db.execute(delete(_Token).where(_Token.expires < self._clock.now()))
            row = db.get(_Code, _digest(code))
            if row is not None:
                row.used = True
            expires = self._clock.now() + timedelta(seconds=TOKEN_SECONDS)
            db.add(
                _Token(
                    digest=_digest(token),
                    code=_digest(code),
                    runtime_id=runtime_id,
                    user=user,
                    expires=expires,
                )
            )

    def user_of_token(self, token: str, runtime_id: str) -> str | None:
        """Return the user who gave this token for this runtime's mounts, None when it opens nothing."""
        if not token.startswith(TOKEN_PREFIX) or len(token) > 200:
            return None
        with Session(self._engine) as db:
            row = db.get(_Token, _digest(token))
        if row is None or row.runtime_id != runtime_id or _utc(row.expires) <= self._clock.now():
            return None
        return row.user


class Validator(RequestValidator):
    """oauthlib's questions, answered from the store. The person who consents is `request.user`."""

    def __init__(self, store: ConsentStore) -> None:
        super().__init__()
        self._store = store

    def validate_client_id(self, client_id: str, request: OAuthRequest, *args: Any, **kwargs: Any) -> bool:
        return self._store.owner_of(client_id) is not None

    def validate_redirect_uri(
        self, client_id: str, redirect_uri: str, request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> bool:
        return redirect_uri == OUT_OF_BAND

    def get_default_redirect_uri(
        self, client_id: str, request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> str:
        return OUT_OF_BAND

    def get_default_scopes(
        self, client_id: str, request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> list[str]:
        return [SCOPE]

    def validate_scopes(
        self, client_id: str, scopes: list[str], client: Any, request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> bool:
        return set(scopes) == {SCOPE}

    def validate_response_type(
        self,
        client_id: str,
        response_type: str,
        client: Any,
        request: OAuthRequest,
        *args: Any,
        **kwargs: Any,
    ) -> bool:
        return response_type == "code"

    def is_pkce_required(self, client_id: str, request: OAuthRequest) -> bool:
        return True

    def save_authorization_code(
        self, client_id: str, code: dict[str, str], request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> None:
        self._store.save_code(code["code"], client_id, request.user, request.code_challenge)

    def client_authentication_required(self, request: OAuthRequest, *args: Any, **kwargs: Any) -> bool:
        return False  # a notebook can keep no secret; PKCE stands in for it

    def authenticate_client_id(
        self, client_id: str, request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> bool:
        if self._store.owner_of(client_id) is None:
            return False
        request.client = _Client(client_id)
        return True

    def validate_grant_type(
        self, client_id: str, grant_type: str, client: Any, request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> bool:
        return grant_type == "authorization_code"

    def validate_code(
        self, client_id: str, code: str, client: Any, request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> bool:
        found = self._store.read_code(code, client_id)
        if found is None:
            return False
        request.user, request.scopes = found[0], [SCOPE]
        return True

    def get_code_challenge(self, code: str, request: OAuthRequest) -> str | None:
        found = self._store.read_code(code, request.client_id)
        return found[1] if found is not None else None

    def get_code_challenge_method(self, code: str, request: OAuthRequest) -> str:
        return "S256"

    def confirm_redirect_uri(
        self,
        client_id: str,
        code: str,
        redirect_uri: str,
        client: Any,
        request: OAuthRequest,
        *args: Any,
        **kwargs: Any,
    ) -> bool:
        return redirect_uri == OUT_OF_BAND

    def save_bearer_token(
        self, token: dict[str, Any], request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> str:
        self._store.spend_code(request.code, token["access_token"], request.client_id, request.user)
        return OUT_OF_BAND

    def invalidate_authorization_code(
        self, client_id: str, code: str, request: OAuthRequest, *args: Any, **kwargs: Any
    ) -> None:
        """The code was spent together with the making of its token."""


class _Client:
    def __init__(self, client_id: str) -> None:
        self.client_id = client_id


def make_server(store: ConsentStore) -> WebApplicationServer:
    """Return oauthlib's authorization server for these codes and tokens."""
    return WebApplicationServer(
        Validator(store),
        token_expires_in=TOKEN_SECONDS,
        token_generator=lambda _: TOKEN_PREFIX + secrets.token_urlsafe(32),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _utc(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
