"""R4: nothing that runs in a runtime lengthens its life but a kernel that really runs. Real processes, real sockets, real liars."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spawner.supervisor import kernel_use, linux
from spawner.supervisor.kernel_use import KernelUse
from support.patience import PATIENCE, until_async

NAME = "kernel-00000000-0000-0000-0000-00000000000{}"
KEY = "k" * 32
KERNEL = """
import hashlib, hmac, json, sys, zmq
name, key = sys.argv[2].rpartition("/")[2].removesuffix(".json"), sys.argv[3].encode()
publisher = zmq.Context().socket(zmq.XPUB)
publisher.bind(f"ipc://{name}-ipc-2")
print("bound", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "subscribed":
        for _ in range(2):
            publisher.recv()
    elif word == "spin":
        while True: pass
    else:
        parts = [json.dumps(part).encode() for part in ({"msg_type": "status"}, {"msg_type": rest[1], "msg_id": rest[0]}, {}, {"execution_state": word})]
        mac = hmac.new(key, b"".join(parts), hashlib.sha256).hexdigest().encode()
        publisher.send_multipart([b"kernel.1.status", b"<IDS|MSG>", mac, *parts])
    print("did", line, end="", flush=True)
"""
SITS = "import sys; print('sits', flush=True); sys.stdin.read()"
SPINS = "while True: pass"


class Kernels:
    """A run folder, the kernels in it (children of this process, which plays the server), and who follows them."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.folder = self.run / "kernels"
        self.folder.mkdir(parents=True)
        self.use = KernelUse(self.run, os.getpid, accelerators=False)
        self._following = asyncio.create_task(self.use.follow())
        self.processes: list[subprocess.Popen[str]] = []

    def describe(self, number: int = 1, **changes: object) -> Path:
        told = {
            "transport": "ipc",
            "key": KEY,
            "signature_scheme": "hmac-sha256",
            "iopub_port": 2,
            **changes,
        }
        path = self.folder / f"{NAME.format(number)}.json"
        path.write_text(json.dumps(told))
        return path

    def start(self, code: str, path: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "-f", path, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )
        self.processes.append(process)
        return process

    async def sitting(self, path: str) -> subprocess.Popen[str]:
        """Start a kernel that does nothing and return once it is seen and its start is no longer counted."""
        process = self.start(SITS, path)
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "sits\n"
        await self.use.look()
        await asyncio.sleep(kernel_use.WINDOW_SECONDS)
        await self.use.look()
        return process

    async def kernel(self, number: int = 1, key: str = KEY) -> subprocess.Popen[str]:
        process = self.start(KERNEL, str(self.describe(number)), key)
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "bound\n"
        return process

    async def end(self) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        for process in self.processes:
            process.kill()
            process.communicate()


async def tell(process: subprocess.Popen[str], line: str) -> None:
    """Let a kernel do something and return once it has."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.to_thread(process.stdout.readline) == f"did {line}\n"


@pytest.fixture
async def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kernels]:
    monkeypatch.setattr(kernel_use, "AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(kernel_use, "WINDOW_SECONDS", 0.3)
    kernels = Kernels(tmp_path)
    yield kernels
    await kernels.end()


async def looks(use: KernelUse, count: int = 4) -> bool:
    """Return whether several looks, apart from each other, ever found the runtime in use."""
    seen = False
    for _ in range(count):
        await use.look()
        seen = seen or use.busy
        await asyncio.sleep(0.1)
    return seen


async def test_a_cell_is_use_while_it_runs_and_is_stamped_here(kernels: Kernels) -> None:
    kernel = await kernels.kernel()
    await tell(kernel, "subscribed")
    assert not kernels.use.busy and kernels.use.used_at() == -1
    began = linux.boottime()
    await tell(kernel, "busy c1 execute_request")
    await until_async(lambda: kernels.use.busy)
    assert began <= kernels.use.used_at() <= linux.boottime()
    await asyncio.sleep(0.1)
    later = kernels.use.used_at()
    assert later >= began + 0.1  # it still runs, however silent
    await tell(kernel, "idle c1 execute_request")
    await until_async(lambda: not kernels.use.busy)
    last = kernels.use.used_at()
    await kernels.use.look()
    assert kernels.use.used_at() == last >= later


async def test_questions_of_an_open_page_are_no_use(kernels: Kernels) -> None:
    kernel = await kernels.kernel()
    await tell(kernel, "subscribed")
    for kind in ("kernel_info_request", "complete_request", "comm_info_request"):
        await tell(kernel, f"busy q {kind}")
    assert not await looks(kernels.use) and kernels.use.used_at() == -1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_kernel_that_ended_or_is_stopped_runs_nothing(
    kernels: Kernels, number: signal.Signals
) -> None:
    kernel = await kernels.kernel()
    await tell(kernel, "subscribed")
    await tell(kernel, "busy c1 execute_request")
    await until_async(lambda: kernels.use.busy)
    kernel.send_signal(number)
    await until_async(lambda: not kernels.use.busy)
    await looks(kernels.use)  # the end itself of one that was never heard to answer is the last use there is
    last = kernels.use.used_at()
    assert not await looks(kernels.use) and kernels.use.used_at() == last


async def test_a_new_process_on_the_same_socket_is_a_new_kernel(kernels: Kernels) -> None:
    for _ in range(2):
        kernel = await kernels.kernel()
        await tell(kernel, "subscribed")
        assert not kernels.use.busy
        await tell(kernel, "busy c1 execute_request")
        await until_async(lambda: kernels.use.busy)
        kernel.kill()
        kernel.wait()
        await until_async(lambda: not kernels.use.busy)


ANSWERS = """
import os, sys, zmq
from jupyter_client.session import Session
name, key = sys.argv[2].rpartition("/")[2].removesuffix(".json"), sys.argv[3].encode()
context, session = zmq.Context(), Session(key=key)
shell, publisher = context.socket(zmq.ROUTER), context.socket(zmq.PUB)
shell.bind(f"ipc://{name}-ipc-1")
publisher.bind(f"ipc://{name}-ipc-2")
print("bound", flush=True)
sys.stdin.readline()  # a cell that began before anybody listened
print("did", "end", flush=True)
while True:
    identities, message = session.recv(shell, mode=0)
    for state in ("busy", "idle"):
        session.send(publisher, "status", {"execution_state": state}, parent=message, ident=b"kernel.1.status")
"""


async def test_a_cell_that_began_before_anybody_listened_is_use_until_it_ends(kernels: Kernels) -> None:
    kernel = kernels.start(ANSWERS, str(kernels.describe(1, shell_port=1)), KEY)
    assert kernel.stdout is not None
    assert await asyncio.to_thread(kernel.stdout.readline) == "bound\n"
    await until_async(lambda: kernels.use.busy)
    for _ in range(5):
        await kernels.use.look()
        assert kernels.use.busy
        await asyncio.sleep(0.1)
    await tell(kernel, "end")
    await until_async(lambda: not kernels.use.busy)
    assert not await looks(kernels.use)


async def test_a_kernel_that_answers_at_once_may_have_run_a_cell_before(kernels: Kernels) -> None:
    """Its cell is over before anybody listened; that it was started since is use all the same, once."""
    kernel = kernels.start(ANSWERS, str(kernels.describe(1, shell_port=1)), KEY)
    began = linux.boottime()
    await tell_unanswered(kernel)
    await until_async(lambda: kernels.use.used_at() >= began)
    await until_async(lambda: not kernels.use.busy)
    last = kernels.use.used_at()
    assert not await looks(kernels.use) and kernels.use.used_at() == last


async def test_a_kernel_that_came_and_went_before_anybody_could_listen_was_used(kernels: Kernels) -> None:
    began = linux.boottime()
    kernel = await kernels.sitting(str(kernels.describe(1)))
    assert kernels.use.used_at() == -1
    kernel.kill()
    await until_async(lambda: kernels.use.used_at() >= began)


async def tell_unanswered(kernel: subprocess.Popen[str]) -> None:
    """Let a kernel end its first cell as soon as it can."""
    assert kernel.stdin is not None and kernel.stdout is not None
    kernel.stdin.write("end\n")
    kernel.stdin.flush()
    for said in ("bound\n", "did end\n"):
        assert await asyncio.to_thread(kernel.stdout.readline) == said


async def test_words_signed_with_another_key_are_not_believed(kernels: Kernels) -> None:
    kernel = await kernels.kernel(key="x" * 32)
    await tell(kernel, "subscribed")
    await tell(kernel, "busy c1 execute_request")
    assert not await looks(kernels.use)


async def test_another_process_on_a_kernels_socket_is_not_believed(kernels: Kernels) -> None:
    """A kernel that sleeps, and a daemon that took its socket's name and says that it works."""
    path = str(kernels.describe(1))
    liar = kernels.start(KERNEL, f"elsewhere/{NAME.format(1)}", KEY)
    assert liar.stdout is not None
    assert await asyncio.to_thread(liar.stdout.readline) == "bound\n"
    kernel = await kernels.sitting(path)
    for _ in range(10):
        await tell(liar, "busy c1 execute_request")
        assert not await looks(kernels.use, 1)
    assert list(kernels.use._kernels) == [kernel.pid]


async def test_a_process_that_is_no_child_of_the_server_is_no_kernel(kernels: Kernels) -> None:
    path = kernels.describe(1)
    start = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]]).wait()"
    wrapped = subprocess.Popen(
        [sys.executable, "-c", start, KERNEL, "-f", str(path) + " ", KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=kernels.folder,
        start_new_session=True,
    )
    assert wrapped.stdout is not None
    await asyncio.to_thread(wrapped.stdout.readline)
    assert not await looks(kernels.use)
    assert not kernels.use._kernels
    os.killpg(wrapped.pid, signal.SIGKILL)
    wrapped.communicate()


async def test_a_kernel_that_can_not_be_heard_is_used_while_it_computes(kernels: Kernels) -> None:
    process = kernels.start(SPINS, str(kernels.describe(1)))

    async def seen() -> None:
        while not kernels.use.busy:
            await kernels.use.look()
            await asyncio.sleep(0.1)

    async with asyncio.timeout(PATIENCE):
        await seen()
    process.kill()
    await until_async(lambda: not kernels.use.busy)


async def test_a_kernel_that_can_not_be_heard_and_does_nothing_is_not_used(kernels: Kernels) -> None:
    await kernels.sitting(str(kernels.describe(1)))
    assert not await looks(kernels.use, 8)


async def test_a_kernel_that_is_heard_and_idle_is_idle_whatever_it_computes(kernels: Kernels) -> None:
    """A thread left behind by a cell is no use: the cell has ended."""
    kernel = await kernels.kernel()
    await tell(kernel, "subscribed")
    await tell(kernel, "idle c0 execute_request")
    await until_async(lambda: any(known.heard for known in kernels.use._kernels.values()))
    assert kernel.stdin is not None
    kernel.stdin.write("spin\n")
    kernel.stdin.flush()
    assert not await looks(kernels.use)


async def test_no_link_leads_us_to_another_socket(kernels: Kernels, tmp_path: Path) -> None:
    """Else a runtime could make its supervisor speak to any daemon of the machine."""
    asked: list[object] = []
    os.chdir(tmp_path)
    server = await asyncio.start_unix_server(lambda r, w: asked.append(r), "daemon")
    (kernels.folder / f"{NAME.format(1)}-ipc-2").symlink_to(tmp_path / "daemon")
    kernels.start(SITS, str(kernels.describe(1)))
    await until_async(lambda: kernels.use._kernels)
    await looks(kernels.use)
    assert asked == []
    server.close()


@pytest.mark.parametrize(
    "trick",
    [
        "os.mkfifo(p)",
        "os.symlink('/etc/passwd', p)",
        "open(p, 'w').write('[' * 60000)",
        "open(p, 'w').write('x' * 1000000)",
        'open(p, \'w\').write(\'{"transport": "tcp", "key": "", "iopub_port": 2}\')',
        'open(p, \'w\').write(\'{"transport": "ipc", "key": "", "iopub_port": "../../x"}\')',
        "os.mkdir(p)",
    ],
)
async def test_a_connection_file_that_is_none_is_none(kernels: Kernels, trick: str) -> None:
    path = str(kernels.folder / f"{NAME.format(1)}.json")
    exec(trick, {"os": os, "p": path})
    await kernels.sitting(path)
    assert not await looks(kernels.use, 4)
    # And others are heard all the same.
    kernel = await kernels.kernel(2)
    await tell(kernel, "subscribed")
    await tell(kernel, "busy c1 execute_request")
    await until_async(lambda: kernels.use.busy)
