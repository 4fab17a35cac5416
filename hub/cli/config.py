"""`minicolab config check|show|schema`."""

from __future__ import annotations

import argparse
from pathlib import Path

from hub.cli.common import SETTINGS, fail, print_json
from hub.settings import Settings, SettingsError, load_settings


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


def _schema(_: argparse.Namespace) -> int:
    print_json(Settings.model_json_schema())
    return 0
