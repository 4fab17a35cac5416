"""Put the control service together."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tornado import web

from gpu_scheduler.nvml import NvmlInventory
from gpu_scheduler.queue import ClusterAccelerators
from gpu_scheduler.service import Accelerators
from hub.control import handlers, limit_pages, pages, quota_api
from hub.control.claims import ClaimCarrier
from hub.control.consent import ConsentStore, make_server
from hub.control.drives_at_start import DrivesAtStart
from hub.control.files import Files
from hub.control.handlers import Control
from hub.control.hub_client import HubClient
from hub.control.idempotency import IdempotencyKeys
from hub.control.orchestrator import Orchestrator
from hub.control.scribe import Scribe
from hub.control.snapshots import Snapshots
from hub.settings import Service
from hub.web.gate import GatedApplication
from hub.web.handlers import NotFoundHandler
from hub.web.identity import HubIdentity, IdentitySettings
from hub.wiring import make_backend, make_claim_queue, make_drive
from quota.clock import SystemClock
from quota.service import Sessions
from quota.sql import SqlLedger, create_engine
from quota.store import store_errors
from spawner.ports import RuntimeBackend

PREFIX = "/services/control/"
RUNTIME = r"(r-[a-z2-7]{12})"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BUSY_SECONDS = 0.25  # the database is control's own: a longer lock is answered with 503, not waited for


def make_control(service: Service, backend: RuntimeBackend | None = None) -> Control:
    """Return the parts of the service, wired, as the one instance that acts. Raise StoreError.

    `backend` None: the one the settings name.
    """
    clock = SystemClock()
    engine = create_engine(service.control_database_url, busy_seconds=BUSY_SECONDS)
    with store_errors(engine):
        sessions = Sessions(SqlLedger(engine), clock, BOOT_ID.read_text("ascii").strip())
        epoch = sessions.ledger.take_over(holder(service), clock.now())
    hub = HubClient(service.hub_api_url, service.control_token)
    drive = make_drive(service)
    kubernetes = service.settings.runtimes.backend == "kubernetes"
    at_start = kubernetes and service.settings.runtimes.kubernetes.drives_at_start
    drives_at_start = DrivesAtStart(sessions.ledger, drive, clock, needed=at_start)
    snapshots = Snapshots(drive, sessions.ledger)
    backend = backend or make_backend(service)
    queue = make_claim_queue(service, engine, backend)
    claims = ClaimCarrier(queue[0], queue[1], sessions.ledger) if queue is not None else None
    scribe = Scribe(service, service.url_of("documents"), backend, clock)
    return Control(
        service=service,
        sessions=sessions,
        orchestrator=Orchestrator(
            service, sessions, backend, hub, snapshots, drives_at_start, scribe, epoch, claims
        ),
        files=Files(service.url_of("documents")),
        keys=IdempotencyKeys(engine, clock),
        accelerators=ClusterAccelerators(claims.queue)
        if claims is not None
        else Accelerators(NvmlInventory()),
        consent=ConsentStore(engine, sessions.ledger, clock),
        drive=drive,
        drives_at_start=drives_at_start,
        snapshots=snapshots,
        clock=clock,
    )


def holder(service: Service) -> str:
    """Return what the database says about who acts: for people, and its address for those who stand by."""
    return f"process {os.getpid()} of {socket.gethostname()}" + (
        f" at {service.addresses.own}" if service.addresses.own else ""
    )


def make_app(control: Control) -> web.Application:
    """Return the web application."""
    service = control.service
    identity = HubIdentity(
        IdentitySettings(
            hub_api_url=service.hub_api_url,
            api_token=service.control_token,
            service_name="control",
            oauth_client_id="service-documents",
            oauth_redirect_uri=f"{service.app_origin}/services/documents/oauth_callback",
            hub_public_url=service.hub_public_url,
            app_origin=service.app_origin,
            cookie_secret=service.key("session"),
            secure_cookies=service.settings.service.https,
        ),
        control.clock,
    )
    api = PREFIX + "api/v1/"
    routes = [
        (PREFIX + "healthz", handlers.HealthHandler),
        (PREFIX + "livez", handlers.AliveHandler),
        (api + "runtimes", handlers.RuntimesHandler),
        (api + f"runtimes/{RUNTIME}", handlers.RuntimeHandler),
        (api + f"runtimes/{RUNTIME}/events", handlers.EventsHandler),
        (api + f"runtimes/{RUNTIME}/token", handlers.TokenHandler),
        (api + f"runtimes/{RUNTIME}/keep", handlers.KeepHandler),
        (api + f"runtimes/{RUNTIME}/resources", handlers.ResourcesHandler),
        (api + f"runtimes/{RUNTIME}/mounts", handlers.MountsHandler),
        (api + f"runtimes/{RUNTIME}/extend", quota_api.ExtendHandler),
        (api + f"runtimes/{RUNTIME}/restore", quota_api.RestoreHandler),
        (api + "snapshots", quota_api.SnapshotsHandler),
        (api + "quota", quota_api.QuotaHandler),
        (api + "quota/keep_content", quota_api.KeepContentHandler),
        (api + "usage", quota_api.UsageHandler),
        (api + "sessions", handlers.SessionsHandler),
        (api + "accelerators", handlers.AcceleratorsHandler),
        (api + "environment", handlers.EnvironmentHandler),
        (api + "isolation", handlers.IsolationHandler),
        (api + "admin/runtimes", handlers.AdminRuntimesHandler),
        (api + f"admin/runtimes/{RUNTIME}", handlers.AdminRuntimeHandler),
        (api + f"admin/runtimes/{RUNTIME}/extend", quota_api.AdminExtendHandler),
        (api + "admin/quota", quota_api.AdminQuotaHandler),
        (api + "admin/grants", quota_api.GrantsHandler),
        (api + "admin/reload", quota_api.ReloadHandler),
        (PREFIX + "metrics", quota_api.MetricsHandler),
        (PREFIX + "oauth/authorize", pages.AuthorizeHandler),
        (PREFIX + "oauth/token", pages.OAuthTokenHandler),
        (PREFIX + "usage", limit_pages.UsagePageHandler),
        (PREFIX + "admin", limit_pages.AdminPageHandler),
        (PREFIX + ".*", NotFoundHandler),
        (
            r"/.*",
            pages.CanonicalHostHandler,
            {"app_origin": service.app_origin, "api_host": service.settings.service.api_host},
        ),
    ]
    return GatedApplication(
        routes,  # type: ignore[arg-type]  # tornado's own type forbids the mixed tuples it accepts
        control=control,
        identity=identity,
        oauth_server=make_server(control.consent),
        template_path=str(Path(__file__).parent / "templates"),
        default_handler_class=NotFoundHandler,
        log_function=lambda handler: None,
    )
