"""The kernels of a runtime: recorded from their first message, one of them warm before anyone asks, their deaths explained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_client.session import Session
from jupyter_core.utils import ensure_async
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager
from jupyter_server.utils import ApiPath
from zmq.eventloop.zmqstream import ZMQStream

from minicolab_runtime.activity import Activity, boottime
from minicolab_runtime.changes import Changes
from minicolab_runtime.kernel_ahead import KernelAhead
from minicolab_runtime.memory import MemoryGauge
from minicolab_runtime.offline_buffer import OfflineBuffer
from minicolab_runtime.outputs import Json
from minicolab_runtime.recorder import KernelRecorder

log = logging.getLogger(__name__)

# Shell requests that are a person's doing (a cell, a widget, an answer). Completions, inspections and infos are not.
_ACTIONS = frozenset({"execute_request", "comm_open", "comm_msg", "input_reply"})


_GATHERED_SECONDS = 0.5
_GONE_KERNELS = 4  # of how many ended kernels the record is kept
_SUBSCRIBE_SECONDS = 30.0
_ASK_SECONDS = 0.05


class RuntimeKernelSpecManager(KernelSpecManager):
    """Offers `python3` as minicolab's kernel in this environment's Python, besides whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return the kernelspec named `kernel_name`, or raise NoSuchKernel."""
        if kernel_name.lower() != NATIVE_KERNEL_NAME:
            return super().get_kernel_spec(kernel_name)
        native = super().get_kernel_spec(NATIVE_KERNEL_NAME)
        return KernelSpec(
            argv=[sys.executable, "-m", "minicolab_runtime.kernel", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
            metadata={"debugger": True},
            resource_dir=native.resource_dir,
        )


class RuntimeProvisioner(LocalProvisioner):
    """Starts a kernel as Jupyter does, once out of the process that was forked ahead."""

    ahead: KernelAhead | None = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel; return how to reach it."""
        ahead, self.ahead = self.ahead, None
        if ahead is None or not ahead.become(cmd, kwargs["env"], kwargs["cwd"]):
            return await super().launch_kernel(cmd, **kwargs)
        self.process = ahead  # type: ignore[assignment]  # as good as a Popen
        self.pid, self.pgid, self.cwd = ahead.pid, ahead.pid, kwargs["cwd"]  # it leads a session of its own
        return self.connection_info


class RuntimeKernel(ServerKernelManager):
    """Jupyter's manager of one kernel, with our provisioner for our kernel."""

    async def _async_pre_start_kernel(self, **kwargs: Any) -> Any:
        if self.provisioner is None and self.kernel_name == NATIVE_KERNEL_NAME:
            self.provisioner = RuntimeProvisioner(
                kernel_id=kwargs.get("kernel_id", ""), kernel_spec=self.kernel_spec, parent=self
            )
            if isinstance(self.parent, RuntimeKernelManager):
                self.provisioner.ahead, self.parent.ahead = self.parent.ahead, None
        return await super()._async_pre_start_kernel(**kwargs)

    pre_start_kernel = _async_pre_start_kernel  # type: ignore[assignment]  # the base class names both


class RuntimeKernelManager(AsyncMappingKernelManager):
    """Jupyter's kernel manager with a recorder a kernel, a warm spare, and a reason for every death.

    `activity`, `memory` and `on_unassign` are set by the server before the first kernel.
    """

    activity: Activity
    memory: MemoryGauge
    on_unassign: Callable[[], None]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.changes = Changes()
        self._recorders: dict[str, KernelRecorder] = {}
        self._gone: deque[tuple[str, KernelRecorder]] = deque(maxlen=_GONE_KERNELS)
        self._recorder_streams: dict[str, ZMQStream] = {}
        self._heard: dict[str, asyncio.Event] = {}
        self._oom_kills_before: dict[str, int] = {}
        self._spare: asyncio.Task[str] | None = None
        self._spare_id: str | None = None
        self.ahead: KernelAhead | None = None

    # -- the warm spare -----------------------------------------------------------------------------------------

    def start_spare(self, ahead: KernelAhead | None = None) -> None:
        """Start one kernel ahead of the first request, in the working folder; it stays out of lists until adopted.

        `ahead` is a process for it.
        """
        self.ahead = ahead
        self._spare = asyncio.get_running_loop().create_task(self._start_spare())
        self._spare.add_done_callback(_log_failure)

    async def _start_spare(self) -> str:
        self._spare_id = self.new_kernel_id()
        kernel_id: str = await super()._async_start_kernel(
            kernel_id=self._spare_id, path=ApiPath(""), kernel_name=NATIVE_KERNEL_NAME
        )
        return kernel_id

    async def _adopt_spare(self, path: ApiPath | None, kwargs: Json) -> str | None:
        """Return the spare's id when it is what is asked for and alive; it is handed out once."""
        if self._spare is None or kwargs.get("kernel_id") is not None:
            return None
        if kwargs.get("kernel_name") not in (None, "", NATIVE_KERNEL_NAME):
            return None
        if path is not None and Path(self.cwd_for_path(path)) != Path(self.root_dir):
            return None
        wanted = kwargs.get("env")
        if wanted is not None and {k: v for k, v in wanted.items() if k != "JPY_SESSION_NAME"} != dict(
            os.environ
        ):
            return None
        task, self._spare = self._spare, None
        try:
            kernel_id = await task
        except Exception:  # its own callback has logged why; a fresh kernel will do
            self._spare_id = None
            return None
        self._spare_id = None
        if kernel_id in self and await ensure_async(self.get_kernel(kernel_id).is_alive()):
            return kernel_id
        return None

    async def _async_start_kernel(
        self, *, kernel_id: str | None = None, path: ApiPath | None = None, **kwargs: Any
    ) -> str:
        adopted = await self._adopt_spare(path, {"kernel_id": kernel_id, **kwargs})
        if adopted is not None:
            log.info("The first session takes over the kernel that was started ahead: %s", adopted)
            return adopted
        started: str = await super()._async_start_kernel(kernel_id=kernel_id, path=path, **kwargs)
        return started

    start_kernel = _async_start_kernel  # type: ignore[assignment]  # the base class names both

    def list_kernels(self) -> list[Json]:
        """Return the models of all kernels but the spare."""
        return [model for model in super().list_kernels() if model["id"] != self._spare_id]

    # -- recording ----------------------------------------------------------------------------------------------

    def recorder(self, kernel_id: str) -> KernelRecorder:
        """Return the recorder of a kernel (a new, empty one for a kernel that has none yet)."""
        found = self._recorders.get(kernel_id)
        if found is None:
            found = self._recorders[kernel_id] = KernelRecorder(self.changes)
        return found

    def executions(self, after: int = -1) -> list[Json]:
        """Return the executions of all kernels that changed later than number `after`, each with its kernel's id."""
        now = boottime()
        return [
            {**model, "kernel_id": kernel_id}
            for kernel_id, recorder in [*self._gone, *self._recorders.items()]
            for model in recorder.models(now, after)
        ]

    async def last_executions(self) -> list[Json]:
        """Return the executions as they are when the server is about to end, with what running cells have printed by now.

        A kernel gathers what a cell prints for a fifth of a second before it sends it.
        """
        if any(recorder.pending for recorder in self._recorders.values()):
            await asyncio.sleep(_GATHERED_SECONDS)
        for stream in self._recorder_streams.values():
            if not stream.closed():
                stream.flush()
        return self.executions()

    async def subscribed(self, kernel_id: str, *others: asyncio.Event) -> bool:
        """Wait until the recorder's own iopub subscription delivers, so that no output is missed; False when it does not.

        Its socket may have tried before the kernel had bound its own, and tries again only every tenth of a second. Nothing
        tells when it got through but a message: so the kernel is asked for some, on its control channel. `others` are set by
        further subscriptions that are to be waited for.
        """
        all_heard = [self._heard.setdefault(kernel_id, asyncio.Event()), *others]
        if all(heard.is_set() for heard in all_heard):
            return True
        kernel = self.get_kernel(kernel_id)
        control: ZMQStream = kernel.connect_control()  # type: ignore[assignment]
        try:
            async with asyncio.timeout(_SUBSCRIBE_SECONDS):
                while True:
                    kernel.session.send(control, "kernel_info_request")
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_ASK_SECONDS):
                            for heard in all_heard:
                                await heard.wait()
                            return True
        except TimeoutError:
            return False
        finally:
            control.close()

    def request_seen(self, kernel_id: str, header: Json, metadata: Json, content: Json) -> None:
        """Note a message on its way from a page or client to a kernel."""
        message_type = header.get("msg_type")
        if message_type in _ACTIONS:
            self.activity.touch()
        if message_type == "execute_request":
            self.recorder(kernel_id).submitted(header, metadata, boottime(), datetime.now(tz=UTC))
        elif message_type == "input_reply" and isinstance(content.get("value"), str):
            self.recorder(kernel_id).answered()

    def start_watching_activity(self, kernel_id: str) -> None:
        """Read the kernel's iopub channel: Jupyter's own state keeping, and our recorder beside it."""
        super().start_watching_activity(kernel_id)
        kernel = self.get_kernel(kernel_id)
        session = Session(config=kernel.session.config, key=kernel.session.key)
        stream: ZMQStream = kernel.connect_iopub()  # type: ignore[assignment]
        recorder = self.recorder(kernel_id)
        heard = self._heard.setdefault(kernel_id, asyncio.Event())

        def received(parts: list[Any]) -> None:
            try:
                _, signed = session.feed_identities(parts)
                message = session.deserialize(signed)
            except ValueError:
                log.warning("Kernel %s sent a message that is not signed with its key; ignored", kernel_id)
                return
            heard.set()
            self._iopub(recorder, message)

        stream.on_recv(received)
        self._close_recorder_stream(kernel_id)
        self._recorder_streams[kernel_id] = stream
        if kernel_id not in self._oom_kills_before:
            self._oom_kills_before[kernel_id] = self.memory.oom_kills()
            self.add_restart_callback(kernel_id, lambda: self._explain_death(kernel_id), "restart")
            self.add_restart_callback(kernel_id, lambda: self._explain_death(kernel_id), "dead")

    def start_buffering(self, kernel_id: str, session_key: str, channels: Json) -> None:
        """Keep messages for the last page that left, within bounds."""
        super().start_buffering(kernel_id, session_key, channels)
        self._kernel_buffers[kernel_id]["buffer"] = OfflineBuffer(self.get_kernel(kernel_id).session)

    def stop_watching_activity(self, kernel_id: str) -> None:
        super().stop_watching_activity(kernel_id)
        self._close_recorder_stream(kernel_id)

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel that is gone; how its cells ended is kept a while for who writes their outputs."""
        self._close_recorder_stream(kernel_id)
        recorder = self._recorders.pop(kernel_id, None)
        if recorder is not None:
            recorder.died("The kernel was shut down.", boottime())
            self._gone.append((kernel_id, recorder))
        self._heard.pop(kernel_id, None)
        self._oom_kills_before.pop(kernel_id, None)
        return super().remove_kernel(kernel_id)

    def _close_recorder_stream(self, kernel_id: str) -> None:
        stream = self._recorder_streams.pop(kernel_id, None)
        if stream is not None and not stream.closed():
            stream.close()

    def _iopub(self, recorder: KernelRecorder, message: Json) -> None:
        header, parent = message["header"], message.get("parent_header") or {}
        if parent.get("msg_type") in _ACTIONS:
            self.activity.touch()
        message_type, content = header.get("msg_type", ""), message.get("content") or {}
        if message_type == "colab_request":
            request_type = message["metadata"].get("colab_request_type")
            if request_type == "unassign":
                self.on_unassign()
            if request_type != "input_request":
                return
            message_type, content = "input_request", content.get("request") or {}
        recorder.iopub(message_type, parent.get("msg_id"), content, boottime())

    # -- deaths -------------------------------------------------------------------------------------------------

    async def restart_kernel(self, kernel_id: str, now: bool = False) -> Any:  # type: ignore[override]
        """Restart a kernel because someone asked for it; what it ran ends here."""
        self.activity.touch()
        self.recorder(kernel_id).died("The session was restarted.", boottime())
        return await super()._async_restart_kernel(kernel_id, now=now)

    def _explain_death(self, kernel_id: str) -> None:
        """Find out why the kernel's process ended, and tell the record and the kernel's model."""
        kernel = self.get_kernel(kernel_id)
        process = getattr(kernel.provisioner, "process", None)
        code = process.poll() if process is not None else None
        kills = self.memory.oom_kills()
        out_of_memory = kills > self._oom_kills_before.get(kernel_id, kills)
        self._oom_kills_before[kernel_id] = kills
        memory = self.memory.read()
        reason = death_reason(code, memory.limit if out_of_memory else None)
        kernel.reason = reason  # type: ignore[attr-defined]  # where Jupyter's kernel model looks for it
        log.warning("Kernel %s: %s", kernel_id, reason)
        self.recorder(kernel_id).died(reason, boottime())
        self._heard[kernel_id].clear()


def death_reason(exit_code: int | None, out_of_memory_limit: int | None) -> str:
    """Return the sentence for a kernel that ended by itself. `out_of_memory_limit` (bytes) when that is known to be why."""
    if out_of_memory_limit is not None:
        gigabytes = out_of_memory_limit / 1e9
        return (
            f"Your session crashed after using all available RAM (the limit is {gigabytes:.1f} GB). "
            "It was restarted; its variables are gone."
        )
    if exit_code is not None and exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = f"signal {-exit_code}"
        hint = " Running out of memory is the usual cause." if -exit_code == signal.SIGKILL else ""
        return f"Your session was killed ({name}) and restarted; its variables are gone.{hint}"
    status = "" if exit_code is None else f" with exit status {exit_code}"
    return f"Your session ended by itself{status} and was restarted; its variables are gone."


def _log_failure(task: asyncio.Task[str]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("The kernel that was to be started ahead did not start", exc_info=task.exception())
