"""What each kernel is doing and has just done, known without any page attached.

A page that is reloaded, or opened on another computer, asks here which cells are running or queued and what they have printed
so far. Requests are seen where they pass the websocket, their course in the kernel's iopub messages, which this server reads
for itself. One clock: CLOCK_BOOTTIME seconds, passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from minicolab_runtime.changes import Changes
from minicolab_runtime.outputs import Json, OutputLog

MAX_FINISHED = 200  # finished executions remembered of each kernel
MAX_FINISHED_BYTES = 50_000_000  # and about how much output they may hold together

State = Literal["queued", "running", "done"]
Status = Literal["ok", "error", "aborted", "died"]


@dataclass
class Execution:
    """One execute_request: `started_boot` is when it began to run (CLOCK_BOOTTIME seconds), None while queued."""

    msg_id: str
    session: str
    cell_id: str | None
    submitted: datetime
    submitted_boot: float
    state: State = "queued"
    status: Status | None = None
    started: datetime | None = None
    started_boot: float | None = None
    finished_boot: float | None = None
    execution_count: int | None = None
    input: Json | None = None  # the question of an input() that waits for an answer
    failed: bool = False
    changed: int = 0  # number of the latest change (minicolab_runtime.changes)
    outputs: OutputLog = field(default_factory=OutputLog)

    def model(self, now: float) -> Json:
        """Return the JSON a page reads. `now` is CLOCK_BOOTTIME seconds."""
        end = self.finished_boot if self.finished_boot is not None else now
        return {
            "msg_id": self.msg_id,
            "cell_id": self.cell_id,
            "session": self.session,
            "submitted": self.submitted.isoformat(),
            "started": None if self.started is None else self.started.isoformat(),
            "elapsed_seconds": None if self.started_boot is None else round(end - self.started_boot, 3),
            "state": self.state,
            "status": self.status,
            "execution_count": self.execution_count,
            "input": self.input,
            "changed": self.changed,
            "outputs": self.outputs.snapshot(),
        }


class KernelRecorder:
    """The executions of one kernel, oldest first."""

    def __init__(self, changes: Changes | None = None) -> None:
        self._changes = changes or Changes()
        self._executions: OrderedDict[str, Execution] = OrderedDict()

    def submitted(self, header: Json, metadata: Json, boot: float, wall: datetime) -> None:
        """Note an execute_request on its way to the kernel."""
        msg_id = header.get("msg_id")
        if not isinstance(msg_id, str) or msg_id in self._executions:
            return
        self._executions[msg_id] = Execution(
            msg_id=msg_id,
            session=str(header.get("session", "")),
            cell_id=_cell_id(metadata),
            submitted=wall,
            submitted_boot=boot,
            changed=self._changes.note(),
        )

    def iopub(self, message_type: str, parent_id: str | None, content: Json, boot: float) -> None:
        """Take in one message of the kernel's iopub channel."""
        if message_type == "update_display_data":
            for shown in self._executions.values():
                if shown.outputs.update_display(content):
                    shown.changed = self._changes.note()
            return
        execution = self._executions.get(parent_id or "")
        if execution is None or execution.state == "done":
            if execution is not None and message_type != "status":
                # A thread that outlived its cell still prints into it.
                execution.outputs.add(message_type, content)
                execution.changed = self._changes.note()
            return
        if message_type == "status":
            if content.get("execution_state") == "idle":
                ran = execution.execution_count is not None or execution.failed
                self._finish(execution, "error" if execution.failed else "ok" if ran else "aborted", boot)
            return
        if message_type == "input_request":
            execution.input = {
                "prompt": content.get("prompt", ""),
                "password": bool(content.get("password")),
            }
            return
        if message_type == "execute_input":
            self._begin(execution, boot)
            count = content.get("execution_count")
            execution.execution_count = count if isinstance(count, int) else None
            return
        if execution.state == "queued":
            self._begin(execution, boot)
        if message_type == "error":
            execution.failed = True
        execution.outputs.add(message_type, content)
        execution.changed = self._changes.note()

    def answered(self) -> None:
        """Note that some page sent an input_reply: no question is open any more."""
        for execution in self._executions.values():
            execution.input = None

    def died(self, reason: str, boot: float) -> None:
        """Note that the kernel's process ended: what ran died of it, what waited will not run."""
        for execution in list(self._executions.values()):
            if execution.state == "running":
                execution.outputs.add(
                    "error", {"ename": "KernelDied", "evalue": reason, "traceback": [reason]}
                )
                self._finish(execution, "died", boot)
            elif execution.state == "queued":
                self._finish(execution, "aborted", boot)

    @property
    def running_since(self) -> float | None:
        """When the execution that runs now began, or None (CLOCK_BOOTTIME seconds)."""
        running = [
            e.started_boot for e in self._executions.values() if e.state == "running" and e.started_boot
        ]
        return min(running) if running else None

    @property
    def pending(self) -> bool:
        """Whether any execution is queued or running."""
        return any(e.state != "done" for e in self._executions.values())

    def models(self, now: float, after: int = -1) -> list[Json]:
        """Return the executions that carry a cell id and changed later than number `after`, oldest first."""
        found = self._executions.values()
        return [e.model(now) for e in found if e.cell_id is not None and e.changed > after]

    def _begin(self, execution: Execution, boot: float) -> None:
        if execution.state == "queued":
            execution.state = "running"
            execution.changed = self._changes.note()
            execution.started_boot = boot
            execution.started = datetime.now(tz=UTC)

    def _finish(self, execution: Execution, status: Status, boot: float) -> None:
        execution.state = "done"
        execution.status = status
        execution.input = None
        execution.finished_boot = boot
        execution.changed = self._changes.note()
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        finished = [e for e in self._executions.values() if e.state == "done"]
        size = sum(e.outputs.size for e in finished)
        while finished and (len(finished) > MAX_FINISHED or size > MAX_FINISHED_BYTES) and len(finished) > 1:
            oldest = finished.pop(0)
            size -= oldest.outputs.size
            del self._executions[oldest.msg_id]


def _cell_id(metadata: Json) -> str | None:
    """Return the cell an execute_request is for: JupyterLab's `cellId`, or Colab's `colab.cell_id`."""
    colab: Any = metadata.get("colab")
    found = metadata.get("cellId") or (colab.get("cell_id") if isinstance(colab, dict) else None)
    return found if isinstance(found, str) and found else None
