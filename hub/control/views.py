"""The JSON shapes control answers with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from quota import policy
from quota.model import Moment, Session


def session_model(session: Session, now: Moment) -> dict[str, Any]:
    """Return a runtime as the API shows it. Times are ISO 8601 in UTC."""
    return {
        "id": session.id,
        "file_id": session.file_id,
        "file_name": session.file_name,
        "user": session.user,
        "server_name": session.id,
        "state": session.state,
        "phase": session.phase,
        "phase_message": session.phase_message,
        "accelerator": session.accelerator,
        "shape": session.shape,
        "backend": session.backend,
        "created": iso(session.created),
        "ready": iso(session.ready),
        "last_activity": iso(session.last_activity),
        "deadline": iso(policy.deadline(session, now)),
        "idle_deadline": iso(policy.idle_deadline(session, now)),
        "ended": iso(session.ended),
        "reason": {"code": session.reason.code, "message": session.reason.message}
        if session.reason is not None
        else None,
    }


def iso(value: datetime | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if value is not None else None
