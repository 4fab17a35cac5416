"""The server a runtime answers with: Jupyter Server with the least it needs, started fast, opened by tickets only."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from minicolab_runtime import __version__
from minicolab_runtime.activity import Activity
from minicolab_runtime.connection import RuntimeWebsocketConnection
from minicolab_runtime.handlers import (
    ActivityHandler,
    ChangesHandler,
    ExecutionsHandler,
    ResourcesHandler,
)
from minicolab_runtime.identity import TicketIdentityProvider, WholeRuntimeAuthorizer, cors_headers
from minicolab_runtime.kernel_ahead import KernelAhead
from minicolab_runtime.kernels import RuntimeKernel, RuntimeKernelManager, RuntimeKernelSpecManager
from minicolab_runtime.memory import MemoryGauge
from minicolab_runtime.settings import RuntimeSettings, SettingsError, read_settings
from minicolab_runtime.socket_folder import socket_folder
from minicolab_runtime.terminals import count_typing

log = logging.getLogger(__name__)

EX_CONFIG = 78
END_FILE = "end.json"  # in MINICOLAB_RUNTIME_DIR: why the server ended by itself, for the supervisor
EXECUTIONS_FILE = "executions.json"  # there too: the executions and their outputs at an orderly end
MAX_EXECUTIONS_BYTES = 48_000_000  # of that file; the newest executions have the room
HUB_VERSION = "6.1"  # what the hub's own check of a server it started likes to see


class RuntimeServer(ServerApp):
    """Jupyter's ServerApp, set up by RuntimeSettings instead of configuration files."""

    runtime: RuntimeSettings
    ahead: KernelAhead | None
    name = "minicolab-runtime"
    no_browser_open_file = True

    def load_config_file(self, *args: Any, **kwargs: Any) -> None:
        """Read no configuration: a file in the user's folders must not be able to open the server."""

    def init_configurables(self) -> None:
        TicketIdentityProvider.settings = self.runtime
        super().init_configurables()
        self.activity = Activity()
        kernels = self._kernels
        kernels.activity = self.activity
        kernels.memory = MemoryGauge(fallback_limit=self.runtime.memory_bytes)
        kernels.on_unassign = self._unassign

    def init_webapp(self) -> None:
        super().init_webapp()
        settings = self.web_app.settings
        settings["minicolab_activity"] = self.activity
        settings["minicolab_settings"] = self.runtime
        settings["log_function"] = _count_edits(settings["log_function"], self.activity)
        count_typing(self.activity)
        base = self.base_url
        self.web_app.add_handlers(
            ".*$",
            [
                (url_path_join(base, "minicolab/activity"), ActivityHandler),
                (url_path_join(base, "minicolab/executions"), ExecutionsHandler),
                (url_path_join(base, "minicolab/executions/changes"), ChangesHandler),
                (url_path_join(base, "api/colab/resources"), ResourcesHandler),
            ],
        )

    def init_resources(self) -> None:
        """Leave the process's limits as the supervisor set them."""

    def _find_http_port(self) -> None:
        """Bind at once and keep the socket, so that port 0 names a port that is ours."""
        self._sockets = bind_sockets(self.port, self.ip)
        self.port = self._sockets[0].getsockname()[1]

    def _bind_http_server_tcp(self) -> bool:
        self.http_server.add_sockets(self._sockets)
        self.io_loop.add_callback(self._ready)
        return True

    def _ready(self) -> None:
        """Say that we answer, then warm up a kernel."""
        if self.runtime.ready_file is not None:
            facts = {"pid": os.getpid(), "host": self.ip, "port": self.port, "base_url": self.base_url}
            write_json(self.runtime.ready_file, facts)
        log.info("Runtime %s answers at port %s", self.runtime.runtime_id, self.port)
        if self.runtime.prestart:
            self._kernels.start_spare(self.ahead)

    @property
    def _kernels(self) -> RuntimeKernelManager:
        manager: object = self.kernel_manager
        assert isinstance(manager, RuntimeKernelManager)
        return manager

    async def cleanup_kernels(self) -> None:
        """End the kernels; first leave what they printed for whoever writes it to the document."""
        executions = last_words(await self._kernels.last_executions())
        if executions:
            try:
                write_json(self.runtime.runtime_dir / EXECUTIONS_FILE, {"executions": executions})
            except OSError as error:
                log.warning("the last outputs can not be left behind: %s", error)
        await super().cleanup_kernels()

    def _unassign(self) -> None:
        """End this runtime because its user's code asked for it (`google.colab.runtime.unassign()`)."""
        write_json(
            self.runtime.runtime_dir / END_FILE,
            {"code": "unassigned", "message": "The notebook ended its runtime itself (runtime.unassign())."},
        )
        log.info("The notebook asked to end this runtime")
        self.io_loop.add_callback(self.stop)

    def write_server_info_file(self) -> None:
        """Announce nothing in the user's folders: the ready file is enough."""

    def remove_server_info_file(self) -> None:
        """There is none."""


def configure(server: RuntimeServer, settings: RuntimeSettings) -> None:
    """Set the traits that make Jupyter's server ours."""
    config = server.config
    app = config.ServerApp
    app.ip, app.port, app.port_retries = settings.host, settings.port, 0
    app.base_url = settings.base_url
    app.root_dir = str(settings.root)
    app.allow_root = True  # inside a sandbox or container the user may well be root
    app.allow_remote_access = (
        True  # the proxy passes the user's own host name on; tickets guard, not host names
    )
    app.allow_origin = (
        settings.allow_origin or "null-and-void.invalid"
    )  # never empty: that would mean "any, with a token"
    app.open_browser = False
    app.quit_button = False
    app.trust_xheaders = False
    app.identity_provider_class = TicketIdentityProvider
    app.authorizer_class = WholeRuntimeAuthorizer
    app.kernel_manager_class = RuntimeKernelManager
    app.kernel_spec_manager_class = RuntimeKernelSpecManager
    app.kernel_websocket_connection_class = RuntimeWebsocketConnection
    app.jpserver_extensions = {"jupyter_server_terminals": True}
    app.tornado_settings = {
        "headers": {
            **cors_headers(settings.allow_origin),
            "X-JupyterHub-Version": HUB_VERSION,
            "Referrer-Policy": "no-referrer",
        },
        "websocket_max_message_size": 256 * 1024 * 1024,
    }
    app.max_body_size = app.max_buffer_size = 4 * 1024**3
    config.TicketIdentityProvider.token = ""
    config.RuntimeKernelManager.kernel_manager_class = f"{RuntimeKernel.__module__}.{RuntimeKernel.__name__}"
    config.KernelManager.transport = "ipc"
    config.RuntimeKernelManager.cull_idle_timeout = 0
    config.RuntimeKernelManager.default_kernel_name = "python3"
    config.AsyncIOLoopKernelRestarter.time_to_dead = 1.0
    # Pages stay connected to a kernel's sockets when its process is replaced; nobody else can have taken their names.
    config.AsyncIOLoopKernelRestarter.random_ports_until_alive = False
    config.RuntimeWebsocketConnection.iopub_msg_rate_limit = 0
    config.RuntimeWebsocketConnection.iopub_data_rate_limit = 0
    config.FileContentsManager.delete_to_trash = False
    config.ContentsManager.allow_hidden = True


def prepare_environment(sockets: Path) -> None:
    """Set where kernels keep their sockets, and what kernels and terminals inherit: this environment's programs first, and the marks notebooks look for."""
    environment = os.environ
    environment.pop("MINICOLAB_TICKET_KEY_FILE", None)
    environment["JUPYTER_RUNTIME_DIR"] = str(sockets)
    programs = str(Path(sys.executable).parent)
    path = environment.get("PATH", os.defpath)
    if programs not in path.split(os.pathsep):
        environment["PATH"] = programs + os.pathsep + path
    environment.setdefault("VIRTUAL_ENV", sys.prefix)
    environment.setdefault("COLAB_RELEASE_TAG", f"minicolab-{__version__}")
    environment.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    environment.setdefault("PIP_ROOT_USER_ACTION", "ignore")
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    environment.setdefault("SHELL", "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh")


def last_words(executions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest of the executions that fit into MAX_EXECUTIONS_BYTES, oldest first."""
    kept: set[str] = set()
    left = MAX_EXECUTIONS_BYTES
    for execution in sorted(executions, key=lambda one: int(one["changed"]), reverse=True):
        left -= len(json.dumps(execution, default=str))
        if left < 0:
            break
        kept.add(execution["msg_id"])
    return [execution for execution in executions if execution["msg_id"] in kept]


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Put JSON at `path` so that a reader sees all of it or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(value, default=str))
    beside.rename(path)


def _count_edits(log_request: Any, activity: Activity) -> Any:
    """Return a log function that also counts a person's changes to files as activity."""

    def logged(handler: RequestHandler) -> None:
        if handler.request.method not in ("GET", "HEAD", "OPTIONS") and handler.get_status() < 400:
            activity.touch()
        log_request(handler)

    return logged


def run(ahead: KernelAhead | None) -> int:
    """Run the server until it is told to stop; return the exit status. `ahead` becomes its first kernel."""
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"minicolab-runtime: {error}\n")
        return EX_CONFIG
    own_log = logging.getLogger("minicolab_runtime")
    own_log.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(levelname).1s %(asctime)s %(name)s] %(message)s"))
    own_log.addHandler(handler)
    settings.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket_folder(settings.runtime_dir) as sockets:
        prepare_environment(sockets)
        os.chdir(settings.root)
        asyncio.set_event_loop(asyncio.new_event_loop())
        server = RuntimeServer.instance()
        server.runtime, server.ahead = settings, ahead
        configure(server, settings)
        server.initialize(argv=[], find_extensions=False)
        server.start()
    return 0
