"""Tickets: what lets a page or a client into one runtime. Pure; docs/architecture.md, "Tickets" fixes the bytes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

PREFIX = "mc1"


class BadTicket(Exception):
    """A ticket that opens nothing; `code` is `bad_ticket` or `ticket_expired`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Ticket:
    """A verified ticket. `expires` is in unix seconds."""

    runtime_id: str
    user: str
    expires: int
    nonce: str


def runtime_key(master: bytes, runtime_id: str) -> bytes:
    """Return the key of one runtime, derived from the installation's master key."""
    return hmac.new(master, b"runtime:" + runtime_id.encode(), hashlib.sha256).digest()


def supervisor_key(master: bytes, runtime_id: str) -> bytes:
    """Return the key with which hub and control speak to the supervisor of one runtime; no code inside ever has it."""
    return hmac.new(master, b"supervisor:" + runtime_id.encode(), hashlib.sha256).digest()


def mint(key: bytes, runtime_id: str, user: str, expires_unix: int, nonce: str) -> str:
    """Return a ticket for `user` to the runtime with this key."""
    claims = json.dumps({"r": runtime_id, "u": user, "e": expires_unix, "n": nonce}, separators=(",", ":"))
    payload = _encode(claims.encode())
    return f"{PREFIX}.{payload}.{_mac(key, payload)}"


def verify(key: bytes, token: str, now_unix: float) -> Ticket:
    """Return the ticket in `token`. Raise BadTicket."""
    parts = token.split(".")
    if len(token) > 2048 or not token.isascii() or len(parts) != 3 or parts[0] != PREFIX:
        raise BadTicket("bad_ticket", "This is not a ticket.")
    if not hmac.compare_digest(_mac(key, parts[1]), parts[2]):
        raise BadTicket("bad_ticket", "The ticket was not made for this runtime.")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        ticket = Ticket(claims["r"], claims["u"], claims["e"], claims["n"])
    except (ValueError, KeyError, TypeError):
        raise BadTicket("bad_ticket", "The ticket can not be read.") from None
    if not isinstance(ticket.expires, int) or isinstance(ticket.expires, bool):
        raise BadTicket("bad_ticket", "The ticket can not be read.")
    if ticket.expires <= now_unix:
        raise BadTicket("ticket_expired", "The ticket has expired; ask control for a new one.")
    return ticket


def _mac(key: bytes, payload: str) -> str:
    return _encode(hmac.new(key, f"{PREFIX}.{payload}".encode(), hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
