"""What every backend asks of a runtime's supervisor, whatever way leads to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from spawner.description import carried
from spawner.model import Activity, Budget, EndReason, MountPoint, Resources
from spawner.ports import BackendError


class Supervised(ABC):
    """The part of a RuntimeBackend that is nothing but requests (spawner.supervisor.life answers them)."""

    @abstractmethod
    async def _call(self, runtime_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """Ask the supervisor of a runtime. Raise BackendError: no_such_runtime, no_answer, or what it refuses with."""

    async def resources(self, runtime_id: str) -> Resources:
        return Resources(**await self._call(runtime_id, {"op": "resources"}))

    async def activity(self, runtime_id: str) -> Activity:
        return Activity(**await self._call(runtime_id, {"op": "activity"}))

    async def logs(self, runtime_id: str) -> str:
        return str((await self._call(runtime_id, {"op": "logs"}))["text"])

    async def mounts(self, runtime_id: str) -> list[MountPoint]:
        return [MountPoint(**m) for m in (await self._call(runtime_id, {"op": "mounts"}))["mounts"]]

    async def touch(self, runtime_id: str) -> None:
        await self._call(runtime_id, {"op": "touch"})

    async def set_limits(
        self,
        runtime_id: str,
        *,
        max_lifetime_seconds: float,
        idle_limit_seconds: float,
        budget: Budget | None = None,
    ) -> None:
        request = {
            "op": "limits",
            "max_lifetime_seconds": max_lifetime_seconds,
            "idle_limit_seconds": idle_limit_seconds,
            "budget": carried(budget),
        }
        await self._call(runtime_id, request)

    async def set_snapshot(self, runtime_id: str, *, snapshot_bytes: int) -> None:
        await self._call(runtime_id, {"op": "snapshot", "bytes": snapshot_bytes})


def stop_request(reason: EndReason, grace_seconds: float) -> dict[str, Any]:
    """Return what a supervisor is asked to end its runtime with."""
    return {"op": "stop", "code": reason.code, "message": reason.message, "grace_seconds": grace_seconds}


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a supervisor's answer. Raise BackendError for a refusal."""
    if "error" in answer:
        raise BackendError(answer["error"]["code"], answer["error"]["message"])
    return answer


def gone() -> BackendError:
    """Return the refusal for a runtime that is not there."""
    return BackendError("no_such_runtime", "This runtime is not there any more.")
