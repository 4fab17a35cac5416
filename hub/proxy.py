"""JupyterHub's view of configurable-http-proxy, with hosts decided by us.

JupyterHub knows paths only; this class turns each of its routes into host routes, so that runtimes are served on host names
other than the app's while hub and services share one (docs/architecture.md, "Hosts and routes"). The proxy itself is started
by `minicolab up`, not by the hub, so a hub restart drops no connection.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from aiohttp import ClientResponseError
from jupyterhub.proxy import ConfigurableHTTPProxy
from traitlets import Any as AnyTrait

from hub.settings import Service

ELSEWHERE = "/__elsewhere__/"


class HostProxy(ConfigurableHTTPProxy):
    """Adds every route once per host it belongs to."""

    service = AnyTrait(config=True, help="The hub.settings.Service this hub runs in.")

    def chp_paths(self, routespec: str) -> list[str]:
        """Return the proxy's own paths (first segment is the host) of a JupyterHub route."""
        service: Service = self.service
        app, api = service.settings.service.app_host, service.settings.service.api_host
        path = routespec.rstrip("/")
        if routespec == ELSEWHERE:
            return ["/"]
        if path.startswith("/user/"):
            user = unquote(path.split("/")[2])
            return _unique(f"/{service.runtime_host(user)}{path}", f"/{api}{path}")
        if path == "":
            return _unique(f"/{app}", f"/{api}/hub/api")
        if path.startswith("/services/"):
            return _unique(f"/{app}{path}", f"/{api}{path}")
        return [f"/{app}{path}"]

    async def add_route(self, routespec: str, target: str, data: dict[str, Any] | None) -> None:
        body = {**(data or {}), "target": target, "jupyterhub": True, "routespec": routespec}
        for path in self.chp_paths(routespec):
            await self.api_request(path, method="POST", body=body)

    async def delete_route(self, routespec: str) -> None:
        for path in self.chp_paths(routespec):
            await self._delete(path)

    async def _delete(self, path: str) -> None:
        try:
            await self.api_request(path, method="DELETE")
        except ClientResponseError as error:
            if error.status != 404:
                raise

    async def get_all_routes(self) -> dict[str, Any]:
        """Return JupyterHub's routes.

        A hub that was killed while it added, moved or deleted a route leaves it whole on some of its hosts only. Such a route is told
        with no target: the hub then adds it again, or deletes what is left of it when nobody needs it any more.

        The proxy's `last_activity` is not passed on: it counts pings of a forgotten tab as use.
        """
        response = await self.api_request("")
        table: dict[str, Any] = await response.json()
        found: dict[str, dict[str, Any]] = {}
        for path, data in table.items():
            if data.get("jupyterhub") and "routespec" in data:
                found.setdefault(data["routespec"], {})[path] = data
        routes: dict[str, Any] = {}
        for routespec, paths in found.items():
            first = next(iter(paths.values()))
            targets = {data["target"] for data in paths.values()}
            whole = {unquote(path) for path in self.chp_paths(routespec)} <= set(paths) and len(targets) == 1
            routes[routespec] = {
                "routespec": routespec,
                "target": first["target"] if whole else "",
                "data": {k: v for k, v in first.items() if k not in ("target", "last_activity", "routespec")},
            }
        return routes


def _unique(*paths: str) -> list[str]:
    return list(dict.fromkeys(paths))
