"""What every command shares: exit codes, where the state folder is, how to speak to the running service."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from hub.settings import Service, SettingsError, load_service, service_file

OK, USAGE, NOT_FOUND, DENIED, CONFLICT, IO_ERROR, TRY_LATER, SETTINGS = 0, 2, 4, 5, 6, 74, 75, 78


def fail(code: int, message: str) -> NoReturn:
    """Print one sentence on stderr and end with `code`."""
    print(message, file=sys.stderr)
    raise SystemExit(code)


def default_state() -> Path:
    """Return the state folder used when --state is not given: the system's, also in a container of the service."""
    system = Path("/var/lib/minicolab")
    if os.geteuid() == 0 or os.access(service_file(system), os.R_OK):
        return system
    return Path.home() / ".local" / "share" / "minicolab"


def add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        type=Path,
        default=default_state(),
        help="folder of the installation (default: %(default)s)",
    )


def state_of(arguments: argparse.Namespace) -> Path:
    path: Path = arguments.state
    return path.expanduser().resolve()


def service_of(arguments: argparse.Namespace) -> Service:
    """Return the installation, or end with 78 when it was never started."""
    try:
        return load_service(state_of(arguments))
    except SettingsError as error:
        fail(SETTINGS, str(error))


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def hub_api(service: Service, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Call the hub's REST API as the operator; return (status, JSON). Raise OSError when the hub does not answer."""
    request = urllib.request.Request(
        service.hub_api_url + path,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"token {service.operator_token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            text = reply.read()
            return reply.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.loads(error.read() or b"null")
        except ValueError:
            return error.code, None


TOKEN_SECONDS = 300


def control_api(
    service: Service, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[int, Any]:
    """Call control's API as an administrator, with a token of minutes; return (status, JSON or text). Raise OSError."""
    status, users = hub_api(service, "GET", "/users?limit=1000")
    admins = sorted(user["name"] for user in users if user.get("admin")) if status == 200 else []
    if not admins:
        fail(DENIED, "There is no administrator yet. Add one with: minicolab user add NAME --admin")
    made = {"note": "a command", "expires_in": TOKEN_SECONDS}
    status, reply = hub_api(service, "POST", f"/users/{quote(admins[0])}/tokens", made)
    if status >= 400:
        fail(TRY_LATER, f"The hub refused a token: {reply}")
    request = urllib.request.Request(
        f"{service.url_of('control')}/services/control/api/v1/{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Bearer {reply['token']}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer.status, json.loads(text) if is_json else text
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.loads(error.read() or b"null")
        except ValueError:
            return error.code, None
