"""`python -m hub.jupyterhub_process --state DIR`: JupyterHub itself, configured by hub.jupyterhub_config."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> None:
    """Run the hub until it is told to stop."""
    # Nobody validates internationalised URIs here, and building their 35 parsers costs half of the hub's start.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None means "not installed" to import
    parser = argparse.ArgumentParser(description="The hub of one minicolab installation.")
    parser.add_argument("--state", type=Path, required=True)
    state = parser.parse_args().state

    from jupyterhub.app import JupyterHub

    from hub.jupyterhub_config import configure
    from hub.settings import SettingsError, load_service

    try:
        config = configure(load_service(state.resolve()))
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # a process's last words
        raise SystemExit(78) from None
    JupyterHub.instance(config=config)
    os.chdir(state)  # so that no jupyterhub_config.py of the caller's folder is read
    JupyterHub.launch_instance([])


if __name__ == "__main__":
    main()
