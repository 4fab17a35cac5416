"""`minicolab up` and `down`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from hub.auth.accounts import Accounts
from hub.auth.oidc import discover
from hub.cli.common import IO_ERROR, SETTINGS, TRY_LATER, add_state, fail, hub_api, state_of
from hub.installation import AlreadyRunning, HolderFile, hold, port_is_free, prepare, read_holder
from hub.proxy_process import proxy_command, proxy_environment
from hub.settings import Service, Settings, SettingsError, load_settings
from hub.setup.npm_package import proxy_script
from hub.supervise import ProcessFailed, Program, Supervisor, last_lines
from hub.wiring import make_backend
from quota.clock import SystemClock
from spawner.model import EndReason

START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 60.0
FIRST_ADMIN = "admin"
STOPPED = EndReason("service_stopped", "The service was stopped.")
log = logging.getLogger("minicolab")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = commands.add_parser("up", help="start the whole service and print its link")
    up.add_argument(
        "--config",
        type=Path,
        default=None,
        metavar="FILE",
        help="minicolab.yaml (default: built-in defaults)",
    )
    up.add_argument(
        "--port",
        type=int,
        default=None,
        help="port of the service (default: service.port of the settings, 8000)",
    )
    up.add_argument(
        "--detach", action="store_true", help="return once the service is ready; end it with 'minicolab down'"
    )
    up.add_argument(
        "--torch-index", default=None, metavar="WHERE", help="folder or index of PyTorch wheels to prefer"
    )
    up.add_argument(
        "--no-environment",
        action="store_true",
        help="do not install the runtime environment in the background",
    )
    add_state(up)
    up.set_defaults(run=_up)
    down = commands.add_parser("down", help="end the service and its runtimes")
    add_state(down)
    down.set_defaults(run=_down)


def _settings(arguments: argparse.Namespace) -> Settings:
    path = arguments.config.expanduser().resolve() if arguments.config is not None else None
    try:
        settings = load_settings(path)
    except SettingsError as error:
        fail(SETTINGS, str(error))
    if arguments.torch_index is not None:
        runtimes = settings.runtimes.model_copy(update={"torch_index": arguments.torch_index})
        settings = settings.model_copy(update={"runtimes": runtimes})
    return settings


def _up(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    settings = _settings(arguments)
    if settings.auth.oidc is not None and settings.auth.kind == "oidc":
        try:
            discover(settings.auth.oidc.issuer)
        except SettingsError as error:
            fail(SETTINGS, str(error))
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        fail(IO_ERROR, f"{state}: cannot be made: {error.strerror}")
    if arguments.detach:
        return _detach(arguments, state)
    try:
        with hold(state) as holder:
            return asyncio.run(_serve(arguments, state, settings, holder))
    except AlreadyRunning as error:
        fail(TRY_LATER, str(error))


async def _serve(arguments: argparse.Namespace, state: Path, settings: Settings, holder: HolderFile) -> int:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    port = arguments.port if arguments.port is not None else settings.service.port
    if not port_is_free(port, settings.service.bind):
        fail(TRY_LATER, f"Port {port} is in use by another program. Choose another: minicolab up --port N")
    service = prepare(state, settings, port)
    if not proxy_script().exists():
        fail(TRY_LATER, "The proxy is not installed yet. Run 'make setup' (or 'minicolab setup') first.")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    supervisor = Supervisor(lambda: holder.write(service.app_origin, supervisor.pids()))
    stopped = asyncio.create_task(stop.wait())
    try:
        for program in _programs(service, arguments):
            supervisor.start(program)
        ready = asyncio.create_task(_wait_until_ready(service))
        waited: set[asyncio.Future[Any]] = {ready, stopped, supervisor.first_failure}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if supervisor.first_failure.done():
            ready.cancel()
            raise supervisor.first_failure.result()
        if not stopped.done():
            await ready
            supervisor.ready()
            holder.write(service.app_origin, supervisor.pids())
            print(f"Ready: {_link(service)}", flush=True)
            await stopped
    except ProcessFailed as error:
        fail(error.status, str(error))
    finally:
        stopped.cancel()
        # A second Ctrl-C must not interrupt the clean end.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: None)
        await supervisor.stop()
        await _end_runtimes(service)
    return 0


def _programs(service: Service, arguments: argparse.Namespace) -> list[Program]:
    logs = service.state / "logs"
    state = ["--state", str(service.state)]

    async def restore_routes() -> None:
        await asyncio.to_thread(hub_api, service, "POST", "/proxy")

    programs = [
        Program(
            "proxy",
            proxy_command(service, bind=service.settings.service.bind),
            logs / "proxy.log",
            proxy_environment(service),
            after_restart=restore_routes,
        ),
        Program("hub", [sys.executable, "-m", "hub.jupyterhub_process", *state], logs / "hub.log"),
        Program("documents", [sys.executable, "-m", "hub.documents", *state], logs / "documents.log"),
        Program("control", [sys.executable, "-m", "hub.control", *state], logs / "control.log"),
    ]
    if not arguments.no_environment and service.settings.runtimes.backend == "local":
        _start_environment(service)
    return programs


def _start_environment(service: Service) -> None:
    """Install the runtime environment beside the service; Connect shows its progress. It goes on when we end."""
    with (service.state / "logs" / "environment.log").open("ab") as out:
        subprocess.Popen(
            [sys.executable, "-m", "hub.setup.runtime_environment", "--state", str(service.state)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


async def _wait_until_ready(service: Service) -> None:
    """Wait until a browser would get through: every service answers behind the proxy. Raise ProcessFailed after 2 min."""
    origin = f"http://127.0.0.1:{service.ports.public}"
    host = service.settings.service.app_host
    wanted = {
        "hub": f"{origin}/hub/api/",
        "documents": f"{origin}/services/documents/healthz",
        "control": f"{origin}/services/control/healthz",
    }
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            for url in wanted.values():
                while not await asyncio.to_thread(_answers, url, host):  # noqa: ASYNC110  # another process's port: nothing to await
                    await asyncio.sleep(0.05)
    except TimeoutError:
        tails = "\n".join(
            f"  {name}:\n{last_lines(service.state / 'logs' / f'{name}.log', 5)}" for name in wanted
        )
        raise ProcessFailed(
            f"The service did not answer within {START_TIMEOUT_SECONDS:.0f} s.\n{tails}"
        ) from None


def _answers(url: str, host: str) -> bool:
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _link(service: Service) -> str:
    """Return the address to open: with a one-time sign-in while no administrator can sign in otherwise."""
    if service.settings.auth.kind != "local":
        return service.app_origin + "/"
    accounts = Accounts(service.accounts_path, SystemClock())
    admins = [a for a in accounts.list() if a.admin]
    if any(a.has_password for a in admins):
        return service.app_origin + "/"
    name = admins[0].name if admins else accounts.add(FIRST_ADMIN, password=None, admin=True).name
    return f"{service.app_origin}/hub/welcome?token={accounts.make_link(name)}"


async def _end_runtimes(service: Service) -> None:
    """End the runtimes of this installation: they must not outlive a service that was told to end."""
    backend = make_backend(service)
    live = await backend.list_all()
    if live:
        log.info("ending %d runtimes", len(live))
    await asyncio.gather(
        *(backend.stop(observed.id, reason=STOPPED, grace_seconds=3.0) for observed in live),
        return_exceptions=True,
    )


# -- detached -----------------------------------------------------------------------------------------------------


def _detach(arguments: argparse.Namespace, state: Path) -> int:
    """Start `up` in a session of its own, wait for its Ready line, pass it on."""
    command = [sys.executable, "-m", "hub", "up", "--state", str(state)]
    for flag, value in (
        ("--config", arguments.config),
        ("--port", arguments.port),
        ("--torch-index", arguments.torch_index),
    ):
        if value is not None:
            command += [flag, str(value)]
    if arguments.no_environment:
        command.append("--no-environment")
    errors = state / "logs" / "up.log"
    errors.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with errors.open("wb") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
            text=True,
        )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith("Ready: "):
            process.stdout.close()
            return 0
    code = process.wait()
    print(errors.read_text("utf-8", "replace"), end="", file=sys.stderr)
    return code or IO_ERROR


def _down(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    holder = read_holder(state)
    if holder is None or not holder.pid:
        print(f"Nothing runs in {state}.")
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while read_holder(state) is not None:
        if time.monotonic() > deadline:
            fail(TRY_LATER, f"Process {holder.pid} is still ending. Its log: {state}/logs/up.log")
        time.sleep(0.05)  # another process's lock: nothing to wait on
    print("Stopped.")
    return 0
