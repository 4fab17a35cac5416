"""The local backend: runtimes as sandboxed process trees on this machine, each owned by a supervisor.

Keeps no state: a runtime exists while a supervisor holds the lock of its folder. Hub and control each have an instance of their
own; neither is the parent of a supervisor in the sense of life and death.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from spawner.description import describe, server_environment
from spawner.ended import Ended, restore
from spawner.local.probe import NoRung, choose_rung, report
from spawner.local.remove import clean
from spawner.local.sandbox import Rung
from spawner.model import (
    Endpoint,
    EndReason,
    IsolationReport,
    LeftBehind,
    Observed,
    Phase,
    RuntimeSpec,
)
from spawner.ports import BackendError, OnPhase
from spawner.supervised import Supervised, gone, stop_request, told
from spawner.supervisor import wire
from spawner.supervisor.limits import find_groups

log = logging.getLogger(__name__)

START_SECONDS = 90.0
STATUS_SECONDS = 5.0
END_SECONDS = 30.0  # on top of the grace: how long an end may take before the supervisor itself is killed
LAST_BREATH_SECONDS = 5.0  # from the end of its connection to the end of a supervisor
LOOK_SECONDS = 0.02  # a folder's lock can not be awaited
GOOD_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
GPU = re.compile(r"/dev/nvidia[0-9]+")
LOST = EndReason("lost", "The machine disappeared without saying why.")


class LocalBackend(Supervised):
    """Runtimes below `folder` (DIR/runtimes), in the environment `env` with the layer `code` over it."""

    name = "local"
    keeps_content = True

    def __init__(
        self,
        folder: Path,
        env: Path,
        code: Path,
        *,
        isolation: str = "auto",
        allow_plain_multiuser: bool = False,
    ) -> None:
        self._folder = folder
        self._ended = Ended(folder / ".ended")
        self._env = env
        self._code = code
        self._wanted = isolation
        self._allow_plain_multiuser = allow_plain_multiuser
        self._rung: tuple[Rung, str] | None = None

    def _choose(self) -> tuple[Rung, str]:
        if self._rung is None:
            self._rung = choose_rung(self._wanted, self._env)
        return self._rung

    def isolation(self) -> IsolationReport:
        return report(*self._choose())

    # -- start ------------------------------------------------------------------------------------------------

    async def start(self, spec: RuntimeSpec, on_phase: OnPhase) -> Endpoint:
        if not GOOD_ID.fullmatch(spec.id):
            raise BackendError("bad_id", "A runtime's id has lower-case letters, digits and '-' only.")
        try:
            rung, _ = await asyncio.to_thread(self._choose)
        except NoRung as error:
            raise BackendError("no_isolation", str(error)) from error
        if rung is Rung.PLAIN and not self._allow_plain_multiuser:
            others = {o.user for o in await self.list_all()} - {spec.user}
            if others:
                raise BackendError(
                    "not_isolated",
                    "This machine can not keep users apart, so only one may use it at a time "
                    "(setting runtimes.local.allow_plain_multiuser).",
                )
        self._have_what_it_needs(spec)
        on_phase(Phase.SANDBOX)
        lock = self._make_folder(spec, rung)
        try:
            process = await self._start_supervisor(spec.id, lock)
        except BaseException as error:  # given up, too: the lock must not outlive this call
            await asyncio.to_thread(self._sweep_locked, spec.id, lock)
            if isinstance(error, OSError):
                message = f"The supervisor can not be started: {error}"
                raise BackendError("start_failed", message) from error
            raise
        os.close(lock)
        try:
            async with asyncio.timeout(START_SECONDS):
                return await self._until_ready(process, on_phase)
        except BaseException as error:
            await self._abandon(spec.id, process)
            if isinstance(error, TimeoutError):
                message = f"The machine did not start within {START_SECONDS:.0f} seconds."
                raise BackendError("start_timeout", message) from None
            raise

    def _have_what_it_needs(self, spec: RuntimeSpec) -> None:
        """Raise BackendError when this machine has no environment for the runtime, or not its accelerators."""
        if not (self._env / "bin" / "python").exists():
            raise BackendError(
                "image_unavailable", "The runtime environment is not installed on this machine."
            )
        missing = [device for device in spec.devices if GPU.fullmatch(device) and not Path(device).exists()]
        if missing:
            raise BackendError("no_capacity", f"This machine does not have {', '.join(missing)}.")

    def _make_folder(self, spec: RuntimeSpec, rung: Rung) -> int:
        """Make the runtime's folder and return its lock. Raise BackendError.

        It gets its name when it is locked and whole, so nobody ever sees one that looks abandoned.
        """
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        draft, folder = self._folder / f".new-{spec.id}", self._folder / spec.id
        lock: int | None = None
        try:
            draft.mkdir(mode=0o711)
            lock = wire.lock(draft)
            assert lock is not None, "nobody else knows this folder"
            path = draft / wire.SPEC
            path.touch(mode=0o600)
            path.write_text(json.dumps(self._describe(spec, rung)), "utf-8")
            if folder.exists():
                raise FileExistsError(str(folder))
            draft.rename(folder)
            return lock
        except FileExistsError:
            self._forget_draft(draft, lock)
            message = f"A runtime named {spec.id} exists already."
            raise BackendError("already_exists", message) from None
        except OSError as error:
            self._forget_draft(draft, lock)
            message = f"The runtime's folder can not be made: {error.strerror}."
            raise BackendError("start_failed", message) from error

    def _forget_draft(self, draft: Path, lock: int | None) -> None:
        if lock is not None:
            shutil.rmtree(draft, ignore_errors=True)  # holds our own spec.json at most
            os.close(lock)

    def _describe(self, spec: RuntimeSpec, rung: Rung) -> dict[str, Any]:
        numbers = [device.removeprefix("/dev/nvidia") for device in spec.devices]
        environment = {
            **server_environment(spec, "127.0.0.1", 0),
            "CUDA_VISIBLE_DEVICES": ",".join(number for number in numbers if number.isdigit()),
        }
        return {
            **describe(spec, environment),
            "devices": spec.devices,
            "rung": rung,
            "env": str(self._env),
            "code": str(self._code),
            "python_base": sys.base_prefix,
        }

    async def _start_supervisor(self, runtime_id: str, lock: int) -> asyncio.subprocess.Process:
        # -S: it needs nothing of the service's packages, and looking for them would take time and memory.
        with self._log_of(runtime_id).open("ab") as file:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-S", "-m", "spawner.local.supervisor", str(self._folder / runtime_id)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                cwd="/",
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                    "LANG": "C.UTF-8",
                },
                pass_fds=(lock,),
                start_new_session=True,
            )

    async def _until_ready(self, process: asyncio.subprocess.Process, on_phase: OnPhase) -> Endpoint:
        assert process.stdout is not None
        told = Phase.SANDBOX
        while line := await process.stdout.readline():
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "phase":
                if (phase := Phase(event["phase"])) is not told:
                    on_phase(told := phase)
            elif event["event"] == "ready":
                on_phase(Phase.READY)
                return Endpoint("127.0.0.1", int(event["port"]))
            elif event["event"] == "failed":
                raise BackendError(event["code"], event["message"])
        raise BackendError("start_failed", "The machine ended while it was starting.")

    async def _abandon(self, runtime_id: str, process: asyncio.subprocess.Process) -> None:
        """Leave nothing of a start that failed or was given up, but its last words in our log."""
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        with contextlib.suppress(OSError):
            if words := self._log_of(runtime_id).read_text("utf-8", "replace").strip():
                log.warning("runtime %s did not start; its last words:\n%s", runtime_id, words[-4000:])
        await self._sweep(runtime_id)
        await self.forget(runtime_id)

    def _log_of(self, runtime_id: str) -> Path:
        return self._folder / f"{runtime_id}.log"

    # -- end --------------------------------------------------------------------------------------------------

    async def stop(self, runtime_id: str, *, reason: EndReason, grace_seconds: float) -> None:
        folder = self._folder_of(runtime_id)
        if folder is None:
            return
        request = stop_request(reason, grace_seconds)
        try:
            async with asyncio.timeout(grace_seconds + END_SECONDS):
                while not await self._sweep(runtime_id):
                    try:
                        await wire.call(folder, request)
                        await self._watch(folder)
                    except wire.SupervisorGone:
                        # Just starting, or just ending.
                        await asyncio.sleep(LOOK_SECONDS)
        except (TimeoutError, wire.NoAnswer):
            await self._kill_supervisor(runtime_id, folder)

    async def _kill_supervisor(self, runtime_id: str, folder: Path) -> None:
        """End a runtime whose supervisor does not: the kernel then ends all that is its. Raise BackendError."""
        log.error("the supervisor of runtime %s does not answer: it is killed", runtime_id)
        with contextlib.suppress(wire.SupervisorGone):
            _, writer = await wire.connect(folder)
            process = wire.process_of(writer)
            writer.close()
            if process is not None:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                await wire.ended(process, seconds=END_SECONDS)
                os.close(process)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                while not await self._sweep(runtime_id):  # noqa: ASYNC110  # a lock can not be awaited
                    await asyncio.sleep(LOOK_SECONDS)
                return
        raise BackendError("stop_failed", f"Runtime {runtime_id} could not be ended.")

    async def wait_end(self, runtime_id: str) -> EndReason:
        folder = self._folder_of(runtime_id)
        reason: EndReason | None = None
        while folder is not None and not await self._sweep(runtime_id):
            try:
                reason = await self._watch(folder) or reason
            except wire.SupervisorGone:
                await asyncio.sleep(LOOK_SECONDS)
        return self._ended.reason(runtime_id) or reason or LOST

    async def _watch(self, folder: Path) -> EndReason | None:
        """Wait for the end of the supervisor; return the reason it tells. Raise SupervisorGone when it is not there."""
        reader, writer = await wire.connect(folder)
        process = wire.process_of(writer)
        reason = None
        try:
            writer.write(b'{"op": "watch"}\n')
            await writer.drain()
            while line := await reader.readline():
                event = json.loads(line)
                if event.get("event") == "end":
                    reason = EndReason(event["code"], event["message"], event["boottime"])
        except (OSError, ValueError):
            return reason  # a connection that breaks means the same as one that ends
        finally:
            writer.close()
            if process is not None:
                await wire.ended(process, seconds=LAST_BREATH_SECONDS)
                os.close(process)
        return reason

    async def _sweep(self, runtime_id: str) -> bool:
        """Remove what is left of a runtime whose supervisor is gone; return whether nothing is left of it."""
        try:
            lock = wire.lock(self._folder / runtime_id)
        except FileNotFoundError:
            self._log_of(runtime_id).unlink(missing_ok=True)
            return True
        if lock is None:
            return False
        await asyncio.to_thread(self._sweep_locked, runtime_id, lock)
        return True

    def _sweep_locked(self, runtime_id: str, lock: int) -> None:
        try:
            groups = find_groups(runtime_id)
            groups.kill()
            if not clean(self._folder / runtime_id, groups.remove):
                raise BackendError("stop_failed", f"What is left of runtime {runtime_id} can not be removed.")
            self._log_of(runtime_id).unlink(missing_ok=True)
        finally:
            os.close(lock)

    # -- look -------------------------------------------------------------------------------------------------

    async def observe(self, runtime_id: str) -> Observed | None:
        folder = self._folder_of(runtime_id)
        if folder is None:
            return None
        try:
            status = await wire.call(folder, {"op": "status"}, seconds=STATUS_SECONDS)
        except wire.SupervisorGone:
            return None
        except wire.NoAnswer as error:
            raise BackendError("no_answer", f"The supervisor of {runtime_id} gives {error}.") from error
        endpoint = Endpoint("127.0.0.1", int(status["port"])) if status["port"] else None
        return Observed(
            status["id"], status["user"], status["file_id"], status["state"], endpoint, status["ready_at"]
        )

    async def list_all(self) -> list[Observed]:
        if not self._folder.is_dir():
            return []
        self._ended.forget_old()
        names = [p.name for p in self._folder.iterdir() if p.is_dir() and p.name != ".ended"]
        looks = await asyncio.gather(*(self._observe_or_sweep(name) for name in names))
        return [observed for observed in looks if observed is not None]

    async def _observe_or_sweep(self, name: str) -> Observed | None:
        try:
            observed = await self.observe(name) if GOOD_ID.fullmatch(name) else None
            if observed is None:
                await self._sweep(name)
            return observed
        except BackendError as error:
            log.error("runtime %s: %s", name, error)
            return None

    # -- change -----------------------------------------------------------------------------------------------

    async def mount(self, runtime_id: str, *, source: str, target: str, readonly: bool) -> None:
        request = {"op": "mount", "source": source, "target": target, "readonly": readonly}
        await self._call(runtime_id, request)

    async def unmount(self, runtime_id: str, *, target: str) -> None:
        await self._call(runtime_id, {"op": "unmount", "target": target})

    async def restore(self, runtime_id: str, *, snapshot: Path) -> int:
        await self._call(runtime_id, {"op": "status"})
        folder = self._folder_of(runtime_id)
        if folder is None:
            raise gone()
        return await restore(snapshot, folder / "content")

    # -- what ended ones left ---------------------------------------------------------------------------------

    async def left_behind(self, runtime_id: str) -> LeftBehind | None:
        return await self._ended.left_behind(runtime_id) if GOOD_ID.fullmatch(runtime_id) else None

    async def forget(self, runtime_id: str) -> None:
        if GOOD_ID.fullmatch(runtime_id):
            await self._ended.forget(runtime_id)

    def _folder_of(self, runtime_id: str) -> Path | None:
        """Return the folder of a runtime there is, None for a name that can not be one's."""
        folder = self._folder / runtime_id
        return folder if GOOD_ID.fullmatch(runtime_id) and folder.is_dir() else None

    async def _call(self, runtime_id: str, request: dict[str, Any]) -> dict[str, Any]:
        folder = self._folder_of(runtime_id)
        if folder is None:
            raise gone()
        try:
            answer = await wire.call(folder, request)
        except wire.SupervisorGone:
            raise gone() from None
        except wire.NoAnswer as error:
            raise BackendError("no_answer", f"The supervisor of {runtime_id} gives {error}.") from error
        return told(answer)
