"""Tickets: how a page or a client proves to a runtime that control let it in.

A ticket is `mc1.<payload>.<mac>`: payload = base64url without padding of the JSON `{"r": runtime id, "u": user, "e": expiry in
unix seconds, "n": nonce}`, mac = base64url of HMAC-SHA256(key, b"mc1." + payload), where `key` is the runtime's own key. The
runtime verifies alone, so that a dead hub disturbs nobody. `tests/vectors/ticket.json` holds this and control's side to the
same bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

PREFIX = "mc1"
KEY_BYTES = 32
MAX_LENGTH = 2048


class TicketError(Exception):
    """A ticket that does not open this runtime: `status` (HTTP), stable `code`, one sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Ticket:
    """A verified ticket. `expires` is in unix seconds."""

    runtime_id: str
    user: str
    expires: int
    nonce: str


def runtime_key(master_key: bytes, runtime_id: str) -> bytes:
    """Return the key of one runtime, derived from the installation's master key."""
    return hmac.new(master_key, b"runtime:" + runtime_id.encode("utf-8"), hashlib.sha256).digest()


def verify(token: str, key: bytes, *, runtime_id: str, now: float) -> Ticket:
    """Return the ticket in `token`. `now` is in unix seconds.

    Raises TicketError 401 `bad_ticket` or `ticket_expired`, 403 `wrong_runtime`.
    """
    parts = token.split(".")
    if len(token) > MAX_LENGTH or not token.isascii() or len(parts) != 3 or parts[0] != PREFIX:
        raise _bad()
    payload, mac = parts[1], parts[2]
    wanted = _encode(hmac.new(key, f"{PREFIX}.{payload}".encode(), hashlib.sha256).digest())
    if not hmac.compare_digest(wanted, mac):
        # A ticket of another runtime is signed with another key; say so where its payload can be read at all.
        other = _read(payload)
        if other is not None and other.runtime_id != runtime_id:
            raise _wrong_runtime()
        raise _bad()
    ticket = _read(payload)
    if ticket is None:
        raise _bad()
    if ticket.runtime_id != runtime_id:
        raise _wrong_runtime()
    if now >= ticket.expires:
        raise TicketError(401, "ticket_expired", "The ticket has expired. Ask control for a new one.")
    return ticket


def _read(payload: str) -> Ticket | None:
    """Return the ticket in `payload` (not yet trusted), or None when it is malformed."""
    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        value = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    runtime_id, user, expires, nonce = value.get("r"), value.get("u"), value.get("e"), value.get("n")
    if not (isinstance(runtime_id, str) and isinstance(user, str) and isinstance(nonce, str)):
        return None
    if not isinstance(expires, int) or isinstance(expires, bool):
        return None
    return Ticket(runtime_id=runtime_id, user=user, expires=expires, nonce=nonce)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def _bad() -> TicketError:
    return TicketError(401, "bad_ticket", "The ticket is not valid. Ask control for a new one.")


def _wrong_runtime() -> TicketError:
    return TicketError(403, "wrong_runtime", "The ticket belongs to another runtime.")
