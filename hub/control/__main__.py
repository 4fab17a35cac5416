"""`python -m hub.control --state DIR`: the control service. One instance acts at a time; with --standby the others wait."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.control.lease import Lock
    from hub.settings import Service
    from quota.store import StoreError
    from spawner.ports import RuntimeBackend

HEADROOM_BYTES = 64 << 10  # above the API's own limit, so that it is the API that refuses, with a sentence
EXIT_IO = 74
TRY_LATER = 75
EXIT_SETTINGS = 78
log = logging.getLogger("hub.control")


def main(backend: RuntimeBackend | None = None) -> int:
    """Run until told to stop; return the exit status.

    74: the database is damaged or can not be written; 75: another instance acts, or another program holds the database;
    78: settings are refused, or the database is of a newer program.

    `backend` None: the one the settings name.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # see hub.jupyterhub_process
    parser = argparse.ArgumentParser(prog="python -m hub.control", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the installation's folder")
    parser.add_argument(
        "--standby", action="store_true", help="wait while another instance acts, and pass requests on to it"
    )
    options = parser.parse_args()
    state = options.state.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    from hub.control.lease import Held
    from hub.settings import SettingsError, load_service
    from quota.store import StoreError

    try:
        return asyncio.run(act(load_service(state), backend, standby=options.standby))
    except SettingsError as error:
        log.critical("%s", error)
        return EXIT_SETTINGS
    except Held as held:
        log.critical("%s", held)
        return TRY_LATER
    except StoreError as error:
        log.critical("%s", error)
        return exit_of(error)


def exit_of(error: StoreError) -> int:
    """Return the exit status for a database that can not be used."""
    from quota.store import StoreBusy, StoreTooNew

    if isinstance(error, StoreTooNew):
        return EXIT_SETTINGS
    return TRY_LATER if isinstance(error, StoreBusy) else EXIT_IO


async def act(service: Service, backend: RuntimeBackend | None, *, standby: bool) -> int:
    """Take this one's place, or wait for it, and serve; return the exit status. Raise Held, StoreError."""
    from hub.control.lease import take_leases

    stop = asyncio.Event()  # the signals' own from here on, however long the place is waited for
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if standby:
        leases = await stand_by(service, stop)
        if leases is None:
            return 0
    else:
        leases = take_leases(service.state, service.control_database_url)
    try:
        return await serve(service, backend, stop)
    finally:
        for lease in reversed(leases):
            lease.release()


async def stand_by(service: Service, stop: asyncio.Event) -> list[Lock] | None:
    """Wait for this one's turn, passing requests on meanwhile; return the leases, None when told to stop. Raise StoreError."""
    from hub.control.lease import take_leases
    from hub.control.standby import Standby, acting_address
    from quota.store import create_engine

    url = service.control_database_url
    engine = create_engine(url)
    host, _, port = service.addresses.own.rpartition(":")
    own = (host.strip("[]"), int(port)) if host else None
    waiting = Standby(lambda: acting_address(engine), own=own)
    try:
        return await waiting.wait(
            lambda: take_leases(service.state, url),
            stop,
            port=service.ports.control,
            bind=service.addresses.bind,
        )
    finally:
        engine.dispose()


async def serve(service: Service, backend: RuntimeBackend | None, stop: asyncio.Event) -> int:
    """Serve until told to stop, or until another instance has taken over; return the exit status. Raise StoreError."""
    from tornado.httpserver import HTTPServer

    from hub.control.app import make_app, make_control
    from hub.web.body import MAX_BODY_BYTES

    control = make_control(service, backend)
    app = make_app(control)
    await control.orchestrator.recover()  # before the first request: rows are carried once, by one task
    most = MAX_BODY_BYTES + HEADROOM_BYTES
    server = HTTPServer(app, max_body_size=most, max_buffer_size=most, xheaders=True)
    server.listen(service.ports.control, service.addresses.bind)
    log.info("control answers at port %d", service.ports.control)
    tick = asyncio.create_task(control.orchestrator.tick_for_ever(), name="tick")
    ends = [asyncio.create_task(e.wait()) for e in (stop, control.orchestrator.fenced)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    server.stop()
    for task in (tick, *ends):
        task.cancel()
    await asyncio.gather(tick, *ends, return_exceptions=True)
    await control.orchestrator.close()
    await control.files.close()
    await app.settings["identity"].close()
    if control.orchestrator.fenced.is_set():
        log.critical("another control service has taken over; this one changes nothing any more and ends")
        return TRY_LATER
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
