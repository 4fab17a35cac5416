"""A runtime as its supervisor is told of it: plain values that fit into JSON. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spawner.model import Budget, RuntimeSpec


def describe(spec: RuntimeSpec, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what any supervisor needs to hold the runtime; `environment` is that of its server."""
    return {
        "id": spec.id,
        "user": spec.user,
        "file_id": spec.file_id,
        "base_url": spec.base_url,
        "shape": asdict(spec.shape),
        "max_lifetime_seconds": spec.max_lifetime_seconds,
        "idle_limit_seconds": spec.idle_limit_seconds,
        "budget": carried(spec.budget),
        "snapshot_bytes": spec.snapshot_bytes,
        "ticket_key": base64.b64encode(spec.ticket_key).decode(),
        "environment": dict(environment),
    }


def server_environment(spec: RuntimeSpec, host: str, port: int) -> dict[str, str]:
    """Return the environment that tells the runtime's server what it is; `port` 0: any free one."""
    return {
        **spec.environment,
        "MINICOLAB_RUNTIME_ID": spec.id,
        "MINICOLAB_USER": spec.user,
        "MINICOLAB_FILE_ID": spec.file_id,
        "MINICOLAB_BASE_URL": spec.base_url,
        "MINICOLAB_HOST": host,
        "MINICOLAB_PORT": str(port),
        "MINICOLAB_ALLOW_ORIGIN": spec.allow_origin,
        "MINICOLAB_CONTROL_URL": spec.control_url,
        "MINICOLAB_PUBLIC_URL": spec.public_control_url,
        "MINICOLAB_PRESTART": "1",
    }


def carried(budget: Budget | None) -> dict[str, Any] | None:
    """Return a budget as the supervisor carries it."""
    if budget is None:
        return None
    return {"seconds": budget.seconds, "code": budget.reason.code, "message": budget.reason.message}
