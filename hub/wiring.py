"""The one place that picks parts: which backend, which environment, which drive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hub.settings import Service
from hub.setup.runtime_environment import environment_for
from quota.clock import SystemClock
from quota.sql import create_engine
from quota.ticket import runtime_key
from spawner.environment import Progress
from spawner.local.backend import LocalBackend
from spawner.model import IsolationReport, RuntimeSpec, Shape
from spawner.ports import RuntimeBackend
from storage_mount.service import DriveService


def make_backend(service: Service) -> RuntimeBackend:
    """Return the backend the settings name."""
    _, environment = environment_for(service.settings.runtimes.environment)
    local = service.settings.runtimes.local
    return LocalBackend(
        service.runtimes_folder,
        environment.env,
        environment.code,
        isolation=local.isolation,
        allow_plain_multiuser=local.allow_plain_multiuser,
    )


def environment_status(service: Service) -> Progress:
    """Return how far the runtime environment is."""
    _, environment = environment_for(service.settings.runtimes.environment)
    return environment.status()


def isolation_report(service: Service) -> IsolationReport:
    """Return what the backend keeps apart on this machine."""
    return make_backend(service).isolation()


def shape_of(service: Service, name: str) -> Shape:
    """Return the shape called `name`. Raise KeyError."""
    s = service.settings.runtimes.shapes[name]
    return Shape(name, s.memory, s.cpus, s.processes)


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
        )

    return build


def make_drive(service: Service) -> DriveService:
    """Return the Drive of this installation."""
    return DriveService(create_engine(service.documents_database_url), service.drive_root, SystemClock())
