"""A refusal as the API answers it: code, sentence, numbers, when it changes, and the next best offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpu_scheduler.model import NONE
from hub.control.views import iso
from hub.web.errors import ApiError
from quota import policy
from quota.model import Allowed, Denied, Kind, Session, Who

if TYPE_CHECKING:
    from hub.control.handlers import Control

FORBIDDEN = frozenset({"not_eligible", "extend_not_allowed"})


def as_refusal(control: Control, denied: Denied, who: Who, kind: Kind) -> ApiError:
    """Return the error for a runtime of `kind` that `who` may not start."""
    return ApiError(
        403 if denied.code in FORBIDDEN else 409,
        denied.code,
        denied.message,
        **numbers_of(denied),
        offer=_offer(control, denied, who, kind),
    )


def numbers_of(denied: Denied) -> dict[str, Any]:
    """Return the numbers behind a refusal as the API shows them."""
    return {
        "limit": _number(denied.limit),
        "used": _number(denied.used),
        "unit": denied.unit or None,
        "resets_at": iso(denied.resets_at),
    }


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 6)


def _offer(control: Control, denied: Denied, who: Who, kind: Kind) -> dict[str, Any] | None:
    if denied.code == "too_many_runtimes":
        oldest = min(control.sessions.ledger.live(who.user), key=_last_use, default=None)
        if oldest is None:
            return None
        message = f"End the runtime of '{oldest.file_name}', which was not used for longest."
        return {"kind": "stop", "runtime_id": oldest.id, "message": message}
    for name in _candidates(control, kind.accelerator):
        other = Kind(name, kind.shape)
        if _may(control, who, other):
            what = "without an accelerator" if name == NONE else f"with {name}"
            return {"kind": "accelerator", "accelerator": name, "message": f"Connect {what}."}
    if denied.resets_at is not None:
        return {"kind": "wait", "message": "There is more when the budget fills up again."}
    return None


def _candidates(control: Control, wanted: str) -> list[str]:
    """Return the other accelerators that are free now, and none at last."""
    held = frozenset(s.device for s in control.sessions.ledger.live() if s.device is not None)
    free = [
        f.name
        for f in control.accelerators.flavors(held)
        if f.available and f.reason is None and f.name != wanted
    ]
    return sorted(free, key=lambda name: name == NONE)


def _may(control: Control, who: Who, kind: Kind) -> bool:
    ends = control.orchestrator.ends
    live = control.sessions.ledger.live(who.user)
    shape = control.service.settings.runtimes.shapes.get(kind.shape)
    balances = ends.balances(who, kind, shape.cpus if shape is not None else 0.0)
    return isinstance(policy.may_start(ends.limits(who, kind), live, kind, balances), Allowed)


def _last_use(session: Session) -> Any:
    return session.last_activity or session.created
