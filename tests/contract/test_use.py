"""What counts as use of a runtime, on every rung: cells that run, and who says through control that they are there. Nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest
import requests

from support.kernel import Kernel
from support.patience import PATIENCE, until_async
from tests.contract.contract_support import Bench, Runtime, command_of

pytestmark = pytest.mark.slow

IDLE_SECONDS = 3.0


@contextlib.asynccontextmanager
async def kept(runtime: Runtime, bench: Bench) -> AsyncIterator[None]:
    """Keep a runtime in use while the test prepares, then begin its short idle time."""
    await bench.backend.set_limits(runtime.id, max_lifetime_seconds=600, idle_limit_seconds=300)
    yield
    await bench.backend.touch(runtime.id)
    await bench.backend.set_limits(runtime.id, max_lifetime_seconds=600, idle_limit_seconds=IDLE_SECONDS)


async def ends_idle_though(runtime: Runtime, bench: Bench, act: Callable[[], object]) -> None:
    """Do something all the time, and see that the runtime ends all the same."""
    ending = asyncio.create_task(bench.backend.wait_end(runtime.id))

    async def again_and_again() -> None:
        while not ending.done():
            with contextlib.suppress(OSError):
                await asyncio.to_thread(act)
            await asyncio.sleep(0.1)

    acting = asyncio.create_task(again_and_again())
    async with asyncio.timeout(PATIENCE):
        assert (await ending).code == "idle"
    await asyncio.gather(acting, return_exceptions=True)


async def becomes_busy(runtime: Runtime, bench: Bench) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (await bench.backend.activity(runtime.id)).busy:
            await asyncio.sleep(0.05)


async def until_idle(runtime: Runtime, bench: Bench) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await bench.backend.activity(runtime.id)).busy:
            await asyncio.sleep(0.05)


def sends(runtime: Runtime, code: str) -> Kernel:
    """Send a cell to a new kernel and return once it says that it runs."""
    kernel = Kernel(runtime.url, runtime.ticket())
    kernel.run("1")
    kernel.send("execute_request", {"code": code, "silent": False, "store_history": True})
    return kernel


async def test_an_open_page_that_asks_and_completes_is_no_use(bench: Bench) -> None:
    runtime = await bench.start()
    async with kept(runtime, bench):
        kernel = await asyncio.to_thread(Kernel, runtime.url, runtime.ticket())
        await asyncio.to_thread(kernel.run, "1")

    def ask() -> None:
        kernel.send("kernel_info_request", {})
        kernel.send("complete_request", {"code": "pri", "cursor_pos": 3})
        kernel.send("comm_info_request", {})

    await ends_idle_though(runtime, bench, ask)
    kernel.close()


async def test_what_the_runtimes_own_server_takes_for_use_is_none(bench: Bench) -> None:
    """Whatever runs in a runtime can write files and open terminals there; a person's page says so to control."""
    runtime = await bench.start()
    headers = {"Authorization": f"token {runtime.ticket()}"}
    async with kept(runtime, bench):
        pass

    def edit() -> None:
        body = {"type": "file", "format": "text", "content": "x"}
        requests.put(f"{runtime.url}api/contents/x.txt", json=body, headers=headers, timeout=PATIENCE)

    await ends_idle_though(runtime, bench, edit)


async def test_a_silent_cell_is_use_although_nobody_is_connected(bench: Bench) -> None:
    runtime = await bench.start()
    async with kept(runtime, bench):
        kernel = await asyncio.to_thread(sends, runtime, "import time; time.sleep(600)")
        await becomes_busy(runtime, bench)
        kernel.close()
    await asyncio.sleep(2 * IDLE_SECONDS)
    activity = await bench.backend.activity(runtime.id)
    assert activity.busy and activity.seconds_ago < IDLE_SECONDS


async def test_a_cell_whose_kernel_was_killed_runs_no_more(bench: Bench) -> None:
    runtime = await bench.start()
    async with kept(runtime, bench):
        kernel = await asyncio.to_thread(sends, runtime, "import time; time.sleep(600)")
        await becomes_busy(runtime, bench)
    for pid in runtime.processes():
        if b"minicolab_runtime.kernel" in command_of(pid):
            os.kill(pid, signal.SIGKILL)
    await ends_idle_though(runtime, bench, lambda: None)
    kernel.close()


async def test_a_restarted_kernel_is_heard_again(bench: Bench) -> None:
    runtime = await bench.start()
    async with kept(runtime, bench):
        kernel = await asyncio.to_thread(sends, runtime, "import time; time.sleep(600)")
        await becomes_busy(runtime, bench)
        headers = {"Authorization": f"token {runtime.ticket()}"}
        again = f"{runtime.url}api/kernels/{kernel.id}/restart"
        reply = await asyncio.to_thread(requests.post, again, headers=headers, timeout=PATIENCE)
        assert reply.status_code == 200
        await until_idle(runtime, bench)
        kernel.send("execute_request", {"code": "import time; time.sleep(600)", "silent": False})
        await becomes_busy(runtime, bench)
    kernel.close()
    await asyncio.sleep(2 * IDLE_SECONDS)
    assert (await bench.backend.activity(runtime.id)).busy


async def test_a_daemon_that_takes_the_place_of_an_idle_kernel_is_not_believed(bench: Bench) -> None:
    """It knows the key, sits on the socket and says that a cell runs; but it is not the kernel."""
    runtime = await bench.start()
    daemon = """
import glob, os, subprocess, sys
code = '''
import json, os, sys, time, zmq
from jupyter_client.session import Session
file = sys.argv[1]
told = json.load(open(file))
session = Session(key=told["key"].encode())
address = file.removesuffix(".json") + "-ipc-" + str(told["iopub_port"])
os.unlink(address)
os.chdir(os.path.dirname(address))
publisher = zmq.Context().socket(zmq.PUB)
publisher.bind("ipc://" + os.path.basename(address))
parent = session.msg("execute_request")
while True:
    session.send(publisher, "status", {"execution_state": "busy"}, parent=parent, ident=b"kernel.1.status")
    open("lied", "a").write("x")
    time.sleep(0.2)
'''
from ipykernel.kernelapp import IPKernelApp
file = IPKernelApp.instance().abs_connection_file
subprocess.Popen([sys.executable, "-c", code, file], start_new_session=True)
"""
    async with kept(runtime, bench):
        await runtime.run(daemon)
        await until_async((runtime.folder / "run" / "kernels" / "lied").exists)
    await ends_idle_though(runtime, bench, lambda: None)
