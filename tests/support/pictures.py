"""What the parts of one installation believe of its runtimes, and whether they agree."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import requests

from hub.settings import load_service
from support.patience import PATIENCE
from support.service import Running

CONTROL = "/services/control/api/v1"


def processes_of(service: Running, module: str, runtime: str = "") -> list[int]:
    """Return the processes of this installation that run `module`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if module in words and any(str(service.state) in w and runtime in w for w in words):
            found.append(int(folder.name))
    return found


def kill(service: Running, module: str) -> None:
    for pid in processes_of(service, module):
        os.kill(pid, signal.SIGKILL)


def ask(service: Running, method: str, path: str, **kwargs: Any) -> requests.Response | None:
    """Call as ada; None while the service is coming back."""
    try:
        reply = service.api("ada", method, CONTROL + path, **kwargs)
    except requests.RequestException:
        return None
    return reply if reply.headers.get("Content-Type", "").startswith("application/json") else None


def state_of(service: Running, runtime: str) -> str:
    reply = ask(service, "GET", f"/runtimes/{runtime}")
    return str(reply.json().get("state", "")) if reply is not None else ""


def pictures(service: Running) -> dict[str, object]:
    """Return which of ada's runtimes there are, as each of rows, folders, supervisors, the hub and the proxy has it."""
    reply = ask(service, "GET", "/runtimes?limit=200")
    folder = service.state / "runtimes"
    installation = load_service(service.state)
    hub = requests.get(
        f"{installation.hub_api_url}/users/ada?include_stopped_servers=1",
        headers={"Authorization": f"token {installation.control_token}"},
        timeout=PATIENCE,
    )
    routes = requests.get(
        f"http://127.0.0.1:{installation.ports.proxy_api}/api/routes",
        headers={"Authorization": f"token {installation.proxy_token}"},
        timeout=PATIENCE,
    )
    supervisors = set()
    for pid in processes_of(service, "spawner.local.supervisor"):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            supervisors |= {Path(w).name for w in words if "/runtimes/r-" in w}
    return {
        "rows": {m["id"] for m in reply.json()["items"]} if reply is not None and reply.ok else None,
        "folders": {p.name for p in folder.glob("r-*") if p.is_dir()},
        "supervisors": supervisors,
        "hub": set(hub.json()["servers"]) - {""}
        if hub.ok
        else hub.text,  # '' is the default server nobody uses
        "routes": set(re.findall(r"/user/ada/(r-[a-z2-7]{12})", routes.text)),
    }


def until_all_agree(service: Running) -> None:
    """Wait until the pictures are one."""
    end = time.monotonic() + PATIENCE
    seen: dict[str, object] = {}
    while True:
        with contextlib.suppress(requests.RequestException):
            seen = pictures(service)
        if seen and all(seen[name] == seen["rows"] for name in seen):
            return
        assert time.monotonic() < end, seen
        time.sleep(0.1)
