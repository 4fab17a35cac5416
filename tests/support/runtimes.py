"""What the tests of every backend start: a small runtime, and a way to run a cell in it."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from dataclasses import dataclass, replace

from quota.ticket import mint
from spawner.model import Endpoint, RuntimeSpec, Shape
from support.kernel import Kernel, run_cell
from support.patience import PATIENCE

SMALL = Shape("SMALL", 1 << 30, 1.0, 200)


def a_spec(user: str = "ada", **changes: object) -> RuntimeSpec:
    """Return a runtime of `user` with an id of its own, other in what `changes` names."""
    runtime_id = str(
        changes.get("id") or "r-" + base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
    )
    spec = RuntimeSpec(
        id=runtime_id,
        user=user,
        file_id="f-1",
        base_url=f"/user/{user}/{runtime_id}/",
        shape=SMALL,
        accelerator="NONE",
        devices=(),
        max_lifetime_seconds=600.0,
        idle_limit_seconds=300.0,
        ticket_key=secrets.token_bytes(32),
        allow_origin="http://localhost:1",
        control_url="http://127.0.0.1:1/",
        public_control_url="http://localhost:1/services/control/",
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


@dataclass
class Started:
    """A started runtime."""

    spec: RuntimeSpec
    endpoint: Endpoint

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def url(self) -> str:
        return self.endpoint.url + self.spec.base_url

    def ticket(self, seconds: int = 600) -> str:
        return mint(self.spec.ticket_key, self.id, self.spec.user, int(time.time()) + seconds, "n")

    async def run(self, code: str, *, timeout: float = PATIENCE) -> str:
        """Run a cell on a new kernel and return what it printed."""
        return await asyncio.to_thread(run_cell, self.url, self.ticket(), code, timeout=timeout)

    async def run_marked(self, code: str, cell: str) -> str:
        """Run a cell of the document, whose outputs are kept for it."""

        def run() -> str:
            kernel = Kernel(self.url, self.ticket())
            try:
                return kernel.run(code, metadata={"cellId": cell})
            finally:
                kernel.close()

        return await asyncio.to_thread(run)
