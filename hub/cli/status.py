"""`minicolab status` and `doctor`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from hub.cli.common import TRY_LATER, add_state, print_json, state_of
from hub.cli.images import engine_client
from hub.installation import read_holder
from hub.settings import Service, SettingsError, load_service
from hub.setup.node import find_node
from hub.setup.npm_package import PROXY, proxy_script
from hub.setup.steps import SetupError
from hub.wiring import environment_status, isolation_report


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    status = commands.add_parser("status", help="say whether the service runs, and how")
    status.add_argument("--json", action="store_true")
    add_state(status)
    status.set_defaults(run=_status)
    doctor = commands.add_parser("doctor", help="say what is missing on this machine and how to get it")
    doctor.add_argument("--json", action="store_true")
    add_state(doctor)
    doctor.set_defaults(run=_doctor)


def _status(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    holder = read_holder(state)
    report: dict[str, object] = {"state": str(state), "running": holder is not None}
    if holder is not None:
        service = load_service(state)
        report |= {
            "pid": holder.pid,
            "url": holder.url,
            "processes": holder.processes,
            "services": _services(service),
        }
        report["environment"] = asdict(environment_status(service))
    if arguments.json:
        print_json(report)
    elif holder is None:
        print(f"Not running ({state}). Start it with: minicolab up --state {state}")
    else:
        print(f"Running at {holder.url} (process {holder.pid}, state {state})")
        for name, health in _services(load_service(state)).items():
            print(f"  {name:10} {health}")
    return 0 if holder is not None else TRY_LATER


def _services(service: Service) -> dict[str, str]:
    addresses = {
        "proxy": f"http://127.0.0.1:{service.ports.public}/hub/api/",
        "hub": f"{service.url_of('hub')}/hub/api/",
        "documents": f"{service.url_of('documents')}/services/documents/healthz",
        "control": f"{service.url_of('control')}/services/control/healthz",
    }
    return {name: _health(url) for name, url in addresses.items()}


def _health(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            json.load(reply)
            return "ok"
    except urllib.error.HTTPError as error:
        return f"answers with status {error.code}"
    except (OSError, ValueError) as error:
        return f"does not answer ({error})"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: `level` is ok, note or missing; `remedy` says how to get what is missing."""

    name: str
    level: str
    message: str
    remedy: str = ""


def findings(state: Path) -> list[Finding]:
    """Return what the doctor sees on this machine."""
    out: list[Finding] = []
    try:
        node = find_node()
        out.append(Finding("node", "ok", str(node.node)))
    except SetupError as error:
        out.append(Finding("node", "missing", str(error), "apt-get install nodejs npm"))
    if proxy_script().exists():
        out.append(Finding("proxy", "ok", f"configurable-http-proxy {PROXY.version}"))
    else:
        out.append(
            Finding(
                "proxy", "missing", f"configurable-http-proxy {PROXY.version} is not installed", "make setup"
            )
        )
    for asset in ("labextension/package.json", "static/drive/drive.js"):
        path = Path(__file__).parents[1] / asset
        if not path.exists():
            out.append(Finding("page assets", "missing", f"hub/{asset} was not built", "make setup"))
    if shutil.which("bwrap"):
        out.append(Finding("bubblewrap", "ok", shutil.which("bwrap") or ""))
    else:
        out.append(
            Finding(
                "bubblewrap",
                "missing",
                "runtimes can not be isolated without it",
                "apt-get install bubblewrap",
            )
        )
    try:
        service = load_service(state)
    except SettingsError:
        out.append(Finding("state", "note", f"{state} was never started", f"minicolab up --state {state}"))
        return out
    report = isolation_report(service)
    level = "ok" if not report.does_not else "note"
    out.append(
        Finding("isolation", level, f"{report.rung}: " + "; ".join([*report.isolates, *report.does_not]))
    )
    if service.settings.runtimes.backend == "docker":
        out.append(_engine(service.settings.runtimes.docker.url))
    environment = environment_status(service)
    ok = environment.state == "complete"
    out.append(
        Finding(
            "runtime environment", "ok" if ok else "note", environment.message, "" if ok else "make setup"
        )
    )
    free = shutil.disk_usage(state).free
    if free < 5 << 30:
        out.append(Finding("disk", "note", f"only {free >> 20} MiB free in {state}", "free some room"))
    if os.geteuid() == 0:
        out.append(Finding("user", "note", "the service runs as root", ""))
    return out


def _engine(url: str | None) -> Finding:
    try:
        version = engine_client(url).version()["Version"]
    except SetupError as error:
        return Finding("Docker engine", "missing", str(error), "start it, or name it in runtimes.docker.url")
    return Finding("Docker engine", "ok", f"answers, version {version}")


def _doctor(arguments: argparse.Namespace) -> int:
    found = findings(state_of(arguments))
    if arguments.json:
        print_json([asdict(f) for f in found])
    else:
        marks = {"ok": "✓", "note": "·", "missing": "✗"}
        for f in found:
            print(f"{marks[f.level]} {f.name}: {f.message}" + (f"\n    → {f.remedy}" if f.remedy else ""))
    missing = any(f.level == "missing" for f in found)
    if missing:
        print("Something is missing; see above.", file=sys.stderr)
    return TRY_LATER if missing else 0
