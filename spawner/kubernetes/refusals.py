"""What a fault of the API server means for a person."""

from __future__ import annotations

from spawner.kubernetes.client import ApiFault
from spawner.ports import BackendError

UNAVAILABLE = "cluster_unavailable"


def refusal(fault: ApiFault) -> BackendError:
    """Return what a person is told of a fault."""
    text = str(fault)
    if fault.status == 403 and "exceeded quota" in text:
        return BackendError("cluster_quota", "The cluster's quota for runtimes is used up. Try again later.")
    if fault.status == 403 and "violates PodSecurity" in text:
        return BackendError("pod_refused", f"The cluster does not allow such a machine: {_short(text)}")
    if fault.status in (401, 403):
        return BackendError("cluster_denied", f"The cluster does not let minicolab do this: {_short(text)}")
    if fault.status in (0, 429) or fault.status >= 500:
        return BackendError(UNAVAILABLE, "The cluster does not answer. Try again in a moment.")
    return BackendError("start_failed", f"The cluster refused: {_short(text)}")


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:299] + "…"
