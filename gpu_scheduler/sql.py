"""Claims and leases in control's database (SQLite or PostgreSQL). A slot is a primary key: it has one lease or none."""

from __future__ import annotations

import json

from sqlalchemy import Engine, Index, Integer, String, Text, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from gpu_scheduler.model import Claim, ClaimState
from gpu_scheduler.ports import SlotTaken


class Base(DeclarativeBase):
    """The tables of this package."""


class ClaimRow(Base):
    __tablename__ = "gpu_claims"
    __table_args__ = (Index("gpu_claims_by_state", "state"),)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user: Mapped[str] = mapped_column(String(255))
    teams: Mapped[str] = mapped_column(Text, comment="JSON list")
    flavor: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    slots: Mapped[str] = mapped_column(Text, comment="JSON list; what was granted, also after the end")
    epoch: Mapped[int] = mapped_column(Integer)


class LeaseRow(Base):
    """Who has a slot now."""

    __tablename__ = "gpu_leases"
    slot: Mapped[str] = mapped_column(String(512), primary_key=True)
    claim_id: Mapped[str] = mapped_column(String(32), index=True)
    epoch: Mapped[int] = mapped_column(Integer)


class SqlClaims:
    """Claims in a database whose tables exist (quota.migrations)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ask(self, claim: Claim) -> Claim:
        try:
            with Session(self._engine) as db, db.begin():
                db.add(
                    ClaimRow(
                        id=claim.id,
                        user=claim.user,
                        teams=json.dumps(sorted(claim.teams)),
                        flavor=claim.flavor,
                        state=ClaimState.WAITING,
                        slots="[]",
                        epoch=0,
                    )
                )
        except IntegrityError:
            pass  # it was asked for before
        found = self.get(claim.id)
        assert found is not None
        return found

    def get(self, claim_id: str) -> Claim | None:
        with Session(self._engine) as db:
            row = db.scalar(select(ClaimRow).where(ClaimRow.id == claim_id))
            return _claim(row) if row is not None else None

    def live(self) -> list[Claim]:
        with Session(self._engine) as db:
            rows = db.scalars(
                select(ClaimRow).where(ClaimRow.state != ClaimState.ENDED).order_by(ClaimRow.number)
            )
            return [_claim(row) for row in rows]

    def grant(self, claim_id: str, slots: tuple[str, ...]) -> Claim | None:
        try:
            with Session(self._engine) as db, db.begin():
                changed = db.execute(
                    update(ClaimRow)
                    .where(ClaimRow.id == claim_id, ClaimRow.state == ClaimState.WAITING)
                    .values(state=ClaimState.GRANTED, slots=json.dumps(slots), epoch=ClaimRow.epoch + 1)
                )
                if changed.rowcount != 1:  # type: ignore[attr-defined]
                    return None
                row = db.scalars(select(ClaimRow).where(ClaimRow.id == claim_id)).one()
                db.add_all(LeaseRow(slot=slot, claim_id=claim_id, epoch=row.epoch) for slot in slots)
                db.flush()
                return _claim(row)
        except IntegrityError as error:
            raise SlotTaken from error

    def end(self, claim_id: str) -> None:
        with Session(self._engine) as db, db.begin():
            db.execute(update(ClaimRow).where(ClaimRow.id == claim_id).values(state=ClaimState.ENDED))
            db.execute(delete(LeaseRow).where(LeaseRow.claim_id == claim_id))


def _claim(row: ClaimRow) -> Claim:
    return Claim(
        row.id,
        row.user,
        frozenset(json.loads(row.teams)),
        row.flavor,
        row.number,
        ClaimState(row.state),
        tuple(json.loads(row.slots)),
        row.epoch,
    )
