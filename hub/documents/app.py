"""Wires the service together and runs it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado import web
from tornado.httpserver import HTTPServer

import hub
from hub.documents import routes
from hub.documents.assets import AssetCache
from hub.documents.examples import Examples
from hub.documents.labextensions import Programs
from hub.documents.library import Library
from hub.documents.pages import make_templates
from hub.documents.preferences import Schemas
from hub.documents.rooms.rooms import Rooms
from hub.documents.rooms.store import HistoryStore
from hub.settings import Service
from hub.web.gate import GatedApplication
from hub.web.identity import HubIdentity, IdentitySettings
from hub.wiring import make_drive
from quota.clock import Clock, SystemClock
from storage_mount.service import DriveService

log = logging.getLogger(__name__)

HUB = Path(hub.__file__).parent


@dataclass
class Documents:
    """The running parts, in the order in which they end."""

    application: web.Application
    rooms: Rooms
    identity: HubIdentity

    async def stop(self) -> None:
        """Save open rooms and let go of everything."""
        await self.rooms.stop()
        await self.identity.close()


def identity_settings(service: Service) -> IdentitySettings:
    """Return who this service is to the hub."""
    return IdentitySettings(
        hub_api_url=service.hub_api_url,
        api_token=service.documents_token,
        service_name="documents",
        oauth_client_id="service-documents",
        oauth_redirect_uri=f"{service.app_origin}/services/documents/oauth_callback",
        hub_public_url=service.hub_public_url,
        app_origin=service.app_origin,
        cookie_secret=service.key("session"),
        secure_cookies=service.settings.service.https,
    )


async def start(service: Service, drive: DriveService, clock: Clock, rest: list[Any]) -> Documents:
    """Return the parts, ready to serve; `rest` is `hub.documents.api.routes()`. Raise UnknownRoutes."""
    identity = HubIdentity(identity_settings(service), clock)
    examples = Examples(HUB.parent / "examples")
    programs = Programs(ours=HUB / "labextension")
    library = Library(drive, examples)
    history = HistoryStore(service.state / "databases" / "rooms.sqlite")
    rooms = Rooms(library.shelf, history, clock, max_bytes=service.settings.drive.max_notebook)
    overrides = json.loads((HUB / "documents" / "overrides.json").read_text("utf-8"))
    table = [*routes.table(programs, HUB / "static"), *api_routes(rest), *routes.LAST]
    application = GatedApplication(
        table,
        compress_response=True,
        websocket_ping_interval=30,
        websocket_ping_timeout=20,
        websocket_max_message_size=service.settings.drive.max_notebook + (1 << 20),
        log_function=log_request,
        service=service,
        clock=clock,
        identity=identity,
        drive=drive,
        library=library,
        examples=examples,
        programs=programs,
        schemas=Schemas(programs, overrides),
        rooms=rooms,
        asset_cache=AssetCache(),
        templates=make_templates(HUB / "templates", programs.notebook),
        drive_page=HUB / "templates" / "drive.html",
        users_folder=service.state / "users",
        max_notebook=service.settings.drive.max_notebook,
        max_upload=service.settings.drive.max_upload,
    )
    routes.check(application, routes.allowed_routes())
    await rooms.start()
    return Documents(application, rooms, identity)


def api_routes(own: list[Any]) -> list[Any]:
    """Return the routes of `hub.documents.api` below `api/v1/`."""
    return [(r"/services/documents/api/v1" + "/" + pattern.lstrip("/"), *rest) for pattern, *rest in own]


def log_request(handler: web.RequestHandler) -> None:
    """Log what failed or took long; never a query, which may hold a code."""
    status, seconds = handler.get_status(), handler.request.request_time()
    if status >= 500:
        log.error(
            "%s %s answered %d in %.3f s", handler.request.method, handler.request.path[:200], status, seconds
        )
    elif seconds > 1:
        log.info(
            "%s %s answered %d in %.3f s", handler.request.method, handler.request.path[:200], status, seconds
        )


def make_server(service: Service, documents: Documents) -> HTTPServer:
    """Return the HTTP server: a notebook fits into a body, an upload raises the limit for itself and is streamed."""
    largest = service.settings.drive.max_notebook + (1 << 20)
    return HTTPServer(
        documents.application, max_body_size=largest, idle_connection_timeout=300, body_timeout=3600
    )


async def serve(service: Service) -> None:
    """Run until SIGTERM or SIGINT."""
    from hub.documents import api

    clock = SystemClock()
    (service.state / "databases").mkdir(mode=0o700, parents=True, exist_ok=True)
    drive = make_drive(service)
    documents = await start(service, drive, clock, api.routes())
    server = make_server(service, documents)
    server.listen(service.ports.documents, service.addresses.bind)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    log.info("documents is ready at %s/services/documents/", service.url_of("documents"))
    try:
        await ended.wait()
    finally:
        server.stop()
        await documents.stop()
        log.info("documents has ended")
