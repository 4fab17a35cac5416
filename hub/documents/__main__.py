"""`python -m hub.documents --state DIR`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

EXIT_SETTINGS = 78


def main() -> int:
    """Run the service; return its exit status: 0 after SIGTERM, 78 when the settings or the routes are refused."""
    parser = argparse.ArgumentParser(prog="python -m hub.documents", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the installation's folder")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    # jsonschema imports this module when it finds it, and it takes over a second to build parsers nobody uses.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    from hub.documents.app import serve
    from hub.documents.routes import UnknownRoutes
    from hub.settings import SettingsError, load_service

    try:
        service = load_service(options.state)
        asyncio.run(serve(service))
    except (SettingsError, UnknownRoutes) as error:
        logging.getLogger("hub.documents").critical("%s", error)
        return EXIT_SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
