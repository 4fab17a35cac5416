"""The one place that picks parts: which backend, which environment, which drive."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hub.settings import BudgetSettings, QuotaSettings, RuleSettings, Service
from hub.setup.images import PREFIX
from hub.setup.runtime_environment import environment_for
from quota.clock import SystemClock
from quota.model import Budget, Limits, Per, Rule, Rules, Unit, Window
from quota.sql import create_engine
from quota.ticket import runtime_key, supervisor_key
from quota.windows import ROLLING
from spawner.environment import Progress
from spawner.local.backend import LocalBackend
from spawner.model import Budget as CarriedBudget
from spawner.model import EndReason, IsolationReport, RuntimeSpec, Shape
from spawner.ports import RuntimeBackend
from storage_mount.service import DriveService


def make_backend(service: Service) -> RuntimeBackend:
    """Return the backend the settings name."""
    if service.settings.runtimes.backend == "docker":
        return _docker_backend(service)
    _, environment = environment_for(service.settings.runtimes.environment)
    local = service.settings.runtimes.local
    return LocalBackend(
        service.runtimes_folder,
        environment.env,
        environment.code,
        isolation=local.isolation,
        allow_plain_multiuser=local.allow_plain_multiuser,
    )


def _docker_backend(service: Service) -> RuntimeBackend:
    from spawner.docker.backend import DockerBackend  # not needed by who runs no containers
    from spawner.docker.containers import ContainerSettings

    docker = service.settings.runtimes.docker
    entry, _ = environment_for(service.settings.runtimes.environment)
    installation = hashlib.sha256(str(service.state).encode()).hexdigest()[:12]
    settings = ContainerSettings(
        installation=installation,
        image=docker.image or f"{PREFIX}/{entry.image}",
        network=docker.network or f"minicolab-{installation}",
        root=docker.mode == "root",
        disk_bytes=docker.disk,
    )
    master = service.key("ticket")
    return DockerBackend(
        service.runtimes_folder,
        lambda runtime_id: supervisor_key(master, runtime_id),
        settings,
        url=docker.url,
        pull=docker.pull,
    )


def environment_status(service: Service) -> Progress:
    """Return how far the runtime environment is; an image brings its own, and its pull is told by the start itself."""
    if service.settings.runtimes.backend != "local":
        return Progress("complete", "In the runtime's image", 1.0, 0.0)
    _, environment = environment_for(service.settings.runtimes.environment)
    return environment.status()


def isolation_report(service: Service) -> IsolationReport:
    """Return what the backend keeps apart on this machine."""
    return make_backend(service).isolation()


def shape_of(service: Service, name: str) -> Shape:
    """Return the shape called `name`. Raise KeyError."""
    s = service.settings.runtimes.shapes[name]
    return Shape(name, s.memory, s.cpus, s.processes)


def quota_rules(q: QuotaSettings) -> Rules:
    """Return the rules that the settings name."""
    base = Limits(
        q.max_lifetime.total_seconds(),
        q.idle_limit.total_seconds(),
        tuple(w.total_seconds() for w in q.warn_before),
        q.max_runtimes,
        q.extensions,
        q.extend_by.total_seconds(),
    )
    rules, budgets = tuple(_rule(r) for r in q.rules), tuple(_budget(b) for b in q.budgets)
    return Rules(base, rules, budgets, dict(q.prices), q.time_zone)


def _rule(r: RuleSettings) -> Rule:
    return Rule(
        users=_names(r.users),
        groups=_names(r.groups),
        accelerators=_names(r.accelerators),
        shapes=_names(r.shapes),
        allow=r.allow,
        max_lifetime_seconds=_seconds(r.max_lifetime),
        idle_limit_seconds=_seconds(r.idle_limit),
        warn_before_seconds=tuple(w.total_seconds() for w in r.warn_before)
        if r.warn_before is not None
        else None,
        max_runtimes=r.max_runtimes,
        extensions=r.extensions,
        extend_by_seconds=_seconds(r.extend_by),
    )


def _budget(b: BudgetSettings) -> Budget:
    window = Window(b.window) if isinstance(b.window, str) else Window(ROLLING, b.window.total_seconds())
    return Budget(b.name, Per(b.per), Unit(b.unit), b.hours, window, _names(b.groups), _names(b.accelerators))


def _names(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return frozenset(names) if names is not None else None


def _seconds(duration: timedelta | None) -> float | None:
    return duration.total_seconds() if duration is not None else None


def runtime_spec_builder(service: Service) -> Callable[[str, str, dict[str, Any]], RuntimeSpec]:
    """Return what turns a hub user, a base URL and control's options into a RuntimeSpec."""
    master = service.key("ticket")

    def build(user: str, base_url: str, options: dict[str, Any]) -> RuntimeSpec:
        runtime_id = str(options["runtime_id"])
        return RuntimeSpec(
            id=runtime_id,
            user=user,
            file_id=str(options["file_id"]),
            base_url=base_url,
            shape=shape_of(service, str(options["shape"])),
            accelerator=str(options["accelerator"]),
            devices=tuple(str(d) for d in options.get("devices", ())),
            max_lifetime_seconds=float(options["max_lifetime_seconds"]),
            idle_limit_seconds=float(options["idle_limit_seconds"]),
            ticket_key=runtime_key(master, runtime_id),
            allow_origin=service.app_origin,
            control_url=service.kernel_control_url,
            public_control_url=f"{service.app_origin}/services/control/",
            budget=_carried(options.get("budget")),
            snapshot_bytes=int(options.get("snapshot_bytes", 0)),
        )

    return build


def _carried(budget: dict[str, Any] | None) -> CarriedBudget | None:
    if budget is None:
        return None
    reason = EndReason(str(budget["code"]), str(budget["message"]))
    return CarriedBudget(float(budget["seconds"]), reason)


def make_drive(service: Service) -> DriveService:
    """Return the Drive of this installation."""
    return DriveService(create_engine(service.documents_database_url), service.drive_root, SystemClock())
