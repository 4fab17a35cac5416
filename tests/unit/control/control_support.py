"""Stand-ins around the real control service: a backend whose runtimes are files, a small hub, and a small documents service.

These are fakes, openly: the real ones run in tests/contract and tests/integration. The backend's folder is shared by the
process of the test, the fake hub, and a control service in a process of its own, so that any of them can be killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from tornado import web
from tornado.httpserver import HTTPServer

from hub.control.app import make_app, make_control
from hub.control.handlers import Control
from hub.installation import free_port
from hub.settings import Ports, Service, Settings, save_service
from hub.setup.runtime_environment import environment_for
from spawner.environment import Progress
from spawner.model import (
    Activity,
    Budget,
    DriveAtStart,
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
from support.patience import PATIENCE

API = "/services/control/api/v1"
TOKENS = {"ada-token": "ada", "bob-token": "bob", "root-token": "root"}
FILES = {"nb-ada": "ada", "nb-two": "ada", "nb-three": "ada", "nb-bob": "bob"}
GROUPS = {"ada": ["vision"]}
CONTROL_TOKEN = "control-token"
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


@dataclass
class FakeHub:
    """What control uses of JupyterHub and of documents. `gate` holds starts back until it is set."""

    backend: FileBackend
    servers: dict[str, str] = field(default_factory=dict)  # server → user
    pending: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    refuse: str | None = None
    starts: int = 0
    options: dict[str, dict[str, Any]] = field(default_factory=dict)  # server → what control asked for
    brought: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # outputs: file, body
    documents_away: bool = False

    async def _spawn(self, user: str, server: str, options: dict[str, Any]) -> None:
        await self.gate.wait()
        if self.refuse is not None:
            self.failures[server] = self.refuse
        else:
            await self.backend.start(_spec(user, server, options), lambda _: None)
        self.pending.pop(server, None)

    def begin(self, user: str, server: str, options: dict[str, Any]) -> None:
        self.starts += 1
        self.options[server] = options
        self.servers[server] = user
        self.pending[server] = asyncio.create_task(self._spawn(user, server, options))
        self.asked.set()

    def die(self) -> None:
        """Lose what is under way, as a hub that is killed does."""
        for task in self.pending.values():
            task.cancel()
        for server in list(self.pending):
            del self.servers[server]
        self.pending.clear()


def _spec(user: str, server: str, options: dict[str, Any]) -> RuntimeSpec:
    from spawner.model import Shape

    return RuntimeSpec(
        server,
        user,
        str(options["file_id"]),
        "/",
        Shape("STANDARD", 1, 1, 16),
        "NONE",
        (),
        1,
        1,
        b"",
        "",
        "",
        "",
        drive=DriveAtStart(**options["drive"]) if options["drive"] is not None else None,
    )


class _HubHandler(web.RequestHandler):
    @property
    def hub(self) -> FakeHub:
        hub: FakeHub = self.settings["hub"]
        return hub


class _Root(_HubHandler):
    def get(self) -> None:
        self.finish({"version": "fake"})


class _User(_HubHandler):
    def get(self) -> None:
        name = TOKENS.get(self.request.headers["Authorization"].split()[1])
        if name is None:
            raise web.HTTPError(403)
        scopes = ["access:services"]
        self.finish(
            {
                "kind": "user",
                "name": name,
                "admin": name == "root",
                "scopes": scopes,
                "groups": GROUPS.get(name, []),
            }
        )


class _Users(_HubHandler):
    def get(self) -> None:
        users = sorted(set(self.hub.servers.values()))
        items = [
            {"name": u, "servers": {s: {} for s, owner in self.hub.servers.items() if owner == u}}
            for u in users
        ]
        self.finish({"items": items, "_pagination": {"next": None}})


class _Server(_HubHandler):
    def get(self, user: str, server: str) -> None:
        if server not in self.hub.servers:
            raise web.HTTPError(404)
        self.finish({"name": server, "ready": server not in self.hub.pending})

    async def post(self, user: str, server: str) -> None:
        if server in self.hub.servers and server not in self.hub.pending:
            if await self.hub.backend.observe(server) is not None:
                self.set_status(400)
                self.finish({"message": f"{user}:{server} is already running"})
                return
        elif server in self.hub.pending:
            self.set_status(202)
            return
        self.hub.begin(user, server, json.loads(self.request.body))
        self.set_status(202)

    async def delete(self, user: str, server: str) -> None:
        if server not in self.hub.servers:
            raise web.HTTPError(404)
        task = self.hub.pending.pop(server, None)
        if task is not None:
            task.cancel()
        await self.hub.backend.stop(server, reason=EndReason("stopped", "Stopped."), grace_seconds=0)
        self.hub.servers.pop(server, None)
        self.set_status(204)


class _Progress(_HubHandler):
    async def get(self, user: str, server: str) -> None:
        self.set_header("Content-Type", "text/event-stream")
        if server not in self.hub.servers:
            raise web.HTTPError(404)
        await self._tell({"progress": 30, "phase": "sandbox", "message": "Making a private machine"})
        task = self.hub.pending.get(server)
        if task is not None:
            await asyncio.wait([task])
            if task.cancelled():
                raise web.HTTPError(500)  # the connection of a hub that died
        if server in self.hub.failures:
            await self._tell({"failed": True, "message": f"Spawn failed: {self.hub.failures[server]}"})
        else:
            await self._tell({"progress": 100, "ready": True})

    async def _tell(self, event: dict[str, Any]) -> None:
        self.write(f"data: {json.dumps(event)}\n\n")
        await self.flush()


class _File(web.RequestHandler):
    def get(self, file_id: str) -> None:
        user = TOKENS.get(self.request.headers.get("Authorization", " x").split()[1])
        if FILES.get(file_id) != user:
            raise web.HTTPError(404)
        self.finish({"id": file_id, "name": f"{file_id}.ipynb", "type": "notebook"})


class _Outputs(_HubHandler):
    """Takes everything as settled, as documents does with what it has written."""

    def post(self, file_id: str) -> None:
        if self.hub.documents_away:
            raise web.HTTPError(503)
        assert self.request.headers["Authorization"] == f"Bearer {CONTROL_TOKEN}"
        body = json.loads(self.request.body)
        ids = [e["msg_id"] for e in body["executions"]]
        lacking = [e["msg_id"] for e in body["executions"] if "outputs" not in e]
        self.hub.brought.append((file_id, body))
        self.finish({"settled": [i for i in ids if i not in lacking], "wanted": lacking})


def hub_app(hub: FakeHub) -> web.Application:
    one = r"/hub/api/users/([^/]+)/servers/([^/]+)"
    return web.Application(
        [
            (r"/hub/api/", _Root),
            (r"/hub/api/user", _User),
            (r"/hub/api/users", _Users),
            (one, _Server),
            (one + "/progress", _Progress),
            (r"/services/documents/api/v1/files/([^/]*)/outputs", _Outputs),
            (r"/services/documents/api/v1/files/(.*)", _File),
        ],
        hub=hub,
        log_function=lambda _: None,
    )


def make_service(state: Path, **settings: Any) -> Service:
    """Return an installation below `state`, its environment complete, and write it down for other processes."""
    port = free_port()
    service = Service(
        state=state,
        settings=Settings.model_validate(settings),
        ports=Ports(public=free_port(), proxy_api=free_port(), hub=port, documents=port, control=free_port()),
        documents_token="documents-token",
        control_token=CONTROL_TOKEN,
        proxy_token="proxy-token",
    )
    for name in ("run", "databases", "keys"):
        (state / name).mkdir(parents=True, exist_ok=True)
    save_service(service)
    environment = environment_for(service.settings.runtimes.environment)[1]
    environment.write_progress(Progress("installing", "half", 0.5, 1.0))
    environment.mark_pins_complete()
    environment.code.mkdir(parents=True, exist_ok=True)
    return service


@dataclass
class World:
    """A control service with its surroundings, and callers."""

    service: Service
    backend: FileBackend
    hub: FakeHub
    http: aiohttp.ClientSession
    control: Control
    hub_server: HTTPServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.ports.control}"

    async def call(
        self, user: str | None, method: str, path: str, body: Any = None, **kwargs: Any
    ) -> tuple[int, Any]:
        """Call as `user` (None: as nobody); return the status and the JSON."""
        headers = dict(kwargs.pop("headers", {}))
        if user is not None:
            headers["Authorization"] = f"Bearer {user}-token"
        if body is not None:
            kwargs["json"] = body
        async with self.http.request(
            method, self.url + (path if path.startswith("/") else f"{API}/{path}"), headers=headers, **kwargs
        ) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if "json" in reply.headers.get("Content-Type", "") else text

    async def ready(self, user: str = "ada", file_id: str = "nb-ada") -> dict[str, Any]:
        """Start a runtime and wait until it is ready."""
        status, model = await self.call(user, "POST", "runtimes", {"file_id": file_id})
        assert status in (200, 202), model
        return await self.until(user, model["id"], lambda m: m["state"] == "ready")

    async def until(
        self, user: str, runtime_id: str, wanted: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """Follow the runtime's events until one is wanted."""
        async with asyncio.timeout(PATIENCE):
            async for _, model in self.events(user, runtime_id):
                if wanted(model):
                    return model
        raise AssertionError("the events ended")

    async def events(
        self, user: str, runtime_id: str, last: str | None = None
    ) -> AsyncIterator[tuple[dict[str, str], dict[str, Any]]]:
        """Yield (id and event, data) of each server-sent event."""
        headers = {"Authorization": f"Bearer {user}-token", **({"Last-Event-ID": last} if last else {})}
        async with self.http.get(f"{self.url}{API}/runtimes/{runtime_id}/events", headers=headers) as reply:
            assert reply.status == 200
            fields: dict[str, str] = {}
            async for line in reply.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name in ("id", "event"):
                    fields[name] = value
                elif name == "data":
                    yield fields, json.loads(value)
                    fields = {}


@asynccontextmanager
async def world(state: Path, *, control: bool = True, **settings: Any) -> AsyncIterator[World]:
    """Run everything in this process. `control=False`: the control service is run by the test, in its own process."""
    service = make_service(state, **settings)
    backend = FileBackend(state / "fake-runtimes")
    hub = FakeHub(backend)
    hub.gate.set()
    hub_server = HTTPServer(hub_app(hub))
    hub_server.listen(service.ports.hub, "127.0.0.1")
    parts = make_control(service, backend)
    server = HTTPServer(app := make_app(parts))
    tick: asyncio.Task[None] | None = None
    if control:
        await parts.orchestrator.recover()
        server.listen(service.ports.control, "127.0.0.1")
        tick = asyncio.create_task(parts.orchestrator.tick_for_ever())
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as http:
        try:
            yield World(service, backend, hub, http, parts, hub_server)
        finally:
            if tick is not None:
                tick.cancel()
                with suppress(asyncio.CancelledError):
                    await tick
            server.stop()
            hub_server.stop()
            await parts.orchestrator.close()
            await parts.files.close()
            await app.settings["identity"].close()
            await server.close_all_connections()
            await hub_server.close_all_connections()
