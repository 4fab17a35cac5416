"""Idempotency keys: the same POST twice does the same thing once."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, String, delete
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from hub.web.errors import bad_request, conflict
from quota.clock import Clock
from quota.tables import create_tables

KEPT = timedelta(hours=24)


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "control_idempotency"
    user: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the request's JSON")
    result: Mapped[str] = mapped_column(String(64), comment="id of what was made")
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class IdempotencyKeys:
    """Remembers what a key made, for a day."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        create_tables(engine, _Base.metadata)

    def find(self, user: str, key: str | None, body: dict[str, Any]) -> str | None:
        """Return the id made earlier with this key and body. Raise 409 `key_reused` for another body."""
        if key is None:
            return None
        if not key or len(key) > 255 or not key.isascii() or not key.isprintable():
            raise bad_request(
                "bad_idempotency_key", "Idempotency-Key must be 1 to 255 printable ASCII characters."
            )
        with Session(self._engine) as db:
            row = db.get(_Row, (user, key))
        if row is None:
            return None
        made = row.at if row.at.tzinfo is not None else row.at.replace(tzinfo=UTC)
        if made < self._clock.now() - KEPT:
            return None
        if row.body != _digest(body):
            raise conflict("key_reused", "This Idempotency-Key was used with a different request.")
        return row.result

    def remember(self, user: str, key: str | None, body: dict[str, Any], result: str) -> None:
        if key is None:
            return
        with Session(self._engine) as db, db.begin():
            db.execute(delete(_Row).where(_Row.at < self._clock.now() - KEPT))
            db.merge(_Row(user=user, key=key, body=_digest(body), result=result, at=self._clock.now()))


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
