"""What the session service asks of a store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from quota.model import Filter, Grant, Reason, Session, State


class LiveExists(Exception):
    """This user has a live runtime for this file already; `session` is it."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.id)
        self.session = session


class NoSession(Exception):
    """There is no session of this id."""


class Fenced(Exception):
    """Another instance has taken over: what this one wanted to write was not written."""


class Ledger(Protocol):
    """Keeps sessions, and the append-only record of what happened to them.

    Every call is one transaction, unless it is made inside `together`. Once `take_over` was called, each change is refused with Fenced when a later instance has
    taken over since.
    """

    def take_over(self, holder: str, at: datetime) -> int:
        """Become the one instance that writes; return its epoch, higher than every one before."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """A block whose changes are one transaction: all of them, or none when it raises. `begin` has no place in it."""
        ...

    def begin(self, session: Session) -> None:
        """Record the intent of a new session, durably. Raise LiveExists; the store itself holds that rule."""
        ...

    def get(self, session_id: str) -> Session | None:
        """Return the session, None when there is none."""
        ...

    def live(self, user: str | None = None) -> list[Session]:
        """Return the live sessions, of one user or of all, oldest first."""
        ...

    def find(self, which: Filter, offset: int, limit: int) -> tuple[list[Session], int]:
        """Return a page of the sessions asked for, newest first, and how many there are."""
        ...

    def move(
        self, session_id: str, state: State, at: datetime, fields: Mapping[str, object] | None = None
    ) -> Session:
        """Move a session to `state` with `fields`, and record the move. A move that is not allowed changes nothing.

        Return the session as it is now. Raise NoSession.
        """
        ...

    def note(self, session_id: str, fields: Mapping[str, object]) -> Session:
        """Change fields of a live session; of an ended one nothing changes. Return it as it is now. Raise NoSession."""
        ...

    def note_use(self, uses: Mapping[str, tuple[datetime, float]]) -> None:
        """Note the last use of live sessions: wall-clock time and boot time of each, never earlier than what is known."""
        ...

    def end(
        self, session_id: str, state: State, reason: Reason, at: datetime, used_seconds: float
    ) -> Session:
        """End a session once, with what it used; ending an ended one changes nothing. Raise NoSession."""
        ...

    def metered(self, since: datetime) -> list[Session]:
        """Return the sessions that were ready and have not ended before `since`, oldest first."""
        ...

    def grant(self, grant: Grant) -> None:
        """Add hours to a budget. Grants are only ever added."""
        ...

    def grants(self, since: datetime) -> list[Grant]:
        """Return what was granted since, oldest first."""
        ...

    def keep_content(self, user: str, keep: bool) -> None:
        """Note whether the user wants /content kept when a runtime ends."""
        ...

    def keeps_content(self, user: str) -> bool:
        """Return whether the user wants /content kept; nobody does who never said so."""
        ...

    def record(self, session_id: str, event: str, detail: Mapping[str, object], at: datetime) -> None:
        """Append to the record."""
        ...

    def events(self, session_id: str) -> list[tuple[str, dict[str, object], datetime]]:
        """Return the record of a session, oldest first: event, detail, time."""
        ...


def created_detail(session: Session) -> dict[str, object]:
    """Return what the record says of a new session: all that its usage is charged by."""
    return {
        "user": session.user,
        "file_id": session.file_id,
        "accelerator": session.accelerator,
        "shape": session.shape,
        "teams": sorted(session.teams),
        "cpus": session.cpus,
        "price": session.price,
    }
