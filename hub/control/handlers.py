"""The JSON endpoints of control; see openapi.json."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from tornado import iostream

from gpu_scheduler.model import NONE
from gpu_scheduler.queue import ClusterAccelerators
from gpu_scheduler.service import Accelerators
from hub.control.consent import ConsentStore
from hub.control.drives_at_start import DrivesAtStart
from hub.control.faults import as_api_error
from hub.control.files import Files
from hub.control.idempotency import IdempotencyKeys
from hub.control.orchestrator import USER_DELETED, Orchestrator
from hub.control.refusals import as_refusal
from hub.control.snapshots import Snapshots
from hub.control.views import iso
from hub.settings import Service
from hub.web.body import dump_json, only_fields, text_field
from hub.web.errors import ApiError, bad_request, conflict, denied, not_found, printable
from hub.web.handlers import ApiHandler
from hub.web.identity import User, bearer_token
from hub.wiring import environment_status
from quota import policy
from quota.budgets import price_of
from quota.clock import Clock
from quota.model import LIVE, Denied, Filter, Kind, Reason, Session, State, Who
from quota.ports import Fenced
from quota.service import Refused, Request, Sessions
from quota.ticket import mint, runtime_key
from spawner.ports import BackendError
from storage_mount.service import DriveService

TICKET_LIFETIME = timedelta(hours=1)
KEEP_ALIVE_SECONDS = 15.0
STOPPING_PATIENCE_SECONDS = 20.0
EVENT_OF = {State.READY: "ready"}


@dataclass(frozen=True)
class Control:
    """What every handler works with."""

    service: Service
    sessions: Sessions
    orchestrator: Orchestrator
    files: Files
    keys: IdempotencyKeys
    accelerators: Accelerators | ClusterAccelerators
    consent: ConsentStore
    drive: DriveService
    drives_at_start: DrivesAtStart
    snapshots: Snapshots
    clock: Clock


class ControlHandler(ApiHandler):
    """An endpoint of control."""

    @property
    def control(self) -> Control:
        control: Control = self.settings["control"]
        return control

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, Fenced):
            self.control.orchestrator.fenced.set()
        known = as_api_error(error)
        if known is not None:
            self.reply_error(known)
        else:
            super().write_error(status_code, **kwargs)

    def model(self, session: Session) -> dict[str, Any]:
        """Return a runtime as the API shows it."""
        return self.control.orchestrator.model(session)

    def own(self, runtime_id: str) -> Session:
        """Return the caller's runtime. Raise 404 when there is none: not theirs and not there look the same."""
        session = self.control.sessions.ledger.get(runtime_id) if len(runtime_id) <= 32 else None
        if session is None or session.user != self.user.name:
            raise not_found("No such runtime.")
        return session

    def live(self, runtime_id: str) -> Session:
        """Return the caller's runtime when it is ready. Raise 404, 409 `not_ready`, 410 `ended`."""
        session = self.own(runtime_id)
        if session.state not in LIVE:
            message = session.reason.message if session.reason is not None else "The runtime has ended."
            raise ApiError(410, "ended", f"The runtime has ended: {message}")
        if session.state is not State.READY:
            raise conflict("not_ready", f"The runtime is {session.state}, not ready yet.")
        return session

    def who(self) -> Who:
        """Return the caller as the rules know them."""
        return Who(self.user.name, self.user.groups)

    def admin(self) -> None:
        if not self.user.admin:
            raise denied("admin_only", "Only administrators may do this.")

    def listing(self, items: list[Session], total: int, offset: int, limit: int) -> None:
        self.reply(
            {"items": [self.model(s) for s in items], "total": total, "offset": offset, "limit": limit}
        )


class RuntimesHandler(ControlHandler):
    """`runtimes`"""

    async def post(self) -> None:
        body = self.json_body()
        only_fields(body, {"file_id", "accelerator", "shape"})
        file_id = text_field(body, "file_id", max_length=255)
        accelerator = text_field(body, "accelerator", default=NONE, max_length=64)
        shape = text_field(body, "shape", default="STANDARD", max_length=64)
        key = self.request.headers.get("Idempotency-Key")
        earlier = self.control.keys.find(self.user.name, key, body)
        if earlier is not None:
            self._reply_with(self.own(earlier))
            return
        self._check_shape(shape)
        file = await self.control.files.get(file_id, self.request)
        existing = self._live_of(file["id"])
        if existing is not None and existing.state is State.STOPPING:
            await self.control.orchestrator.wait_stopped(existing, STOPPING_PATIENCE_SECONDS)
            existing = self._live_of(file["id"])
            if existing is not None and existing.state is State.STOPPING:
                message = "The notebook's last runtime is still being ended. Try again in a moment."
                raise ApiError(409, "stopping", message, headers={"Retry-After": "2"})
        if existing is None and not await self.control.orchestrator.hub.answers():
            message = "The hub is not answering, so no runtime can be started. Try again in a moment."
            raise ApiError(503, "hub_unavailable", message, headers={"Retry-After": "5"})
        # Nothing is awaited from here on: limit, device and row are decided in one step.
        earlier = self.control.keys.find(self.user.name, key, body)
        if earlier is not None:
            self._reply_with(self.own(earlier))
            return
        ends, who, kind = self.control.orchestrator.ends, self.who(), Kind(accelerator, shape)
        limits = ends.limits(who, kind)
        if not limits.allow and self._live_of(file["id"]) is None:
            refusal = policy.may_start(limits, (), kind)
            assert isinstance(refusal, Denied)
            raise as_refusal(self.control, refusal, who, kind)
        request = self._request(file, accelerator, shape)
        try:
            session, new = self.control.sessions.begin(
                request, limits, ends.balances(who, kind, request.cpus)
            )
        except Refused as refused:
            raise as_refusal(self.control, refused.denied, who, kind) from None
        if new:
            self.control.drives_at_start.hand_on(session)
            self.control.orchestrator.start(session)
        self.control.keys.remember(self.user.name, key, body, session.id)
        self._reply_with(session, new=new)

    def _request(self, file: dict[str, Any], accelerator: str, shape: str) -> Request:
        service = self.control.service
        return Request(
            self.user.name,
            file["id"],
            file["name"],
            accelerator,
            shape,
            service.settings.runtimes.backend,
            self._device(accelerator) if self._live_of(file["id"]) is None else None,
            self.user.groups,
            service.settings.runtimes.shapes[shape].cpus,
            price_of(self.control.orchestrator.ends.rules, accelerator),
        )

    def _reply_with(self, session: Session, *, new: bool = False) -> None:
        self.set_header("Location", f"/services/control/api/v1/runtimes/{session.id}")
        waiting = new or session.state in (State.QUEUED, State.STARTING)
        self.reply(self.model(session), 202 if waiting else 200)

    def _live_of(self, file_id: str) -> Session | None:
        return next(
            (s for s in self.control.sessions.ledger.live(self.user.name) if s.file_id == file_id), None
        )

    def _check_shape(self, shape: str) -> None:
        shapes = self.control.service.settings.runtimes.shapes
        if shape not in shapes:
            message = f"Unknown shape '{printable(shape, 40)}'. Available: {', '.join(sorted(shapes))}."
            raise ApiError(400, "unknown_shape", message, field="shape")

    def _device(self, accelerator: str) -> str | None:
        """Return the device file granted for the accelerator. Raise 400 unknown, 409 not available."""
        if accelerator == NONE:
            return None
        held = held_devices(self.control)
        offered = {f.name: f for f in self.control.accelerators.flavors(held)}
        if accelerator not in offered:
            message = f"Unknown accelerator '{printable(accelerator, 40)}'. Available: {', '.join(offered)}."
            raise ApiError(400, "unknown_accelerator", message, field="accelerator")
        device = self.control.accelerators.pick(accelerator, held)
        if device is None and offered[accelerator].available and self.control.accelerators.queues:
            return None  # it is waited for
        if device is None:
            message = f"No {accelerator} is free now: {offered[accelerator].reason}"
            denial = Denied("accelerator_unavailable", message, 0, 0)
            raise as_refusal(self.control, denial, self.who(), Kind(accelerator, "STANDARD"))
        return device.node

    def get(self) -> None:
        offset, limit = self.page()
        file_id = self.get_query_argument("file_id", None)
        state = self.get_query_argument("state", None)
        every = self.get_query_argument("all", "false")
        if state is not None and state not in set(State):
            raise bad_request("bad_state", f"state must be one of: {', '.join(State)}.", field="state")
        if every not in ("true", "false"):
            raise bad_request("bad_type", "all must be true or false.", field="all")
        states = frozenset({State(state)}) if state is not None else None if every == "true" else LIVE
        which = Filter(self.user.name, file_id, states)
        found, total = self.control.sessions.ledger.find(which, offset, limit)
        self.listing(found, total, offset, limit)


def held_devices(control: Control) -> frozenset[str]:
    """Return the device files that live runtimes have."""
    return frozenset(s.device for s in control.sessions.ledger.live() if s.device is not None)


class RuntimeHandler(ControlHandler):
    """`runtimes/<id>`"""

    def get(self, runtime_id: str) -> None:
        session = self.own(runtime_id)
        self.reply({**self.model(session), "content": self.control.snapshots.became_of(session)})

    async def delete(self, runtime_id: str) -> None:
        session = self.own(runtime_id)
        if session.state in LIVE:
            session = await self.control.orchestrator.stop(session, USER_DELETED)
        self.reply(self.model(session))


class EventsHandler(ControlHandler):
    """`runtimes/<id>/events`: server-sent events until the runtime has ended."""

    async def get(self, runtime_id: str) -> None:
        session = self.own(runtime_id)
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("X-Accel-Buffering", "no")
        try:
            if session.state not in LIVE:
                await self._send("ended", self.model(session), "ended")
                return
            channel = self.control.orchestrator.channel(runtime_id)
            seen = channel.number_of(self.request.headers.get("Last-Event-ID", ""))
            if seen is None:
                seen = channel.last_number
                await self._send(
                    EVENT_OF.get(session.state, "phase"), self.model(session), channel.id_of(seen)
                )
            while True:
                events = await channel.after(seen, KEEP_ALIVE_SECONDS)
                if not events:
                    self.write(": still here\n\n")
                    await self.flush()
                for event in events:
                    seen = event.number
                    await self._send(event.name, event.data, channel.id_of(event.number))
                    if event.name == "ended":
                        return
        except iostream.StreamClosedError:
            return  # the listener went away

    async def _send(self, name: str, data: dict[str, Any], event_id: str) -> None:
        self.write(f"id: {event_id}\nevent: {name}\ndata: ".encode() + dump_json(data) + b"\n\n")
        await self.flush()


class TokenHandler(ControlHandler):
    """`runtimes/<id>/token`: a ticket for the runtime."""

    def post(self, runtime_id: str) -> None:
        session = self.live(runtime_id)
        service = self.control.service
        expires = self.control.clock.now() + TICKET_LIFETIME
        key = runtime_key(service.key("ticket"), session.id)
        token = mint(key, session.id, session.user, int(expires.timestamp()), secrets.token_urlsafe(9))
        path = f"/user/{quote(session.user, safe='@~')}/{session.id}/"
        self.reply(
            {
                "url": service.api_origin + path,
                "browser_url": service.runtime_origin(session.user) + path,
                "token": token,
                "expires_at": iso(expires.replace(microsecond=0)),
            }
        )


class KeepHandler(ControlHandler):
    """`runtimes/<id>/keep`: a person says that they are there."""

    async def post(self, runtime_id: str) -> None:
        self.reply(self.model(await self.control.orchestrator.ends.used(self.live(runtime_id))))


class ResourcesHandler(ControlHandler):
    """`runtimes/<id>/resources`"""

    async def get(self, runtime_id: str) -> None:
        session = self.live(runtime_id)
        r = await self.control.orchestrator.backend.resources(session.id)
        self.reply(
            {
                "memory": {"used_bytes": r.memory_used, "limit_bytes": r.memory_limit},
                "disk": {"used_bytes": r.disk_used, "free_bytes": r.disk_free},
                "processes": r.processes,
            }
        )


class MountsHandler(ControlHandler):
    """`runtimes/<id>/mounts`: the owner's Drive inside the runtime. The call is the consent."""

    async def prepare(self) -> None:
        token = bearer_token(self)
        runtime_id = self.path_args[0] if self.path_args else ""
        user = self.control.consent.user_of_token(token, runtime_id) if token is not None else None
        if user is None:
            await super().prepare()
            return
        self.user = User(user, admin=False, via="token")

    async def get(self, runtime_id: str) -> None:
        session = self.live(runtime_id)
        mounts = await self.control.orchestrator.backend.mounts(session.id)
        self.reply({"items": [{"path": m.target, "readonly": m.readonly} for m in mounts]})

    async def post(self, runtime_id: str) -> None:
        session = self.live(runtime_id)
        body = self.json_body()
        only_fields(body, {"path", "readonly"})
        path = mount_path(text_field(body, "path", default="/content/drive", max_length=1024))
        readonly = body.get("readonly", False)
        if not isinstance(readonly, bool):
            raise bad_request("bad_type", "readonly must be true or false.", field="readonly")
        source = str(await asyncio.to_thread(self.control.drive.drive_folder, session.user))
        backend = self.control.orchestrator.backend
        try:
            await backend.mount(session.id, source=source, target=path, readonly=readonly)
        except BackendError as error:
            if error.code == "restart_needed":
                self.control.drives_at_start.agree(session, path, readonly=readonly)
            raise
        detail = {"path": path, "readonly": readonly}
        self.control.sessions.ledger.record(session.id, "mounted", detail, self.control.clock.now())
        self.reply(detail, 201)

    async def delete(self, runtime_id: str) -> None:
        session = self.live(runtime_id)
        path = mount_path(self.get_query_argument("path", "/content/drive"))
        self.control.drives_at_start.withdraw(session)
        await self.control.orchestrator.backend.unmount(session.id, target=path)
        self.control.sessions.ledger.record(session.id, "unmounted", {"path": path}, self.control.clock.now())
        self.reply({"path": path})


def mount_path(text: str) -> str:
    """Return the mountpoint, or raise 400 `bad_mountpoint`."""
    parts = [p for p in text.split("/") if p not in ("", ".")]
    if (
        not text.startswith("/content/")
        or len(parts) < 2
        or ".." in parts
        or any(not c.isprintable() or c.isspace() for c in text)
        or len(text) > 1024
        or any(len(p.encode("utf-8", "replace")) > 255 for p in parts)
    ):
        raise bad_request(
            "bad_mountpoint", "The mountpoint must be a folder below /content, without spaces.", field="path"
        )
    return "/" + "/".join(parts)


class SessionsHandler(ControlHandler):
    """`sessions`: the record of past and present runtimes."""

    def get(self) -> None:
        offset, limit = self.page()
        user: str | None = self.user.name
        asked = self.get_query_argument("user", None)
        if asked is not None and asked != self.user.name:
            self.admin()
            user = None if asked == "*" else asked
        items, total = self.control.sessions.ledger.find(Filter(user=user), offset, limit)
        self.listing(items, total, offset, limit)


class AcceleratorsHandler(ControlHandler):
    """`accelerators`: what one may choose under Change runtime type."""

    def get(self) -> None:
        flavors = self.control.accelerators.flavors(held_devices(self.control))
        shapes = self.control.service.settings.runtimes.shapes
        self.reply(
            {
                "items": [asdict(f) for f in flavors],
                "shapes": [
                    {"name": n, "memory_bytes": s.memory, "cpus": s.cpus} for n, s in sorted(shapes.items())
                ],
            }
        )


class EnvironmentHandler(ControlHandler):
    """`environment`: how far the runtime environment is."""

    def get(self) -> None:
        self.reply(asdict(environment_status(self.control.service)))


class IsolationHandler(ControlHandler):
    """`isolation`: what the backend keeps apart on this machine."""

    async def get(self) -> None:
        report = await asyncio.to_thread(
            self.control.orchestrator.backend.isolation
        )  # probes the machine once
        self.reply(asdict(report))


class AdminRuntimesHandler(ControlHandler):
    """`admin/runtimes`: every live runtime."""

    def get(self) -> None:
        self.admin()
        offset, limit = self.page()
        found, total = self.control.sessions.ledger.find(Filter(states=LIVE), offset, limit)
        self.listing(found, total, offset, limit)


class AdminRuntimeHandler(ControlHandler):
    """`admin/runtimes/<id>`: end somebody's runtime, with a reason they can read."""

    async def delete(self, runtime_id: str) -> None:
        self.admin()
        session = self.control.sessions.ledger.get(runtime_id) if len(runtime_id) <= 32 else None
        if session is None:
            raise not_found("No such runtime.")
        body = self.json_body() if self.request.body else {}
        only_fields(body, {"reason"})
        why = text_field(body, "reason", default="", max_length=200)
        if session.state in LIVE:
            message = (
                f"An administrator ended the runtime{': ' + printable(why, 200) if why.strip() else '.'}"
            )
            session = await self.control.orchestrator.stop(session, Reason("admin", message))
        self.reply(self.model(session))


class AliveHandler(ControlHandler):
    """`livez`: this process answers, whatever its database does; a restart would mend nothing there. No sign-in needed."""

    async def prepare(self) -> None:
        pass

    def get(self) -> None:
        self.reply({"status": "ok"})


class HealthHandler(AliveHandler):
    """`healthz`: it can do its work."""

    def get(self) -> None:
        self.control.sessions.ledger.get("r-health")  # the database answers
        self.reply({"status": "ok"})
