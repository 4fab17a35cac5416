"""Idempotency keys: a request that is repeated makes nothing twice."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from sqlalchemy import delete

from storage_mount import errors
from storage_mount.drives import Drives
from storage_mount.rows import utc
from storage_mount.sql import KeyRow

KEY_LIFETIME = timedelta(hours=24)


class Keys(Drives):
    """The keys that made something in the last 24 hours."""

    def find_key(self, user: str, key: str, body: bytes) -> str | None:
        """Return the id that this key made before. Raise KeyReused for another request."""
        with self._database() as db:
            row = db.get(KeyRow, (user, key))
            if row is None or utc(row.at) < self._clock.now() - KEY_LIFETIME:
                return None
            if row.body != hashlib.sha256(body).hexdigest():
                raise errors.KeyReused("This Idempotency-Key was used with a different request.")
            return row.result

    def remember_key(self, user: str, key: str, body: bytes, result: str) -> None:
        with self._database() as db:
            db.execute(delete(KeyRow).where(KeyRow.at < self._clock.now() - KEY_LIFETIME))
            db.merge(
                KeyRow(
                    user=user,
                    key=key,
                    body=hashlib.sha256(body).hexdigest(),
                    result=result,
                    at=self._clock.now(),
                )
            )
