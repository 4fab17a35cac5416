"""A stand-in for a backend: its runtimes are files in a folder.

Openly a fake: the real ones run in tests/contract. The folder is shared by the process of the test, the fake hub, and a control
service in a process of its own, so that any of them can be killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

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
from spawner.ports import BackendError, OnPhase

LOOK_SECONDS = 0.01


class FileBackend:
    """A spawner.ports.RuntimeBackend whose runtimes are files in a folder: `<id>.json` lives, `<id>.end` says why it ended."""

    name = "fake"
    keeps_content = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.only_from_start = False  # whether a drive can not be brought into a running runtime
        folder.mkdir(parents=True, exist_ok=True)

    def _file(self, runtime_id: str) -> Path:
        return self._folder / f"{runtime_id}.json"

    def _read(self, runtime_id: str) -> dict[str, Any]:
        try:
            data: dict[str, Any] = json.loads(self._file(runtime_id).read_text())
            return data
        except FileNotFoundError:
            raise BackendError("no_such_runtime", "This runtime is not there any more.") from None

    def _write(self, runtime_id: str, data: dict[str, Any]) -> None:
        draft = self._folder / f".{runtime_id}.{os.getpid()}"
        draft.write_text(json.dumps(data))
        draft.replace(self._file(runtime_id))

    def change(self, runtime_id: str, **values: Any) -> None:
        self._write(runtime_id, {**self._read(runtime_id), **values})

    def crash(self, runtime_id: str, code: str = "crashed") -> None:
        """Let a runtime end by itself."""
        (self._folder / f"{runtime_id}.end").write_text(json.dumps([code, f"It ended: {code}."]))
        self._file(runtime_id).unlink()

    def put(self, runtime_id: str, user: str = "ada", file_id: str = "nb-ada") -> None:
        """Make a runtime nobody asked for."""
        data = {
            "user": user,
            "file_id": file_id,
            "ready": time.clock_gettime(time.CLOCK_BOOTTIME),
            "used": time.clock_gettime(time.CLOCK_BOOTTIME),
            "mounts": {},
            "drive": None,
        }
        self._write(runtime_id, data)

    async def start(self, spec: RuntimeSpec, on_phase: OnPhase) -> Endpoint:
        on_phase(Phase.SANDBOX)
        self.put(spec.id, spec.user, spec.file_id)
        self.change(spec.id, drive=spec.drive.id if spec.drive is not None else None)
        on_phase(Phase.SERVER)
        return Endpoint("127.0.0.1", 1)

    async def stop(self, runtime_id: str, *, reason: EndReason, grace_seconds: float) -> None:
        if self._file(runtime_id).exists():
            (self._folder / f"{runtime_id}.end").write_text(json.dumps([reason.code, reason.message]))
            self._file(runtime_id).unlink(missing_ok=True)

    async def observe(self, runtime_id: str) -> Observed | None:
        try:
            data = self._read(runtime_id)
        except BackendError:
            return None
        return Observed(runtime_id, data["user"], data["file_id"], "ready", None, data["ready"])

    def silence(self, on: bool) -> None:
        """Let the backend answer no question about what there is, or answer again; for every process."""
        (self._folder / "silent").touch() if on else (self._folder / "silent").unlink()

    async def list_all(self) -> list[Observed]:
        if (self._folder / "silent").exists():
            raise BackendError("cluster_unavailable", "The cluster does not answer.")
        found = [await self.observe(p.stem) for p in self._folder.glob("*.json")]
        return [o for o in found if o is not None]

    async def wait_end(self, runtime_id: str) -> EndReason:
        while self._file(runtime_id).exists():
            await asyncio.sleep(LOOK_SECONDS)
        try:
            return EndReason(*json.loads((self._folder / f"{runtime_id}.end").read_text()))
        except FileNotFoundError:
            return EndReason("lost", "The machine disappeared without saying why.")

    async def mount(self, runtime_id: str, *, source: str, target: str, readonly: bool) -> None:
        mounts = self._read(runtime_id)["mounts"]
        if self.only_from_start and self._read(runtime_id)["drive"] != Path(source).name:
            raise BackendError("restart_needed", "It needs a restart.")
        if target in mounts:
            raise BackendError("mountpoint_in_use", "Something is mounted there already.")
        self.change(runtime_id, mounts={**mounts, target: [source, readonly]})

    async def unmount(self, runtime_id: str, *, target: str) -> None:
        mounts = self._read(runtime_id)["mounts"]
        if target not in mounts:
            raise BackendError("not_mounted", "Nothing is mounted there.")
        self.change(runtime_id, mounts={k: v for k, v in mounts.items() if k != target})

    async def mounts(self, runtime_id: str) -> list[MountPoint]:
        return [MountPoint(k, v[1]) for k, v in self._read(runtime_id)["mounts"].items()]

    async def resources(self, runtime_id: str) -> Resources:
        self._read(runtime_id)
        return Resources(1, 2, 3, 4, 5)

    async def activity(self, runtime_id: str) -> Activity:
        data = self._read(runtime_id)
        if data.get("silent"):
            raise BackendError("no_such_runtime", "It does not answer.")
        return Activity(False, max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - data["used"]))

    async def touch(self, runtime_id: str) -> None:
        self._read(runtime_id)
        self.change(runtime_id, used=time.clock_gettime(time.CLOCK_BOOTTIME))

    async def set_limits(
        self,
        runtime_id: str,
        *,
        max_lifetime_seconds: float,
        idle_limit_seconds: float,
        budget: Budget | None = None,
    ) -> None:
        carried = budget.seconds if budget is not None else None
        self.change(runtime_id, limits=[max_lifetime_seconds, idle_limit_seconds], budget=carried)

    async def set_snapshot(self, runtime_id: str, *, snapshot_bytes: int) -> None:
        self.change(runtime_id, snapshot_bytes=snapshot_bytes)

    async def left_behind(self, runtime_id: str) -> LeftBehind | None:
        left = self._folder / f"{runtime_id}.tar.gz"
        said = self._folder / f"{runtime_id}.said"
        executions = tuple(json.loads(said.read_text())) if said.exists() else ()
        note = self._folder / f"{runtime_id}.note"
        snapshot, why_not = left if left.exists() else None, note.read_text() if note.exists() else ""
        return LeftBehind(executions, snapshot, why_not) if executions or snapshot or why_not else None

    async def forget(self, runtime_id: str) -> None:
        for kind in ("tar.gz", "said", "note"):
            (self._folder / f"{runtime_id}.{kind}").unlink(missing_ok=True)

    async def restore(self, runtime_id: str, *, snapshot: Path) -> int:
        self.change(runtime_id, restored=snapshot.read_text())
        return 1

    async def logs(self, runtime_id: str) -> str:
        return ""

    def leave(self, runtime_id: str, content: str | None = None, *, why_not: str = "") -> None:
        """Let a runtime leave a snapshot behind, or the reason why there is none; before it ends."""
        if content is not None:
            (self._folder / f"{runtime_id}.tar.gz").write_text(content)
        (self._folder / f"{runtime_id}.note").write_text(why_not)

    def say(self, runtime_id: str, executions: list[dict[str, Any]]) -> None:
        """Let a runtime leave its executions behind; before it ends."""
        (self._folder / f"{runtime_id}.said").write_text(json.dumps(executions))

    def left_nothing(self, runtime_id: str) -> bool:
        """Whether what a runtime left has been forgotten."""
        return not any((self._folder / f"{runtime_id}.{kind}").exists() for kind in ("tar.gz", "said"))

    def carried(self, runtime_id: str) -> dict[str, Any]:
        """Return what a runtime was told of its limits."""
        return self._read(runtime_id)

    def isolation(self) -> IsolationReport:
        return IsolationReport("fake", (), ("everything",))
