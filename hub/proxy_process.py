"""The proxy's own process: how configurable-http-proxy is called, and a pod that runs it and gets its routes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import hub
from hub.settings import LOOPBACK, Service, url_host
from hub.setup.node import find_node
from hub.setup.npm_package import proxy_script
from hub.supervise import die_with_parent

RETRY_SECONDS = 1.0
EVERY_ADDRESS = ("0.0.0.0", "::")
IO_ERROR = 74
log = logging.getLogger(__name__)


def proxy_command(service: Service, *, bind: str, api_bind: str = LOOPBACK) -> list[str]:
    """Return the command line. Its token is `proxy_environment`'s. Raise SetupError when there is no node."""
    return [
        str(find_node().node),
        *("--require", str(Path(hub.__file__).with_name("proxy_guard.cjs"))),
        str(proxy_script()),
        *("--ip", bind, "--port", str(service.ports.public)),
        *("--api-ip", api_bind, "--api-port", str(service.ports.proxy_api)),
        *("--error-target", service.url_of("hub") + "/hub/error"),
        "--host-routing",
        *("--log-level", "warn"),
    ]


def proxy_environment(service: Service) -> dict[str, str]:
    """Return what the command needs in its environment."""
    return {"CONFIGPROXY_AUTH_TOKEN": service.proxy_token}


async def run(service: Service) -> int:
    """Run the proxy until told to stop; return the exit status. A new proxy knows no routes: the hub is asked for them."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    bind = service.addresses.bind
    process = await asyncio.create_subprocess_exec(
        *proxy_command(service, bind=bind, api_bind=bind),
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, **proxy_environment(service)},
        start_new_session=True,
        preexec_fn=die_with_parent,
    )

    def stop() -> None:
        stopping.set()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    routes = asyncio.create_task(restore_routes(service))
    code = await process.wait()
    routes.cancel()
    await asyncio.gather(routes, return_exceptions=True)
    if stopping.is_set():
        return 0
    log.critical("the proxy ended with status %d", code)
    return IO_ERROR


async def restore_routes(service: Service) -> None:
    """Have the hub add the routes of its services and runtimes, as soon as it and the proxy answer."""
    while not await asyncio.to_thread(_asked, service):  # noqa: ASYNC110  # another process's port: nothing to await
        await asyncio.sleep(RETRY_SECONDS)
    log.info("the hub has added its routes")


def _asked(service: Service) -> bool:
    headers = {"Authorization": f"token {service.proxy_token}"}
    try:
        # Asked before the proxy answers, the hub would wait for it in vain.
        bind = service.addresses.bind
        host = LOOPBACK if bind in EVERY_ADDRESS else url_host(bind)
        own = urllib.request.Request(f"http://{host}:{service.ports.proxy_api}/api/routes", headers=headers)
        with urllib.request.urlopen(own, timeout=5):
            pass
        ask = urllib.request.Request(service.hub_api_url + "/proxy", method="POST", headers=headers)
        with urllib.request.urlopen(ask, timeout=30):
            return True
    except urllib.error.HTTPError as error:
        log.warning("the hub did not add its routes: status %d", error.code)
        return error.code == 403  # asking again would not help; the hub looks for itself every minute
    except OSError:
        return False
