"""`minicolab serve hub|documents|control|proxy`: one process of an installation, for a container of its own.

What `up` finds out on one machine is given here: mounted settings, mounted secrets, and where the others are.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hub import proxy_process
from hub.cli.common import IO_ERROR, SETTINGS, TRY_LATER, USAGE, fail
from hub.settings import (
    LOOPBACK,
    Addresses,
    Ports,
    Service,
    Settings,
    SettingsError,
    load_settings,
    mounted_secret,
    save_service,
)
from hub.setup.npm_package import proxy_script
from hub.setup.steps import SetupError

PORTS = {"proxy_api": 8001, "hub": 8081, "documents": 8082, "control": 8083}
MODULES = {"hub": "hub.jupyterhub_process", "documents": "hub.documents", "control": "hub.control"}
# Which secrets a process is given; no process reads, or need be shown, those of another.
KEYS = {
    "hub": ("ticket", "hub-cookie", "operator"),
    "documents": ("session",),
    "control": ("ticket", "session"),
    "proxy": (),
}
TOKENS = {
    "hub": ("documents", "control", "proxy"),
    "documents": ("documents",),
    "control": ("control",),
    "proxy": ("proxy",),
}
PASSWORDS = "pgpass"
PROXY_SECONDS = 300.0
log = logging.getLogger("minicolab")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="run one process of an installation, in a container of its own")
    serve.add_argument("process", choices=sorted(KEYS))
    add_places(serve)
    serve.add_argument(
        "--own", default="", metavar="HOST:PORT", help="where this very process is reached, for --standby"
    )
    serve.add_argument(
        "--standby", action="store_true", help="control only: wait while another instance acts"
    )
    serve.set_defaults(run=_serve)


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add what says where settings, secrets and the other processes are."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="minicolab.yaml")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="folder of this process")
    parser.add_argument(
        "--secrets", type=Path, required=True, metavar="DIR", help="folder of the mounted secrets"
    )
    parser.add_argument("--drive", type=Path, metavar="DIR", help="volume of the drives (default: --state)")
    parser.add_argument(
        "--bind", default=LOOPBACK, metavar="ADDRESS", help="what to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="PROCESS=HOST:PORT",
        help=f"where a process is reached: {', '.join(PORTS)}; may be repeated",
    )


def _serve(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _end)  # the first process of a container has no default for it
    name: str = arguments.process
    if arguments.standby and name != "control":
        fail(USAGE, "--standby is for control.")
    try:
        service = resolve(arguments, keys=KEYS[name], tokens=TOKENS[name])
        for folder in ("run", "databases"):
            (service.state / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        save_service(service)
        passwords = _passwords(arguments.secrets, service.state)
    except SettingsError as error:
        fail(SETTINGS, str(error))
    except OSError as error:
        fail(IO_ERROR, f"{error.filename or arguments.state}: {error.strerror}")
    if name == "proxy":
        if not proxy_script().exists():
            fail(TRY_LATER, "The proxy is not installed here. Run 'minicolab setup' first.")
        try:
            return asyncio.run(proxy_process.run(service))
        except SetupError as error:
            fail(TRY_LATER, str(error))
    if name == "hub":
        _wait_for_the_proxy(service)
    command = [sys.executable, "-m", MODULES[name], "--state", str(service.state)]
    if arguments.standby:
        command.append("--standby")
    return os.execve(sys.executable, command, {**os.environ, **passwords})


def resolve(arguments: argparse.Namespace, *, keys: tuple[str, ...], tokens: tuple[str, ...]) -> Service:
    """Return what a process with these secrets needs to know. Raise SettingsError."""
    hosts, ports = _places(arguments.at)
    settings: Settings = load_settings(arguments.config)
    folder: Path = arguments.secrets
    for key in keys:
        mounted_secret(folder / f"{key}.key")
    known = {token: _token(folder / f"{token}.token") for token in tokens}
    return Service(
        state=arguments.state.resolve(),
        settings=settings,
        ports=Ports(settings.service.port, **ports),
        documents_token=known.get("documents", ""),
        control_token=known.get("control", ""),
        proxy_token=known.get("proxy", ""),
        addresses=Addresses(hosts, arguments.bind, getattr(arguments, "own", "")),
        secrets=folder.resolve(),
        drive=arguments.drive.resolve() if arguments.drive is not None else None,
    )


def _places(given: list[str]) -> tuple[dict[str, str], dict[str, int]]:
    hosts: dict[str, str] = {}
    ports = dict(PORTS)
    for text in given:
        process, _, place = text.partition("=")
        host, _, port = place.rpartition(":")
        if process not in PORTS or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            fail(USAGE, f"--at {text}: must be PROCESS=HOST:PORT with one of {', '.join(PORTS)}")
        hosts[process], ports[process] = host, int(port)
    return hosts, ports


def _token(path: Path) -> str:
    try:
        return mounted_secret(path).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: the token is not ASCII") from error


def _passwords(secrets: Path, state: Path) -> dict[str, str]:
    """Return the variable that names PostgreSQL's password file. It is copied: a mounted one is too open for libpq."""
    source, copy = secrets / PASSWORDS, state / "run" / PASSWORDS
    if not source.exists():
        return {}
    draft = copy.with_suffix(".draft")
    draft.touch(mode=0o600)
    shutil.copyfile(source, draft)
    draft.replace(copy)
    return {"PGPASSFILE": str(copy)}


def _wait_for_the_proxy(service: Service) -> None:
    """Wait until the proxy's API is there: a hub that does not find it ends at once."""
    address = (service.addresses.hosts.get("proxy_api", LOOPBACK).strip("[]"), service.ports.proxy_api)
    until = time.monotonic() + PROXY_SECONDS
    told = False
    while True:
        try:
            socket.create_connection(address, timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                fail(TRY_LATER, f"The proxy does not answer at {address[0]}:{address[1]}: {error}")
            if not told:
                log.info("waiting for the proxy at %s:%d", *address)
                told = True
            time.sleep(0.5)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
