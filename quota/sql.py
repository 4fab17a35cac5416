"""Sessions and their record in a SQL database (SQLite or PostgreSQL)."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    DateTime,
    Engine,
    Float,
    Index,
    Integer,
    Row,
    String,
    Text,
    bindparam,
    case,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm import Session as Database

from quota.model import LIVE, MOVES, Filter, Grant, Reason, Session, State
from quota.ports import Fenced, LiveExists, NoSession, created_detail
from quota.store import create_engine as create_engine
from quota.store import prepare_database

_LIVE_SQL = text("state IN ('queued', 'starting', 'ready', 'stopping')")


class Base(DeclarativeBase):
    """The tables of this package."""


class SessionRow(Base):
    __tablename__ = "quota_sessions"
    __table_args__ = (
        # R1: one live runtime per user and notebook, held by the database itself.
        Index(
            "quota_one_live_runtime",
            "user",
            "file_id",
            unique=True,
            sqlite_where=_LIVE_SQL,
            postgresql_where=_LIVE_SQL,
        ),
        Index("quota_sessions_by_user", "user", "created"),
        Index("quota_sessions_by_state", "state"),
        Index("quota_sessions_by_end", "ended"),
    )
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user: Mapped[str] = mapped_column(String(255))
    file_id: Mapped[str] = mapped_column(String(64))
    file_name: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    phase: Mapped[str] = mapped_column(String(32), default="queued")
    phase_message: Mapped[str] = mapped_column(String(500), default="")
    accelerator: Mapped[str] = mapped_column(String(64))
    shape: Mapped[str] = mapped_column(String(64))
    backend: Mapped[str] = mapped_column(String(32))
    device: Mapped[str | None] = mapped_column(String(128))
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ready: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_activity: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason_message: Mapped[str | None] = mapped_column(String(500))
    max_lifetime_seconds: Mapped[float] = mapped_column(Float)
    idle_limit_seconds: Mapped[float] = mapped_column(Float)
    boot_id: Mapped[str | None] = mapped_column(String(64), comment="the boot the times below count in")
    ready_boottime: Mapped[float | None] = mapped_column(Float, comment="CLOCK_BOOTTIME, seconds")
    active_boottime: Mapped[float | None] = mapped_column(Float, comment="CLOCK_BOOTTIME, seconds")
    teams: Mapped[str | None] = mapped_column(Text, comment="groups of the user at the start, JSON list")
    cpus: Mapped[float | None] = mapped_column(Float, comment="cores")
    price: Mapped[float | None] = mapped_column(Float, comment="accelerator-hours an hour")
    extensions_used: Mapped[int | None] = mapped_column(Integer)
    extended_seconds: Mapped[float | None] = mapped_column(Float)
    budget_name: Mapped[str | None] = mapped_column(String(64))
    budget_seconds: Mapped[float | None] = mapped_column(Float, comment="after ready")
    used_seconds: Mapped[float | None] = mapped_column(Float, comment="from ready to the end")


class GrantRow(Base):
    """Hours added to budgets by administrators. Rows are only ever added."""

    __tablename__ = "quota_grants"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    budget: Mapped[str] = mapped_column(String(64))
    holder: Mapped[str] = mapped_column(String(255))
    hours: Mapped[float] = mapped_column(Float)
    note: Mapped[str] = mapped_column(String(200))
    by: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)


class ChoiceRow(Base):
    """What a user chose for all of their runtimes."""

    __tablename__ = "quota_choices"
    user: Mapped[str] = mapped_column(String(255), primary_key=True)
    keep_content: Mapped[bool] = mapped_column(Boolean)


class EventRow(Base):
    """What happened to sessions. Rows are added, and never changed or removed: triggers hold that."""

    __tablename__ = "quota_events"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    session_id: Mapped[str] = mapped_column(String(32), index=True)
    event: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class EpochRow(Base):
    """Who writes: one row, whose epoch grows with every instance that takes over."""

    __tablename__ = "quota_epoch"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)
    holder: Mapped[str] = mapped_column(String(255))
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True))


# Read by columns, not as objects that follow their changes: many rows are read, and few are changed.
_SESSIONS = SessionRow.metadata.tables[SessionRow.__tablename__]
_BY_ID = select(_SESSIONS).where(_SESSIONS.c.id == bindparam("wanted"))
_KNOWN, _USED_AT = _SESSIONS.c.active_boottime, bindparam("boot", type_=Float)
_NOTE_USE = (
    update(_SESSIONS)
    .where(_SESSIONS.c.id == bindparam("used"), or_(*(_SESSIONS.c.state == state for state in sorted(LIVE))))
    .values(
        last_activity=case(
            (_KNOWN > _USED_AT, _SESSIONS.c.last_activity),
            else_=bindparam("wall", type_=DateTime(timezone=True)),
        ),
        active_boottime=case((_KNOWN > _USED_AT, _KNOWN), else_=_USED_AT),
    )
)


class SqlLedger:
    """A quota.ports.Ledger."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._epoch: int | None = None
        self._open = threading.local()  # `db`: the transaction of `together`, in the thread that is in it
        prepare_database(engine)

    def take_over(self, holder: str, at: datetime) -> int:
        with Database(self._engine) as db, db.begin():
            # The update comes first: it takes the lock under which the epoch is read.
            taken = db.execute(
                update(EpochRow)
                .where(EpochRow.id == 1)
                .values(epoch=EpochRow.epoch + 1, holder=holder[:255], since=at)
                .returning(EpochRow.epoch)
            ).scalar()
            if taken is None:
                db.add(EpochRow(id=1, epoch=1, holder=holder[:255], since=at))
                taken = 1
        self._epoch = taken
        return taken

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._writing() as db:
            self._open.db = db
            try:
                yield
            finally:
                self._open.db = None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """What sees everything that was written so far, in an open transaction too."""
        db: Database | None = getattr(self._open, "db", None)
        if db is not None:
            db.flush()
            yield db.connection()
            return
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Database]:
        """A transaction that holds the write lock and the epoch from its first statement on. Raise Fenced."""
        open_one: Database | None = getattr(self._open, "db", None)
        if open_one is not None:
            yield open_one
            return
        with Database(self._engine) as db, db.begin():
            # Changes nothing; takes the write lock, and finds a row unless somebody took over.
            mine = update(EpochRow).where(EpochRow.id == 1).values(epoch=EpochRow.epoch)
            if self._epoch is None:
                db.execute(mine)
            elif not db.execute(mine.where(EpochRow.epoch == self._epoch).returning(EpochRow.epoch)).scalar():
                raise Fenced("Another control service has taken over.")
            yield db

    def begin(self, session: Session) -> None:
        try:
            with self._writing() as db:
                db.add(_row(session))
                db.add(_event(session.id, "created", created_detail(session), session.created))
        except IntegrityError:
            others = [s for s in self.live(session.user) if s.file_id == session.file_id]
            if not others:
                raise
            raise LiveExists(others[0]) from None

    def get(self, session_id: str) -> Session | None:
        with self._reading() as db:
            row = db.execute(_BY_ID, {"wanted": session_id}).first()
            return _session(row) if row is not None else None

    def live(self, user: str | None = None) -> list[Session]:
        query = (
            select(_SESSIONS).where(SessionRow.state.in_(LIVE)).order_by(SessionRow.created, SessionRow.id)
        )
        if user is not None:
            query = query.where(SessionRow.user == user)
        with self._reading() as db:
            return [_session(row) for row in db.execute(query)]

    def find(self, which: Filter, offset: int, limit: int) -> tuple[list[Session], int]:
        query, count = select(_SESSIONS), select(func.count()).select_from(SessionRow)
        conditions = [
            *([SessionRow.user == which.user] if which.user is not None else []),
            *([SessionRow.file_id == which.file_id] if which.file_id is not None else []),
            *([SessionRow.state.in_(which.states)] if which.states is not None else []),
        ]
        query = query.where(*conditions).order_by(SessionRow.created.desc(), SessionRow.id)
        with self._reading() as db:
            found = [_session(row) for row in db.execute(query.offset(offset).limit(limit))]
            return found, db.scalar(count.where(*conditions)) or 0

    def move(
        self, session_id: str, state: State, at: datetime, fields: Mapping[str, object] | None = None
    ) -> Session:
        with self._writing() as db:
            row = _the(db, session_id)
            if state in MOVES[State(row.state)]:
                row.state = state
                _set(row, fields or {})
                db.add(_event(session_id, state, _reason_detail(row), at))
            return _session(row)

    def note(self, session_id: str, fields: Mapping[str, object]) -> Session:
        with self._writing() as db:
            row = _the(db, session_id)
            if State(row.state) in LIVE:
                _set(row, fields)
            return _session(row)

    def note_use(self, uses: Mapping[str, tuple[datetime, float]]) -> None:
        values = [{"used": i, "wall": wall, "boot": boot} for i, (wall, boot) in uses.items()]
        if not values:
            return
        with self._writing() as db:
            db.connection().execute(_NOTE_USE, values)

    def end(
        self, session_id: str, state: State, reason: Reason, at: datetime, used_seconds: float
    ) -> Session:
        with self._writing() as db:
            row = _the(db, session_id)
            if State(row.state) in LIVE:
                row.state = state if state in MOVES[State(row.state)] else State.ENDED
                row.ended, row.reason_code, row.reason_message = at, reason.code[:64], reason.message[:500]
                row.used_seconds = used_seconds
                db.add(
                    _event(session_id, row.state, {**_reason_detail(row), "used_seconds": used_seconds}, at)
                )
            return _session(row)

    def record(self, session_id: str, event: str, detail: Mapping[str, object], at: datetime) -> None:
        with self._writing() as db:
            db.add(_event(session_id, event, detail, at))

    def metered(self, since: datetime) -> list[Session]:
        query = (
            select(_SESSIONS)
            .where(SessionRow.ready.is_not(None), or_(SessionRow.state.in_(LIVE), SessionRow.ended >= since))
            .order_by(SessionRow.created, SessionRow.id)
        )
        with self._reading() as db:
            return [_session(row) for row in db.execute(query)]

    def grant(self, grant: Grant) -> None:
        with self._writing() as db:
            db.add(
                GrantRow(
                    budget=grant.budget,
                    holder=grant.holder,
                    hours=grant.hours,
                    note=grant.note[:200],
                    by=grant.by,
                    at=grant.at,
                )
            )

    def grants(self, since: datetime) -> list[Grant]:
        query = select(GrantRow.__table__).where(GrantRow.at >= since).order_by(GrantRow.number)
        with self._reading() as db:
            return [
                Grant(row.budget, row.holder, row.hours, row.note, row.by, _utc(row.at))
                for row in db.execute(query)
            ]

    def keep_content(self, user: str, keep: bool) -> None:
        with self._writing() as db:
            db.merge(ChoiceRow(user=user, keep_content=keep))

    def keeps_content(self, user: str) -> bool:
        with self._reading() as db:
            return bool(db.scalar(select(ChoiceRow.keep_content).where(ChoiceRow.user == user)))

    def events(self, session_id: str) -> list[tuple[str, dict[str, object], datetime]]:
        query = select(EventRow.__table__).where(EventRow.session_id == session_id).order_by(EventRow.number)
        with self._reading() as db:
            return [(row.event, json.loads(row.detail), _utc(row.at)) for row in db.execute(query)]


def _the(db: Database, session_id: str) -> SessionRow:
    row = db.get(SessionRow, session_id, with_for_update=True)
    if row is None:
        raise NoSession(session_id)
    return row


def _set(row: SessionRow, fields: Mapping[str, object]) -> None:
    for name, value in fields.items():
        if isinstance(value, Reason):
            row.reason_code, row.reason_message = value.code[:64], value.message[:500]
        else:
            setattr(row, name, value)


def _reason_detail(row: SessionRow) -> dict[str, object]:
    return {"code": row.reason_code, "message": row.reason_message} if row.reason_code is not None else {}


def _event(session_id: str, name: str, detail: Mapping[str, object], at: datetime) -> EventRow:
    return EventRow(session_id=session_id, event=name, detail=json.dumps(dict(detail)), at=at)


def _row(s: Session) -> SessionRow:
    return SessionRow(
        id=s.id,
        user=s.user,
        file_id=s.file_id,
        file_name=s.file_name,
        state=s.state,
        phase=s.phase,
        phase_message=s.phase_message,
        accelerator=s.accelerator,
        shape=s.shape,
        backend=s.backend,
        device=s.device,
        created=s.created,
        ready=s.ready,
        last_activity=s.last_activity,
        ended=s.ended,
        reason_code=s.reason.code if s.reason else None,
        reason_message=s.reason.message if s.reason else None,
        max_lifetime_seconds=s.max_lifetime_seconds,
        idle_limit_seconds=s.idle_limit_seconds,
        boot_id=s.boot_id,
        ready_boottime=s.ready_boottime,
        active_boottime=s.active_boottime,
        teams=json.dumps(sorted(s.teams)),
        cpus=s.cpus,
        price=s.price,
        extensions_used=s.extensions_used,
        extended_seconds=s.extended_seconds,
        budget_name=s.budget_name,
        budget_seconds=s.budget_seconds,
        used_seconds=s.used_seconds,
    )


def _session(row: SessionRow | Row[Any]) -> Session:
    reason = Reason(row.reason_code, row.reason_message or "") if row.reason_code is not None else None
    return Session(
        id=row.id,
        user=row.user,
        file_id=row.file_id,
        file_name=row.file_name,
        state=State(row.state),
        phase=row.phase,
        phase_message=row.phase_message,
        accelerator=row.accelerator,
        shape=row.shape,
        backend=row.backend,
        device=row.device,
        created=_utc(row.created),
        ready=_utc(row.ready) if row.ready else None,
        last_activity=_utc(row.last_activity) if row.last_activity else None,
        ended=_utc(row.ended) if row.ended else None,
        reason=reason,
        max_lifetime_seconds=row.max_lifetime_seconds,
        idle_limit_seconds=row.idle_limit_seconds,
        boot_id=row.boot_id,
        ready_boottime=row.ready_boottime,
        active_boottime=row.active_boottime,
        teams=_teams(row.teams),
        cpus=row.cpus or 0.0,
        price=row.price or 0.0,
        extensions_used=row.extensions_used or 0,
        extended_seconds=row.extended_seconds or 0.0,
        budget_name=row.budget_name,
        budget_seconds=row.budget_seconds,
        used_seconds=row.used_seconds,
    )


@functools.lru_cache(maxsize=1024)
def _teams(text: str | None) -> frozenset[str]:
    return frozenset(json.loads(text or "[]"))


def _utc(value: datetime) -> datetime:
    """SQLite gives times back without their zone; they were stored as UTC."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
