"""What a runtime's server answers beyond Jupyter's own API, all below its base URL.

`GET minicolab/activity`                 is anything running, and when was this runtime last used
`GET minicolab/executions?kernel_id=…`   what a kernel runs, has queued and has lately finished, with all outputs
`GET minicolab/executions/changes?after=N&wait=S`   the same of all kernels, as far as it changed since the answer with number N
`GET api/colab/resources`                memory, disk and GPUs
"""

from __future__ import annotations

import json
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from minicolab_runtime.activity import Activity, boottime
from minicolab_runtime.kernels import RuntimeKernelManager
from minicolab_runtime.outputs import Json
from minicolab_runtime.resources import read_resources

AUTH_RESOURCE = "kernels"
LONGEST_WAIT_SECONDS = 60


class RuntimeHandler(APIHandler):
    """A JSON endpoint of the runtime; refusals carry `status`, `code` and `message`."""

    auth_resource = AUTH_RESOURCE

    @property
    def kernels(self) -> RuntimeKernelManager:
        manager: RuntimeKernelManager = self.settings["kernel_manager"]
        return manager

    def send(self, body: Json) -> None:
        """Answer with JSON that no cache keeps."""
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(body, default=str))

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error body."""
        self.set_status(status)
        self.send({"status": status, "code": code, "message": message})


class ActivityHandler(RuntimeHandler):
    """Is anything running, and when was this runtime last used (seconds; the supervisor stamps the arrival)."""

    @web.authenticated
    @authorized
    def get(self) -> None:
        activity: Activity = self.settings["minicolab_activity"]
        now = boottime()
        kernels: list[Json] = []
        busy = False
        for model in self.kernels.list_kernels():
            recorder = self.kernels.recorder(model["id"])
            since = recorder.running_since
            busy = busy or recorder.pending
            kernels.append(
                {
                    "id": model["id"],
                    "name": model["name"],
                    "state": "busy" if recorder.pending else model["execution_state"],
                    "executing_seconds": 0.0 if since is None else round(now - since, 3),
                }
            )
        if busy:
            activity.touch()
        self.send({"kernels": kernels, "last_activity_seconds_ago": round(activity.seconds_ago(), 3)})


class ExecutionsHandler(RuntimeHandler):
    """What a kernel runs, has queued, and has lately finished."""

    @web.authenticated
    @authorized
    def get(self) -> None:
        kernel_id = self.get_query_argument("kernel_id", "")
        if not kernel_id:
            self.refuse(400, "missing_argument", "kernel_id is required.")
            return
        if kernel_id not in self.kernels:
            self.refuse(404, "not_found", "No such kernel in this runtime.")
            return
        model = self.kernels.kernel_model(kernel_id)
        self.send(
            {
                "kernel_id": kernel_id,
                "state": model["execution_state"],
                "reason": model.get("reason", ""),
                "executions": self.kernels.recorder(kernel_id).models(boottime()),
            }
        )


class ChangesHandler(RuntimeHandler):
    """Executions that changed after number `after`; the answer waits up to `wait` seconds for one."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        after = self._number("after", -1)
        wait = self._number("wait", 0)
        if after is None or wait is None or wait > LONGEST_WAIT_SECONDS:
            self.refuse(
                400,
                "bad_argument",
                f"after and wait are whole numbers; wait is at most {LONGEST_WAIT_SECONDS}.",
            )
            return
        changes = self.kernels.changes
        if self.get_query_argument("instance", changes.instance) != changes.instance:
            after = -1
        await changes.wait(after, wait)
        number = changes.number
        executions = self.kernels.executions(after)
        self.send({"instance": changes.instance, "number": number, "executions": executions})

    def _number(self, name: str, default: int) -> int | None:
        text = self.get_query_argument(name, str(default))
        plain = text.removeprefix("-")
        return int(text) if plain.isascii() and plain.isdigit() and len(plain) < 16 else None


class ResourcesHandler(RuntimeHandler):
    """Memory, disk and GPUs for the page's meters."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        pids: dict[str, int] = {}
        for model in self.kernels.list_kernels():
            pid: Any = getattr(self.kernels.get_kernel(model["id"]).provisioner, "pid", None)
            if isinstance(pid, int):
                pids[model["id"]] = pid
        root = self.settings["minicolab_settings"].root
        self.send(await read_resources(self.kernels.memory, root, pids))
