"""`minicolab config check|show|schema|reload`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from hub.cli.common import SETTINGS, TRY_LATER, add_state, control_api, fail, print_json, service_of
from hub.settings import Settings, SettingsError, load_settings, save_service


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    config = commands.add_parser("config", help="the settings file").add_subparsers(
        dest="action", required=True
    )
    check = config.add_parser("check", help="say whether a settings file can be used")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_check)
    show = config.add_parser("show", help="print the settings with every default, as JSON")
    show.add_argument("file", type=Path, nargs="?")
    show.set_defaults(run=_show)
    reload = config.add_parser(
        "reload", help="use the limits of a settings file at once, for running runtimes too"
    )
    reload.add_argument("file", type=Path)
    add_state(reload)
    reload.set_defaults(run=_reload)
    schema = config.add_parser("schema", help="print the JSON schema of the settings")
    schema.set_defaults(run=_schema)


def _load(path: Path | None) -> Settings:
    try:
        return load_settings(path)
    except SettingsError as error:
        fail(SETTINGS, str(error))


def _check(arguments: argparse.Namespace) -> int:
    _load(arguments.file)
    print(f"{arguments.file}: ok")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    print_json(_load(arguments.file).model_dump(mode="json"))
    return 0


def _reload(arguments: argparse.Namespace) -> int:
    """Send the limits to control, then note them for its next start. Other settings count from the next start on anyway."""
    settings = _load(arguments.file)
    service = service_of(arguments)
    quota = settings.quota.model_dump(mode="json")
    try:
        status, reply = control_api(service, "POST", "admin/reload", {"quota": quota})
    except OSError as error:
        fail(TRY_LATER, f"The service does not answer ({error}). Is it up? See 'minicolab status'.")
    if status >= 400:
        message = reply.get("message") if isinstance(reply, dict) else f"status {status}"
        fail(TRY_LATER, f"The limits were not changed: {message}")
    save_service(replace(service, settings=service.settings.model_copy(update={"quota": settings.quota})))
    count = reply["changed"]
    print(
        f"The limits of {arguments.file} hold now; {count} running runtime{'' if count == 1 else 's'} changed."
    )
    others = service.settings.model_copy(update={"quota": settings.quota})
    if others != settings:
        print("Other settings of the file count from the next start on: minicolab down, minicolab up.")
    return 0


def _schema(_: argparse.Namespace) -> int:
    print_json(Settings.model_json_schema())
    return 0
