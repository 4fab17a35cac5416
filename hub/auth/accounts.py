"""Local accounts: names, password hashes and one-time sign-in links, in a small database of their own.

The command line and the hub's authenticator both use it, so accounts can be made while the service is down. Passwords are
kept as scrypt hashes; of a link only a hash is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Boolean, DateTime, LargeBinary, String, create_engine, event, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from quota.clock import Clock
from quota.tables import create_tables

NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}[a-z0-9]|[a-z]")
RESERVED = frozenset(
    {
        "hub",
        "user",
        "users",
        "services",
        "api",
        "static",
        "root",
        "nobody",
        "con",
        "nul",
        "proto",
        "constructor",
    }
)
MINIMUM_PASSWORD = 8
LINK_LIFETIME = timedelta(hours=24)
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1  # 16 MiB and about 50 ms a try: the cost OWASP named in 2023


class AccountError(Exception):
    """An account can not be made or changed; `code` is stable, the text is one sentence for the person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Account:
    """A local account. `has_password` is False for one that can only use a one-time link."""

    name: str
    admin: bool
    has_password: bool
    created: datetime


class _Base(DeclarativeBase):
    pass


class _AccountRow(_Base):
    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    password: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="salt (16 bytes) + scrypt hash; NULL: none set"
    )
    admin: Mapped[bool] = mapped_column(Boolean, default=False)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class _LinkRow(_Base):
    __tablename__ = "sign_in_links"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True, comment="SHA-256 of the token")
    name: Mapped[str] = mapped_column(String(64))
    expires: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def check_name(name: str) -> str:
    """Return the name, or raise AccountError: what a user may be called."""
    if any(not c.isprintable() or c.isspace() for c in name):
        raise AccountError("bad_name", "User name contains a control, invisible or space character.")
    if len(name) > 64:
        raise AccountError("name_too_long", "User name is longer than 64 characters.")
    if name in RESERVED or name in (".", "..") or name.startswith("-"):
        raise AccountError("name_reserved", "User name is reserved.")
    if not NAME.fullmatch(name):
        raise AccountError(
            "bad_name", "User name must start with a letter and use only a-z, 0-9, '.', '_' and '-'."
        )
    return name


def check_password(password: str) -> str:
    """Return the password, or raise AccountError when it is too short or too long."""
    if len(password) < MINIMUM_PASSWORD:
        raise AccountError(
            "password_too_short", f"The password must have at least {MINIMUM_PASSWORD} characters."
        )
    if len(password) > 1024:
        raise AccountError("password_too_long", "The password is longer than 1024 characters.")
    return password


class Accounts:
    """The local accounts of one installation."""

    def __init__(self, path: Path, clock: Clock) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._engine = _open(path)
        self._clock = clock
        create_tables(self._engine, _Base.metadata)

    def close(self) -> None:
        self._engine.dispose()

    def add(self, name: str, *, password: str | None, admin: bool) -> Account:
        """Make an account. Raise AccountError `name_taken`, `bad_name`, `password_too_short`..."""
        check_name(name)
        hashed = _hash(check_password(password)) if password is not None else None
        with Session(self._engine) as db, db.begin():
            if db.get(_AccountRow, name) is not None:
                raise AccountError("name_taken", f"A user named '{name}' exists.")
            row = _AccountRow(name=name, password=hashed, admin=admin, created=self._clock.now())
            db.add(row)
            return _account(row)

    def get(self, name: str) -> Account | None:
        with Session(self._engine) as db:
            row = db.get(_AccountRow, name)
            return _account(row) if row is not None else None

    def list(self) -> list[Account]:
        with Session(self._engine) as db:
            return [_account(row) for row in db.scalars(select(_AccountRow).order_by(_AccountRow.name))]

    def remove(self, name: str) -> bool:
        """Remove the account; return whether there was one. Its Drive stays."""
        with Session(self._engine) as db, db.begin():
            row = db.get(_AccountRow, name)
            if row is None:
                return False
            db.delete(row)
            return True

    def set_password(self, name: str, password: str) -> None:
        """Set a new password. Raise AccountError `no_such_user`."""
        hashed = _hash(check_password(password))
        with Session(self._engine) as db, db.begin():
            row = db.get(_AccountRow, name)
            if row is None:
                raise AccountError("no_such_user", f"No user named '{name}'.")
            row.password = hashed

    def verify(self, name: str, password: str) -> Account | None:
        """Return the account when the password is right. Takes the same time for names that do not exist."""
        with Session(self._engine) as db:
            row = db.get(_AccountRow, name) if len(name) <= 64 else None
            stored = row.password if row is not None and row.password is not None else _DUMMY
            right = len(password) <= 1024 and _matches(password, stored)
            return _account(row) if right and row is not None and row.password is not None else None

    def make_link(self, name: str) -> str:
        """Return a new one-time token that signs `name` in; earlier ones of that account stop working."""
        token = secrets.token_urlsafe(24)
        with Session(self._engine) as db, db.begin():
            for old in db.scalars(select(_LinkRow).where(_LinkRow.name == name)):
                db.delete(old)
            db.add(_LinkRow(digest=_digest(token), name=name, expires=self._clock.now() + LINK_LIFETIME))
        return token

    def use_link(self, token: str) -> Account | None:
        """Return the account the token belongs to and burn the token; None when unknown, used or expired."""
        if len(token) > 256:
            return None
        with Session(self._engine) as db, db.begin():
            link = db.get(_LinkRow, _digest(token))
            if link is None:
                return None
            db.delete(link)
            expires = (
                link.expires if link.expires.tzinfo else link.expires.replace(tzinfo=self._clock.now().tzinfo)
            )
            row = db.get(_AccountRow, link.name)
            return _account(row) if row is not None and expires > self._clock.now() else None


def _account(row: _AccountRow) -> Account:
    return Account(name=row.name, admin=row.admin, has_password=row.password is not None, created=row.created)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "replace"), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=32
    )


def _hash(password: str) -> bytes:
    salt = secrets.token_bytes(16)
    return salt + _scrypt(password, salt)


def _matches(password: str, stored: bytes) -> bool:
    return hmac.compare_digest(_scrypt(password, stored[:16]), stored[16:])


_DUMMY = bytes(48)


def _open(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})

    @event.listens_for(engine, "connect")
    def _durable(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, untyped in SQLAlchemy
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    path.touch(mode=0o600, exist_ok=True)
    return engine
