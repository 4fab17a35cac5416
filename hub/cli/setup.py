"""`minicolab setup`: everything an installation needs, without starting it."""

from __future__ import annotations

import argparse
from pathlib import Path

from hub.cli.common import IO_ERROR, SETTINGS, fail
from hub.settings import SettingsError, load_settings
from hub.setup import frontend, runtime_environment, system
from hub.setup.node import find_node
from hub.setup.npm_package import JUPYTER_CLIENT, PROXY
from hub.setup.steps import SetupError, say


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    setup = commands.add_parser(
        "setup", help="install the proxy, the page's assets and the runtime environment"
    )
    setup.add_argument("--config", type=Path, default=None, metavar="FILE")
    setup.add_argument(
        "--torch-index", default=None, metavar="WHERE", help="folder or index of PyTorch wheels to prefer"
    )
    setup.add_argument(
        "--no-environment", action="store_true", help="leave the runtime environment for later"
    )
    setup.add_argument(
        "--environment", default=None, metavar="NAME", help="runtime of images/catalogue.yaml to install"
    )
    setup.add_argument("--tests", action="store_true", help="also install what the tests need")
    setup.set_defaults(run=_setup)


def _setup(arguments: argparse.Namespace) -> int:
    try:
        settings = load_settings(arguments.config)
    except SettingsError as error:
        fail(SETTINGS, str(error))
    try:
        system.install_packages({"bwrap": "bubblewrap", "unshare": "util-linux"}, required=False)
        if arguments.tests:
            system.install_packages(
                {
                    "chromium": "chromium",
                    "gcc": "gcc",
                    "pg_ctlcluster": "postgresql",
                    "dockerd": "docker.io",
                    "slirp4netns": "slirp4netns",
                    "mmdebstrap": "mmdebstrap",
                    "iptables": "iptables",
                    "mkfs.btrfs": "btrfs-progs",
                },
                required=False,
            )
        node = find_node()
        PROXY.install(node)
        if arguments.tests:
            JUPYTER_CLIENT.install(node)
        frontend.build_assets(node)
        if not arguments.no_environment:
            name = arguments.environment or settings.runtimes.environment
            torch_index = arguments.torch_index or settings.runtimes.torch_index
            runtime_environment.install(name, torch_index, settings.runtimes.catalogue)
    except SetupError as error:
        fail(IO_ERROR, str(error))
    say("Set-up is complete.")
    return 0
