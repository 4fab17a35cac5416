"""A session and its limits, as tests of quota use them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from quota.model import Limits, Moment, Session, State
from quota.service import new_runtime_id

LIMITS = Limits(
    max_lifetime_seconds=43_200, idle_limit_seconds=5_400, warn_before_seconds=(600, 300, 60), max_runtimes=2
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOOT = "boot-1"
READY_AT = 5_000.0


def at(seconds: float, *, wall_step: float = 0.0, boot_id: str = BOOT) -> Moment:
    """Return the moment `seconds` after NOW, with the wall clock set forward by `wall_step`."""
    return Moment(NOW + timedelta(seconds=seconds + wall_step), READY_AT + seconds, boot_id)


def a_session(**changes: object) -> Session:
    session = Session(
        id=new_runtime_id(),
        user="ada",
        file_id="f1",
        file_name="a.ipynb",
        state=State.READY,
        phase="ready",
        phase_message="",
        accelerator="NONE",
        shape="STANDARD",
        backend="local",
        device=None,
        created=NOW,
        ready=NOW,
        last_activity=NOW,
        ended=None,
        reason=None,
        max_lifetime_seconds=43_200,
        idle_limit_seconds=5_400,
        boot_id=BOOT,
        ready_boottime=READY_AT,
        active_boottime=READY_AT,
    )
    return replace(session, **changes)  # type: ignore[arg-type]
