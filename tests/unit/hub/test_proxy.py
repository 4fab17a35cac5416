"""Routes of a hub that may be killed between any two calls to its proxy: its next look makes all of them right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientResponseError, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from hub.proxy import HostProxy
from hub.settings import Ports, Service, Settings

ROUTE = "/user/ada/r-1/"
OLD, NEW = "http://127.0.0.1:1001", "http://127.0.0.1:1002"


class Killed(Exception):
    """The hub ends here."""


class TableProxy(HostProxy):
    """A HostProxy whose proxy is a table in memory, and whose hub is killed before its `calls_left`-th change of it."""

    def __init__(self, table: dict[str, Any], calls_left: int = 1000) -> None:
        settings = Settings.model_validate({"service": {"runtime_host": "{user}.app.test"}})
        hub = SimpleNamespace(routespec="/", host="http://127.0.0.1:8081")
        super().__init__(app=SimpleNamespace(hub=hub, subdomain_host=""), hub=hub)
        self.service = Service(Path("/nowhere"), settings, Ports(8000, 1, 2, 3, 4), "d", "c", "p")
        self.table, self.calls_left = table, calls_left

    async def api_request(self, path: str, method: str = "GET", body: Any = None, client: Any = None) -> Any:
        async def table() -> dict[str, Any]:
            return {path: dict(data) for path, data in self.table.items()}

        if method == "GET":
            return SimpleNamespace(json=table)
        if self.calls_left == 0:
            raise Killed
        self.calls_left -= 1
        if method == "POST":
            self.table[path] = body
        elif self.table.pop(path, None) is None:
            request = RequestInfo(URL(path), method, CIMultiDictProxy(CIMultiDict()), URL(path))
            raise ClientResponseError(request, (), status=404)
        return None

    def targets(self) -> dict[str, str]:
        """Where the runtime's paths lead."""
        return {path: data["target"] for path, data in self.table.items() if data["routespec"] == ROUTE}

    async def look(self, target: str | None) -> None:
        """What a hub does when it starts and every minute, with a runtime at `target` or none."""
        users = {}
        if target is not None:
            server = SimpleNamespace(host=target)
            spawner = SimpleNamespace(ready=True, pending=None, proxy_spec=ROUTE, server=server)
            users["ada"] = SimpleNamespace(name="ada", spawners={"r-1": spawner})
        await self.check_routes(users, {})


@pytest.mark.parametrize("killed_after", range(3))
@pytest.mark.parametrize(("before", "wanted"), [(None, OLD), (OLD, None), (OLD, NEW)])
@pytest.mark.parametrize("then", ["stays", "has gone"])
async def test_a_route_that_was_changed_by_half_is_made_whole_or_taken_away(
    before: str | None, wanted: str | None, then: str, killed_after: int
) -> None:
    table: dict[str, Any] = {}
    await TableProxy(table).look(before)
    try:
        await TableProxy(table, killed_after).look(wanted)
    except Killed:
        assert killed_after < 2
    last = wanted if then == "stays" else None
    proxy = TableProxy(table)
    await proxy.look(last)
    paths = proxy.chp_paths(ROUTE)
    assert len(paths) == 2
    assert proxy.targets() == (dict.fromkeys(paths, last) if last is not None else {})
    assert await proxy.get_all_routes() != {}, "the hub's own is there"
