"""The one place that picks parts: which backend, which environment, which drive."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from gpu_scheduler.kube import KubeInventory
from gpu_scheduler.model import ClaimLimits, Flavor
from gpu_scheduler.queue import ClaimQueue
from gpu_scheduler.sql import SqlClaims
from hub.kubernetes_settings import TolerationSettings
from hub.quota_settings import BudgetSettings, QuotaSettings, RuleSettings
from hub.settings import Service, Settings, SettingsError
from hub.setup.runtime_environment import catalogue_of, environment_for
from quota.clock import SystemClock
from quota.model import Budget, Limits, Per, Rule, Rules, Unit, Window
from quota.sql import create_engine
from quota.ticket import runtime_key, supervisor_key
from quota.windows import ROLLING
from spawner.catalogue import CatalogueEntry
from spawner.ended import Ended
from spawner.environment import Progress, RuntimeEnvironment
from spawner.kubernetes.model import Installation, PodFlavor
from spawner.local.backend import LocalBackend
from spawner.model import Budget as CarriedBudget
from spawner.model import DriveAtStart, EndReason, IsolationReport, RuntimeSpec, Shape
from spawner.ports import RuntimeBackend
from storage_mount.service import DriveService

if TYPE_CHECKING:
    from spawner.kubernetes.gates import PodGates

SPAWN_SPARE_SECONDS = 180.0
ADMINISTRATORS_EXTENSION_SECONDS = (
    24 * 3600.0
)  # how much longer than the rules allow an administrator may let a pod live


def make_backend(service: Service) -> RuntimeBackend:
    """Return the backend the settings name."""
    if service.settings.runtimes.backend == "docker":
        return _docker_backend(service)
    if service.settings.runtimes.backend == "kubernetes":
        return _kubernetes_backend(service)
    _, environment = _environment(service)
    local = service.settings.runtimes.local
    return LocalBackend(
        service.runtimes_folder,
        environment.env,
        environment.code,
        isolation=local.isolation,
        allow_plain_multiuser=local.allow_plain_multiuser,
    )


def _kubernetes_backend(service: Service) -> RuntimeBackend:
    # Its client takes a third of a second to load; who runs no cluster does not pay for it.
    from spawner.kubernetes.backend import KubernetesBackend
    from spawner.kubernetes.client import ApiFault, connect

    try:
        cluster = connect(service.settings.runtimes.kubernetes.kubeconfig)
    except ApiFault as fault:
        raise SettingsError(f"runtimes.kubernetes: {fault}") from fault
    master = service.key("ticket")
    return KubernetesBackend(
        cluster,
        kubernetes_installation(service.settings),
        lambda i: supervisor_key(master, i),
        Ended(service.runtimes_folder / ".ended"),
    )


def make_claim_queue(
    service: Service, engine: Engine, backend: RuntimeBackend
) -> tuple[ClaimQueue, PodGates] | None:
    """Return the queue for the accelerators of a cluster and who opens its gates; None where there is no cluster."""
    if service.settings.runtimes.backend != "kubernetes":
        return None
    from spawner.kubernetes.backend import KubernetesBackend

    assert isinstance(backend, KubernetesBackend)
    a = service.settings.accelerators
    flavors = {
        name: Flavor(name, f.title, f.resource, f.count, f.node_selector, f.autoscaled)
        for name, f in a.flavors.items()
    }
    limits = ClaimLimits(a.max_per_user, a.max_per_team)
    return ClaimQueue(SqlClaims(engine), KubeInventory(backend.nodes), flavors, limits), backend.gates


def kubernetes_installation(settings: Settings) -> Installation:
    """Return how the settings want runtimes to be made in a cluster."""
    k, q = settings.runtimes.kubernetes, settings.quota
    limits = [(q.extensions, q.extend_by)]
    limits += [
        (r.extensions if r.extensions is not None else q.extensions, r.extend_by or q.extend_by)
        for r in q.rules
    ]
    longer = max(times * by.total_seconds() for times, by in limits)
    return Installation(
        namespace=k.namespace,
        name=k.installation,
        image=k.image or "",
        image_pull_policy=k.image_pull_policy,
        pull_secrets=k.pull_secrets,
        service_account=k.service_account,
        node_selector=k.node_selector,
        tolerations=_tolerations(k.tolerations),
        drives=k.drives,
        drive_claim=k.drive_claim or "",
        flavors={
            name: PodFlavor(
                f.resource, f.count, f.node_selector, _tolerations(f.tolerations), f.runtime_class, f.image
            )
            for name, f in settings.accelerators.flavors.items()
        },
        cpu_share=k.cpu_share,
        memory_share=k.memory_share,
        disk_bytes=k.disk,
        priority_class=k.priority_class,
        user_namespaces=k.user_namespaces,
        extension_seconds=longer + ADMINISTRATORS_EXTENSION_SECONDS,
        start_seconds=k.start_timeout.total_seconds(),
    )


def spawn_seconds(settings: Settings) -> int:
    """Return how long the hub waits for a start; the backend gives up before, and knows why."""
    if settings.runtimes.backend != "kubernetes":
        return 600
    return math.ceil(settings.runtimes.kubernetes.start_timeout.total_seconds() + SPAWN_SPARE_SECONDS)


def _tolerations(tolerations: tuple[TolerationSettings, ...]) -> tuple[dict[str, Any], ...]:
    return tuple(t.model_dump(exclude_none=True) for t in tolerations)


def _environment(service: Service) -> tuple[CatalogueEntry, RuntimeEnvironment]:
    runtimes = service.settings.runtimes
    return environment_for(runtimes.environment, runtimes.catalogue)


def runtime_image(settings: Settings) -> str:
    """Return what the catalogue says the image of runtimes is: by its digest, where it has one."""
    runtimes = settings.runtimes
    entry, _ = environment_for(runtimes.environment, runtimes.catalogue)
    return entry.image.reference(catalogue_of(runtimes.catalogue).registry)


def _docker_backend(service: Service) -> RuntimeBackend:
    from gpu_scheduler.nvml import NvmlInventory  # not needed by who runs no containers
    from spawner.docker.backend import DockerBackend
    from spawner.docker.containers import ContainerSettings

    docker = service.settings.runtimes.docker
    installation = hashlib.sha256(str(service.state).encode()).hexdigest()[:12]
    settings = ContainerSettings(
        installation=installation,
        image=docker.image or runtime_image(service.settings),
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
        device_names=lambda: {d.node: d.id for d in NvmlInventory().read().devices if d.node},
    )


def environment_status(service: Service) -> Progress:
    """Return how far the runtime environment is; an image brings its own, and its pull is told by the start itself."""
    if service.settings.runtimes.backend != "local":
        return Progress("complete", "In the runtime's image", 1.0, 0.0)
    _, environment = _environment(service)
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
            drive=_drive_at_start(options.get("drive")),
        )

    return build


def _carried(budget: dict[str, Any] | None) -> CarriedBudget | None:
    if budget is None:
        return None
    reason = EndReason(str(budget["code"]), str(budget["message"]))
    return CarriedBudget(float(budget["seconds"]), reason)


def _drive_at_start(drive: dict[str, Any] | None) -> DriveAtStart | None:
    return DriveAtStart(str(drive["id"]), bool(drive["readonly"])) if drive is not None else None


def make_drive(service: Service) -> DriveService:
    """Return the Drive of this installation."""
    return DriveService(create_engine(service.documents_database_url), service.drive_root, SystemClock())
