"""A development aid: the Drive page without a hub, for looking at it.

The documents service is the real one, with a real Drive in the folder `--state`. Two things are stand-ins, and nothing of an
installation uses this module: the hub knows one user, who is signed in by opening `/dev/sign-in`; and control shows the runtimes that
`PUT /dev/runtimes` was given. Loopback only.

    .venv/bin/python hub/frontend/drive/dev/server.py --state /tmp/drive-page --port 8765
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import create_signed_value

from hub.documents import api
from hub.documents.app import make_server, start
from hub.settings import Ports, Service, Settings
from hub.web.identity import SESSION_COOKIE
from hub.wiring import make_drive
from quota.clock import SystemClock

TOKEN = "the-one-token"
CONTROL_DOWN = "down"


class StandInHub(web.RequestHandler):
    """`/hub/api/user`, as JupyterHub answers it."""

    def get(self) -> None:
        if self.request.headers.get("Authorization") != f"token {TOKEN}":
            self.set_status(403)
            self.finish({"status": 403})
            return
        self.finish({"kind": "user", "name": "ada", "admin": True, "scopes": ["access:services"]})


class SignIn(web.RequestHandler):
    """`/dev/sign-in`: become ada, and go to the Drive."""

    def get(self) -> None:
        service: Service = self.settings["service"]
        value = create_signed_value(service.key("session"), SESSION_COOKIE, TOKEN).decode()
        self.set_cookie(SESSION_COOKIE, value, path="/", httponly=True, samesite="Lax")
        self.redirect("/drive")


class SignOut(web.RequestHandler):
    """`/dev/sign-out`: end the session without leaving the page, as time does."""

    def get(self) -> None:
        self.clear_cookie(SESSION_COOKIE, path="/")
        self.finish({})


class StandInRuntimes(web.RequestHandler):
    """What control says is running: whatever was put here; the word "down" makes it fail."""

    shown: str = "[]"

    def check_xsrf_cookie(self) -> None:
        """Loopback only, and nothing here is worth protecting."""

    def put(self) -> None:
        type(self).shown = self.request.body.decode("utf-8")
        self.finish({})

    def get(self) -> None:
        if self.shown == CONTROL_DOWN:
            self.set_status(503)
            self.finish({})
            return
        items: list[dict[str, Any]] = json.loads(self.shown)
        self.finish({"items": items, "total": len(items), "offset": 0, "limit": 200})


async def serve(state: Path, port: int) -> None:
    """Serve until SIGTERM or SIGINT; print the address of the page when it answers."""
    hub = HTTPServer(web.Application([(r"/hub/api/user", StandInHub)]))
    hub_socket, hub_port = bind_unused_port()
    hub.add_sockets([hub_socket])
    # pages, also the browser's Origin, name the host as an installation does
    socket, port = _socket(port)
    service = Service(
        state=state,
        settings=Settings(),
        ports=Ports(public=port, proxy_api=1, hub=hub_port, documents=port, control=1),
        documents_token="documents",
        control_token="control",
        proxy_token="proxy",
    )
    (state / "databases").mkdir(mode=0o700, parents=True, exist_ok=True)
    documents = await start(service, make_drive(service), SystemClock(), api.routes())
    documents.application.add_handlers(
        r".*",
        [
            (r"/dev/sign-in", SignIn),
            (r"/dev/sign-out", SignOut),
            (r"/dev/runtimes", StandInRuntimes),
            (r"/services/control/api/v1/runtimes", StandInRuntimes),
        ],
    )
    server = make_server(service, documents)
    server.add_sockets([socket])
    sys.stdout.write(f"http://localhost:{port}/dev/sign-in\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    server.stop()
    hub.stop()
    await documents.stop()


def _socket(port: int) -> tuple[Any, int]:
    if port == 0:
        return bind_unused_port()
    from tornado.netutil import bind_sockets

    return bind_sockets(port, "127.0.0.1")[0], port


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the Drive page for development.")
    parser.add_argument("--state", type=Path, required=True, help="folder for the Drive and its database")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 takes a free one")
    arguments = parser.parse_args()
    arguments.state.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(arguments.state.resolve(), arguments.port))


if __name__ == "__main__":
    main()
