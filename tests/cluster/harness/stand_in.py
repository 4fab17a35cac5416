"""What answers at the addresses of KWOK's pods, which are only objects: a supervisor and a runtime's server for every one of them.

    with answering(cluster):
        ... pods on pretended nodes become ready, are looked at, and end ...

One process in the node's network namespace listens for all addresses that KWOK gives out. It speaks as spawner.supervisor.life does, but
runs nothing: told to stop, it says so to all who watch, and has the pod be over, as a kubelet says of one whose first process has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from cluster.harness.cluster import Cluster, wait_for
from cluster.harness.errors import Unavailable
from cluster.harness.kubeconfig import Access, read
from cluster.harness.lifecycle import processes_of

SERVER_PORT, SUPERVISOR_PORT = 8888, 8889
NAME = "stand-in"


@contextlib.contextmanager
def answering(cluster: Cluster) -> Iterator[int]:
    """Answer for every pretended pod while the block lasts; yield the process that does."""
    addresses = cluster.layout.addresses() if cluster.layout is not None else None
    if cluster.layout is None or addresses is None:
        raise Unavailable("the pretended pods of a cluster that is not ours have addresses of its own")
    processes = processes_of(cluster.layout)
    network = ("nsenter", f"--net={cluster.layout.network_namespace}", "--")
    cluster.node_command("ip", "route", "replace", "local", addresses.pretended_pods, "dev", "lo")
    path = {"PYTHONPATH": ":".join(sys.path)}
    program = [sys.executable, "-m", "cluster.harness.stand_in", str(cluster.kubeconfig)]
    processes.start(NAME, [*network, *program], path)
    try:
        wait_for(
            lambda: "listening" in processes.log(NAME).read_text(),
            "the stand-in does not answer",
            check=lambda: processes.check(NAME),
        )
        pid = processes.pid(NAME)
        assert pid is not None
        yield pid
    finally:
        processes.stop(NAME)
        processes.log(NAME).unlink(missing_ok=True)
        cluster.node_command("ip", "route", "delete", "local", addresses.pretended_pods, "dev", "lo")


class Supervisors:
    """The supervisors of all addresses."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._ready: dict[str, float] = {}  # address → when it was first asked (monotonic)
        self._watchers: dict[str, set[asyncio.StreamWriter]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold one conversation."""
        address = str(writer.get_extra_info("sockname")[0])
        with contextlib.suppress(OSError, ValueError, KeyError):
            self._say(writer, {"nonce": "0"})
            await reader.readline()  # whoever asks is believed: nothing here is anybody's
            self._ready.setdefault(address, time.monotonic())
            while line := await reader.readline():
                request = json.loads(line)
                if request["op"] == "watch":
                    self._watchers.setdefault(address, set()).add(writer)
                    self._say(writer, {"event": "ready"})
                elif request["op"] == "stop":
                    self._tell_end(address, request)
                    await asyncio.to_thread(self._be_over, address)
                    break
                else:
                    self._say(writer, self._answer(address, request["op"]))
                await writer.drain()
        self._watchers.get(address, set()).discard(writer)
        writer.close()

    def _answer(self, address: str, op: str) -> dict[str, Any]:
        match op:
            case "status":
                return {"state": "ready", "ready_seconds_ago": time.monotonic() - self._ready[address]}
            case "activity":
                return {"busy": False, "seconds_ago": 0.0}
            case "mounts":
                return {"mounts": []}
            case _:
                return {"ok": True}

    def _tell_end(self, address: str, request: dict[str, Any]) -> None:
        self._ready.pop(address, None)
        for watcher in self._watchers.pop(address, set()):
            told = {"code": request["code"], "message": request["message"], "seconds_ago": 0.0}
            self._say(watcher, {"event": "end", **told})
            watcher.close()

    def _be_over(self, address: str) -> None:
        """Do what the kubelet of a real node does. Raise OSError."""
        for pod in self._access.get_json(f"/api/v1/pods?fieldSelector=status.podIP={address}")["items"]:
            path = "/api/v1/namespaces/{namespace}/pods/{name}/status".format(**pod["metadata"])
            self._access.patch(path, {"status": {"phase": "Succeeded"}})

    @staticmethod
    def _say(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
        writer.write(json.dumps(answer).encode() + b"\n")


async def answer(request: web.Request) -> web.Response:
    """Answer as a runtime's server in which no cell has run."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(float(request.query.get("wait", 0)))
    return web.json_response({"instance": "stand-in", "number": 0, "executions": []})


async def main() -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", SERVER_PORT, backlog=1024).start()
    supervisors = Supervisors(read(Path(sys.argv[1])))
    server = await asyncio.start_server(supervisors.serve, "0.0.0.0", SUPERVISOR_PORT, backlog=1024)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
