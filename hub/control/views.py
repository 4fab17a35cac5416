"""The JSON shapes control answers with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from quota import policy
from quota.budgets import HOUR
from quota.metering import Usage
from quota.model import Balance, Grant, Limits, Moment, Session, State
from quota.windows import name_of


def session_model(session: Session, now: Moment, limits: Limits) -> dict[str, Any]:
    """Return a runtime as the API shows it. Times are ISO 8601 in UTC. `limits` are what the settings give it now."""
    ends = policy.ends_of(session, now) if session.state is State.READY else []
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
        "device": session.device,
        "created": iso(session.created),
        "ready": iso(session.ready),
        "last_activity": iso(session.last_activity),
        "deadline": iso(policy.deadline(session, now)),
        "idle_deadline": iso(policy.idle_deadline(session, now)),
        "budget_deadline": iso(policy.budget_deadline(session, now)),
        "end": {
            "kind": ends[0].kind,
            "at": iso(_at(session, ends[0].kind, now)),
            "seconds_left": round(max(0.0, ends[0].seconds_left), 1),
        }
        if ends
        else None,
        "limits": {
            "max_lifetime_seconds": session.max_lifetime_seconds,
            "idle_limit_seconds": session.idle_limit_seconds,
        },
        "extension": {
            "left": max(0, limits.extensions - session.extensions_used),
            "by_seconds": limits.extend_by_seconds,
        },
        "ended": iso(session.ended),
        "used_seconds": round(session.used_seconds, 3) if session.used_seconds is not None else None,
        "reason": {"code": session.reason.code, "message": session.reason.message}
        if session.reason is not None
        else None,
    }


def _at(session: Session, kind: str, now: Moment) -> datetime | None:
    which = {policy.LIFETIME: policy.deadline, policy.IDLE: policy.idle_deadline}
    return which.get(kind, policy.budget_deadline)(session, now)


def limits_model(limits: Limits) -> dict[str, Any]:
    """Return limits as the API shows them."""
    return {
        "max_lifetime_seconds": limits.max_lifetime_seconds,
        "idle_limit_seconds": limits.idle_limit_seconds,
        "warn_before_seconds": sorted(limits.warn_before_seconds, reverse=True),
        "max_runtimes": limits.max_runtimes,
        "extensions": limits.extensions,
        "extend_by_seconds": limits.extend_by_seconds,
    }


def balance_model(balance: Balance) -> dict[str, Any]:
    """Return a budget and what is left of it. Numbers are hours of its unit."""
    budget = balance.budget
    return {
        "name": budget.name,
        "per": budget.per,
        "holder": balance.holder,
        "unit": budget.unit,
        "accelerators": sorted(budget.accelerators) if budget.accelerators is not None else None,
        "limit": round(balance.limit, 6),
        "granted": round(balance.granted, 6),
        "used": round(balance.used, 6),
        "left": round(balance.left, 6),
        "rate_per_hour": round(balance.rate, 6),
        "window": name_of(budget.window),
        "resets_at": iso(balance.resets_at),
        "lasts_until": iso(balance.lasts_until),
    }


def usage_model(usage: Usage, by: str | None = None) -> dict[str, Any]:
    """Return a line of a usage report; `by` names what its key is."""
    return {
        **({by: usage.key} if by is not None else {}),
        "sessions": usage.sessions,
        "seconds": round(usage.seconds, 3),
        "hours": round(usage.seconds / HOUR, 6),
        "accelerator_hours": round(usage.accelerator_hours, 6),
        "cpu_hours": round(usage.cpu_hours, 6),
    }


def grant_model(grant: Grant) -> dict[str, Any]:
    """Return what an administrator granted."""
    return {
        "budget": grant.budget,
        "holder": grant.holder,
        "hours": grant.hours,
        "note": grant.note,
        "by": grant.by,
        "at": iso(grant.at),
    }


def iso(value: datetime | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if value is not None else None
