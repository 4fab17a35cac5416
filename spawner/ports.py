"""What hub and control ask of any backend. The same contract tests run on every one (tests/contract)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from spawner.model import (
    Activity,
    Budget,
    Endpoint,
    EndReason,
    IsolationReport,
    LeftBehind,
    MountPoint,
    Observed,
    Phase,
    Resources,
    RuntimeSpec,
)


class OnPhase(Protocol):
    """Is told how far a start has come; a phase may be told again with another sentence."""

    def __call__(self, phase: Phase, sentence: str = "") -> None:
        """`sentence` says more than PHASE_SENTENCES does, such as what is waited for."""
        ...


class BackendError(Exception):
    """The backend can not do it; `code` is stable, the text is one sentence for the user."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RuntimeBackend(Protocol):
    """Runs runtimes. Keeps no state of its own: what exists is found by looking."""

    name: str
    keeps_content: bool  # whether it can set /content of an ended runtime aside, and put it into a later one

    async def start(self, spec: RuntimeSpec, on_phase: OnPhase) -> Endpoint:
        """Start a runtime; return once its server answers. Raise BackendError; then nothing of it is left."""
        ...

    async def stop(self, runtime_id: str, *, reason: EndReason, grace_seconds: float) -> None:
        """End a runtime and return once nothing of it is left. Ending one that does not exist is no error.

        `grace_seconds` is how long its server may take to end by itself; 0 kills at once.
        """
        ...

    async def observe(self, runtime_id: str) -> Observed | None:
        """Return the runtime as it is now, None when there is none."""
        ...

    async def list_all(self) -> list[Observed]:
        """Return every runtime there is, by looking at the machine."""
        ...

    async def wait_end(self, runtime_id: str) -> EndReason:
        """Return why the runtime ended, at once when it does; the reason it left behind when it ended before.

        Who carries the ledger asks, nobody else; the reason stays until the runtime is forgotten.
        """
        ...

    async def mount(self, runtime_id: str, *, source: str, target: str, readonly: bool) -> None:
        """Make the folder `source` visible inside at `<target>/MyDrive` and `<target>/My Drive`.

        Raise BackendError: bad_mountpoint, mountpoint_not_empty, no_such_drive, mount_failed, no_such_runtime, and restart_needed where
        a drive can only be there from the start (`RuntimeSpec.drive`).
        """
        ...

    async def unmount(self, runtime_id: str, *, target: str) -> None:
        """Take the mount at `target` away again. Raise BackendError `not_mounted`."""
        ...

    async def mounts(self, runtime_id: str) -> list[MountPoint]:
        """Return the drives that are mounted in the runtime now."""
        ...

    async def resources(self, runtime_id: str) -> Resources:
        """Return what the runtime uses. Raise BackendError `no_such_runtime`."""
        ...

    async def activity(self, runtime_id: str) -> Activity:
        """Return when the runtime was last used, judged from outside its user's code."""
        ...

    async def touch(self, runtime_id: str) -> None:
        """Count a person's action as use: the idle time begins anew. Only control calls it, for the owner."""
        ...

    async def set_limits(
        self,
        runtime_id: str,
        *,
        max_lifetime_seconds: float,
        idle_limit_seconds: float,
        budget: Budget | None = None,
    ) -> None:
        """Change the limits a runtime carries."""
        ...

    async def set_snapshot(self, runtime_id: str, *, snapshot_bytes: int) -> None:
        """Change how many bytes of /content are kept at its end."""
        ...

    async def left_behind(self, runtime_id: str) -> LeftBehind | None:
        """Return what an ended runtime left, None when it left nothing; it stays until it is forgotten."""
        ...

    async def forget(self, runtime_id: str) -> None:
        """Remove what an ended runtime left."""
        ...

    async def restore(self, runtime_id: str, *, snapshot: Path) -> int:
        """Unpack a snapshot into /content of a ready runtime; return how many files. Existing files stay as they are."""
        ...

    async def logs(self, runtime_id: str) -> str:
        """Return the end of what the runtime's server wrote. Raise BackendError `no_such_runtime`."""
        ...

    def isolation(self) -> IsolationReport:
        """Return what this backend keeps apart on this machine."""
        ...
