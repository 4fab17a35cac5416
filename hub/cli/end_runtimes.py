"""`minicolab end-runtimes`: end every runtime of an installation in a cluster, before the rest of it is taken away.

Run by a job of the chart. A pod can only go while the plugin of its node is there to unbind its Drive, so runtimes end first.
"""

from __future__ import annotations

import argparse
import asyncio
import logging

from hub.cli.common import SETTINGS, TRY_LATER, fail
from hub.cli.serve import add_places, resolve
from hub.settings import Service, SettingsError
from hub.wiring import make_backend
from spawner.model import EndReason
from spawner.ports import BackendError

STOPPED = EndReason("service_stopped", "The service was stopped.")
LONGEST_SECONDS = 240.0
GRACE_SECONDS = 3.0
LOOK_SECONDS = 1.0
log = logging.getLogger("minicolab")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    end = commands.add_parser(
        "end-runtimes", help="in a cluster: end every runtime, and wait until they are gone"
    )
    add_places(end)
    end.set_defaults(run=_end)


def _end(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        service = resolve(arguments, keys=("ticket",), tokens=())
        count = asyncio.run(end_all(service))
    except SettingsError as error:
        fail(SETTINGS, str(error))
    except TimeoutError:
        fail(
            TRY_LATER, "Not every runtime has ended. Is the drive plugin on their nodes? Repeat the command."
        )
    print(f"{count} runtime{'' if count == 1 else 's'} ended.")
    return 0


async def end_all(service: Service) -> int:
    """End what lives until nothing does; return how many were ended. Raise TimeoutError."""
    backend = make_backend(service)
    ended: set[str] = set()
    async with asyncio.timeout(LONGEST_SECONDS):
        while True:
            try:
                live = [observed.id for observed in await backend.list_all()]
            except BackendError as error:
                log.warning("%s", error)
            else:
                if not live:
                    return len(ended)
                ended.update(live)
                results = await asyncio.gather(
                    *(backend.stop(runtime, reason=STOPPED, grace_seconds=GRACE_SECONDS) for runtime in live),
                    return_exceptions=True,
                )
                for fault in results:
                    if isinstance(fault, BaseException):
                        log.warning("%s", fault)
            await asyncio.sleep(LOOK_SECONDS)
