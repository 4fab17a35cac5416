"""Evidence of a runtime's use from outside its user's code: the supervisor itself listens to the kernels.

A kernel is a living child of the runtime's server that was started with a connection file of its own. Its word about cells that run
counts when it comes from the very process, by the credentials of its socket, and is signed with the key of its file; it is stamped
when it arrives here. A cell that runs is use, however silent. A cell may have begun before we listened, so a kernel is asked what it
is: that it answers in turn, and until it does, it runs something. A kernel that can not be heard so (it is wrapped in another program,
something else sits on its socket) is judged by what its processes compute, on the processor or an accelerator. When the process
ends, so does what it said; while it is stopped, it runs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spawner.supervisor import executions, gpu_use, linux, processes, zmtp
from spawner.supervisor.executions import Executions, read
from spawner.supervisor.safe_read import read_object

KERNELS = "kernels"
TOPICS = (
    b"kernel",
    b"status",
)  # of kernels on IPython's and on xeus' foundations; their outputs are not sent to us
MOST_KERNELS = 32
COMPUTES = 0.05  # processors in use from which a kernel that can not be heard counts as computing
WINDOW_SECONDS = 1.0  # over which it is measured, at least: the kernel counts in hundredths
AGAIN_SECONDS = 0.2
MOST_QUESTIONS = 8
SOON_SECONDS, START_SECONDS, LATER_SECONDS = 0.05, 60.0, 10.0
MOST_PER_LOOK, MOST_MESSAGES_PAUSE = 200, 0.1  # of one kernel: a flood must not take the machine's time
ARRIVE_SECONDS = 0.05
FAULTS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    TimeoutError,
    zmtp.NotZmtp,
)  # what a socket of a user's may bring about
_FILE = re.compile(rb"kernel-[0-9a-f-]{36}\.json$")


@dataclass
class Kernel:
    """One kernel's process. `process` is a descriptor of it."""

    pid: int
    file: str
    process: int
    executions: Executions = field(default_factory=Executions)
    heard: bool = False
    answered: bool = False
    asked: str = ""  # the question whose answer is awaited
    computed: tuple[float, float] | None = None  # when we looked, and the processor's seconds until then
    computes: bool = False


class KernelUse:
    """Follows the kernels in `run`/kernels that are children of the server."""

    def __init__(self, run: Path, server_pid: Callable[[], int | None], *, accelerators: bool) -> None:
        self._run, self._server_pid, self._accelerators = run, server_pid, accelerators
        self._kernels: dict[int, Kernel] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last = -1.0

    @property
    def busy(self) -> bool:
        """Whether a cell runs now."""
        return any(
            kernel.computes
            or (bool(kernel.executions.busy or kernel.asked) and processes.goes_on(kernel.pid))
            for kernel in self._kernels.values()
        )

    def used_at(self) -> float:
        """Return when (boottime) a cell last ran; now, while one does. Before all times when none has."""
        if self.busy:
            self._last = linux.boottime()
        return self._last

    async def follow(self) -> None:
        """Listen to every kernel that comes, until cancelled."""
        watch, came = None, asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            while True:
                if watch is None:
                    with contextlib.suppress(OSError):
                        watch = linux.watch_folder(str(self._run / KERNELS))
                        loop.add_reader(watch, came.set)
                came.clear()
                if watch is not None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(watch, 1 << 16)
                # At once: a kernel may come, run a cell and go within a moment.
                self._look_for_kernels()
                await asyncio.sleep(AGAIN_SECONDS)  # a flood of files is one
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0 if watch is None else 15.0):
                        await came.wait()
        finally:
            if watch is not None:
                loop.remove_reader(watch)
                os.close(watch)
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def look(self) -> None:
        """Take in what has arrived, and see what those compute that can not be heard."""
        self._look_for_kernels()
        await asyncio.sleep(ARRIVE_SECONDS)
        for kernel in list(self._kernels.values()):
            if not (kernel.heard or kernel.asked):
                kernel.computes = await self._computes(kernel)
            elif kernel.computes:
                kernel.computes = False
        self.used_at()

    # -- kernels ----------------------------------------------------------------------------------------------

    def _look_for_kernels(self) -> None:
        server = self._server_pid()
        if server is None:
            return
        for pid in processes.children_of(server):
            if pid in self._kernels or len(self._kernels) >= MOST_KERNELS:
                continue
            found = _FILE.search(_file_named(pid))
            if found is None:
                continue
            try:
                process = os.pidfd_open(pid)
            except OSError:
                continue
            if processes.parent_of(pid) != server:
                os.close(process)  # another process has the number by now
                continue
            kernel = self._kernels[pid] = Kernel(pid, found[0].decode(), process)
            self._tasks[pid] = asyncio.create_task(self._follow(kernel))

    async def _follow(self, kernel: Kernel) -> None:
        """Listen to a kernel until its process ends."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(kernel.process, ended.set)
        listening = asyncio.create_task(self._listen_again_and_again(kernel))
        try:
            await ended.wait()
            if not kernel.answered:
                self._last = (
                    linux.boottime()
                )  # it came and went before we could listen: it was somebody's use
            self.used_at()
        finally:
            loop.remove_reader(kernel.process)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            os.close(kernel.process)
            del self._kernels[kernel.pid], self._tasks[kernel.pid]

    async def _listen_again_and_again(self, kernel: Kernel) -> None:
        began = linux.boottime()
        while True:
            try:
                await self._listen(kernel)
            except FAULTS:
                # It is not there yet, or not what it should be: then nothing of it counts but what it computes.
                self.used_at()
                kernel.heard, kernel.asked, kernel.executions = False, "", Executions()
            # One that has just been started makes its sockets at any moment, and may be given its first cell right after.
            await asyncio.sleep(SOON_SECONDS if linux.boottime() < began + START_SECONDS else LATER_SECONDS)

    async def _listen(self, kernel: Kernel) -> None:
        """Take in what a kernel says until the connection ends. Raise OSError and others when it is not to be heard."""
        told = read_object(self._run / KERNELS, kernel.file)
        key, scheme = str(told["key"]).encode(), told.get("signature_scheme")
        if told["transport"] != "ipc" or (key and scheme != "hmac-sha256"):
            raise ValueError("not as our server makes it")
        reader, writer = await self._connect(kernel, told["iopub_port"])
        asking: asyncio.Task[None] | None = None
        try:
            await zmtp.subscribe(reader, writer, TOPICS)
            if "shell_port" in told:
                asking = asyncio.create_task(self._ask(kernel, told["shell_port"], key))
            taken = 0
            async for parts in zmtp.messages(reader, writer):
                with contextlib.suppress(ValueError):
                    self._take_in(kernel, parts, key)
                taken += 1
                if taken % MOST_PER_LOOK == 0:
                    await asyncio.sleep(MOST_MESSAGES_PAUSE)
        finally:
            writer.close()
            if asking is not None:
                asking.cancel()

    async def _connect(
        self, kernel: Kernel, port: object
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection to one of the kernel's sockets. Raise OSError, or ValueError when another process sits there."""
        name = f"{kernel.file.removesuffix('.json')}-ipc-{int(str(port))}"
        with _address(self._run / KERNELS, name) as path:
            reader, writer = await asyncio.open_unix_connection(path)
        if _peer(writer) != kernel.pid:
            writer.close()
            raise ValueError("another process sits on the kernel's socket")
        return reader, writer

    async def _ask(self, kernel: Kernel, port: object, key: bytes) -> None:
        """Ask, a few times: the first question may come before our subscription does. The answer may take hours."""
        question, sent, wait = f"minicolab-{secrets.token_hex(8)}", False, SOON_SECONDS
        for number in range(MOST_QUESTIONS):
            if sent and not kernel.asked:
                return
            with contextlib.suppress(*FAULTS):
                reader, writer = await self._connect(kernel, port)
                try:
                    await zmtp.shake_hands(reader, writer, b"DEALER", (b"ROUTER",))
                    if not sent:
                        kernel.asked, sent = question, True
                    await zmtp.send(writer, executions.question(f"{question}-{number}", key))
                    await asyncio.sleep(wait)
                finally:
                    writer.close()
            await asyncio.sleep(SOON_SECONDS)
            wait = min(2 * wait, LATER_SECONDS)

    def _take_in(self, kernel: Kernel, parts: list[bytes | None], key: bytes) -> None:
        header, parent, content = read(parts, key)
        kernel.heard = True
        if kernel.asked and str(parent.get("msg_id")).startswith(kernel.asked):
            kernel.asked = ""
            if not kernel.answered:
                # It has been started since we looked last, and may have run a cell before we heard it.
                kernel.answered, self._last = True, linux.boottime()
        if kernel.executions.heard(header, parent, content):
            self._last = linux.boottime()

    # -- what those compute that can not be heard ---------------------------------------------------------------

    async def _computes(self, kernel: Kernel) -> bool:
        now = linux.boottime()
        if kernel.computed is not None and now - kernel.computed[0] < WINDOW_SECONDS:
            return kernel.computes
        tree = processes.tree_of(kernel.pid)
        seconds = sum(processes.cpu_seconds(pid) for pid in tree)
        before, kernel.computed = kernel.computed, (now, seconds)
        if before is None:
            return False
        if (seconds - before[1]) / (now - before[0]) >= COMPUTES:
            return True
        return self._accelerators and not (await gpu_use.users(now - before[0])).isdisjoint(tree)


def _file_named(pid: int) -> bytes:
    """Return the connection file a process was started with, nothing when it names none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(64 * 1024).split(b"\0")
    except OSError:
        return b""
    return next((word for word in words if _FILE.search(word)), b"")


@contextlib.contextmanager
def _address(folder: Path, name: str) -> Iterator[str]:
    """Yield an address of the socket `name` in `folder`: no link is followed, and it fits however deep the folder. Raise OSError."""
    place = os.open(folder.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = linux.open_beneath(place, f"{folder.name}/{name}", os.O_PATH)
    finally:
        os.close(place)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise OSError(f"{name} is no socket")
        yield f"/proc/self/fd/{found}"
    finally:
        os.close(found)


def _peer(writer: asyncio.StreamWriter) -> int:
    """Return the process that listens at the other end."""
    connection: socket.socket = writer.get_extra_info("socket")
    pid, _, _ = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
