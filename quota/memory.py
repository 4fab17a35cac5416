"""Sessions in memory: the same rules as the database, for tests and simulations. Nothing of it survives the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from quota.model import LIVE, MOVES, Filter, Grant, Reason, Session, State
from quota.ports import Fenced, LiveExists, NoSession, created_detail


class MemoryLedger:
    """A quota.ports.Ledger. Instances made with `shared` see the same sessions, as two processes see one database."""

    def __init__(self, shared: MemoryLedger | None = None) -> None:
        self._sessions: dict[str, Session] = shared._sessions if shared is not None else {}
        self._events: list[tuple[str, str, dict[str, object], datetime]] = (
            shared._events if shared is not None else []
        )
        self._holders: list[str] = shared._holders if shared is not None else []
        self._lock: threading.RLock = shared._lock if shared is not None else threading.RLock()
        self._grants: list[Grant] = shared._grants if shared is not None else []
        self._keeping: set[str] = shared._keeping if shared is not None else set()
        self._epoch: int | None = None

    def take_over(self, holder: str, at: datetime) -> int:
        with self._lock:
            self._holders.append(holder)
            self._epoch = len(self._holders)
            return self._epoch

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._lock:
            self._may_write()
            sessions, events = dict(self._sessions), len(self._events)
            try:
                yield
            except BaseException:
                self._sessions.clear()
                self._sessions.update(sessions)
                del self._events[events:]
                raise

    def begin(self, session: Session) -> None:
        with self._lock:
            self._may_write()
            for other in self._sessions.values():
                if (other.user, other.file_id) == (session.user, session.file_id) and other.state in LIVE:
                    raise LiveExists(other)
            self._sessions[session.id] = session
            self._events.append((session.id, "created", created_detail(session), session.created))

    def get(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    def live(self, user: str | None = None) -> list[Session]:
        found = [s for s in self._sessions.values() if s.state in LIVE and user in (None, s.user)]
        return sorted(found, key=lambda s: (s.created, s.id))

    def find(self, which: Filter, offset: int, limit: int) -> tuple[list[Session], int]:
        found = [
            s
            for s in self._sessions.values()
            if which.user in (None, s.user)
            and which.file_id in (None, s.file_id)
            and (which.states is None or s.state in which.states)
        ]
        found.sort(key=lambda s: (-s.created.timestamp(), s.id))
        return found[offset : offset + limit], len(found)

    def move(
        self, session_id: str, state: State, at: datetime, fields: Mapping[str, object] | None = None
    ) -> Session:
        with self._lock:
            self._may_write()
            session = self._the(session_id)
            if state in MOVES[session.state]:
                values: dict[str, Any] = {"state": state, **(fields or {})}
                session = self._sessions[session_id] = replace(session, **values)
                self._events.append((session_id, state, _reason_detail(session), at))
            return session

    def note(self, session_id: str, fields: Mapping[str, object]) -> Session:
        with self._lock:
            self._may_write()
            session = self._the(session_id)
            if session.state in LIVE:
                values: dict[str, Any] = dict(fields)
                session = self._sessions[session_id] = replace(session, **values)
            return session

    def note_use(self, uses: Mapping[str, tuple[datetime, float]]) -> None:
        with self._lock:
            self._may_write()
            for session_id, (wall, boottime) in uses.items():
                session = self._sessions.get(session_id)
                if session is None or session.state not in LIVE:
                    continue
                if session.active_boottime is None or session.active_boottime <= boottime:
                    self._sessions[session_id] = replace(
                        session, last_activity=wall, active_boottime=boottime
                    )

    def end(
        self, session_id: str, state: State, reason: Reason, at: datetime, used_seconds: float
    ) -> Session:
        with self._lock:
            self._may_write()
            session = self._the(session_id)
            if session.state in LIVE:
                state = state if state in MOVES[session.state] else State.ENDED
                session = replace(session, state=state, ended=at, reason=reason, used_seconds=used_seconds)
                self._sessions[session_id] = session
                self._events.append(
                    (session_id, state, {**_reason_detail(session), "used_seconds": used_seconds}, at)
                )
            return session

    def record(self, session_id: str, event: str, detail: Mapping[str, object], at: datetime) -> None:
        with self._lock:
            self._may_write()
            self._events.append((session_id, event, dict(detail), at))

    def events(self, session_id: str) -> list[tuple[str, dict[str, object], datetime]]:
        return [(event, detail, at) for i, event, detail, at in self._events if i == session_id]

    def metered(self, since: datetime) -> list[Session]:
        found = [
            s
            for s in self._sessions.values()
            if s.ready is not None and (s.state in LIVE or (s.ended is not None and s.ended >= since))
        ]
        return sorted(found, key=lambda s: (s.created, s.id))

    def grant(self, grant: Grant) -> None:
        with self._lock:
            self._may_write()
            self._grants.append(grant)

    def grants(self, since: datetime) -> list[Grant]:
        return [grant for grant in self._grants if grant.at >= since]

    def keep_content(self, user: str, keep: bool) -> None:
        with self._lock:
            self._may_write()
            (self._keeping.add if keep else self._keeping.discard)(user)

    def keeps_content(self, user: str) -> bool:
        return user in self._keeping

    def _may_write(self) -> None:
        if self._epoch is not None and self._epoch != len(self._holders):
            raise Fenced("Another control service has taken over.")

    def _the(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise NoSession(session_id)
        return session


def _reason_detail(session: Session) -> dict[str, object]:
    reason = session.reason
    return {"code": reason.code, "message": reason.message} if reason is not None else {}
