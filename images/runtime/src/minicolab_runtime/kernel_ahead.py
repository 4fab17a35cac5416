"""The process of a runtime's first kernel, forked before the server imports what only the server needs.

Both need Jupyter's client and its messaging; imported once and forked, they cost half the time and lie in memory once. The process
imports the rest of a kernel beside the server, waits until it is told its connection file, and is a kernel like any other from then
on, also for who looks at its command line. Nothing may run in the process that forks yet: no thread, no event loop, no ZeroMQ context.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jupyter_client
import zmq.eventloop.zmqstream
from tornado import ioloop
from traitlets.config import application

SHARED = (
    jupyter_client,
    zmq.eventloop.zmqstream,
    ioloop,
    application,
)  # what a kernel and the server have in common
_ARGUMENTS = slice(
    45, 49
)  # of the fields of /proc/PID/stat behind the name: where arguments and environment begin and end


class Forked:
    """A child of this process, as `subprocess.Popen` shows one."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class KernelAhead(Forked):
    """A process that waits to become a kernel."""

    def __init__(self, pid: int, orders: int) -> None:
        super().__init__(pid)
        self._orders = orders

    def become(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> bool:
        """Let it be what `command` would have started; return False when it is gone."""
        order = {
            "command": list(command),
            "environment": {**environment, "JPY_PARENT_PID": str(os.getpid())},
            "folder": folder,
        }
        with contextlib.suppress(BrokenPipeError), os.fdopen(self._orders, "wb", buffering=0) as orders:
            orders.write(json.dumps(order).encode())
        return self.poll() is None


def fork() -> KernelAhead | None:
    """Fork the process; return None in it, once it has been told what it is."""
    gc.freeze()  # what both share is not touched again
    reads, writes = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reads)
        return KernelAhead(pid, writes)
    os.close(writes)
    os.setsid()
    os.environ["JPY_PARENT_PID"] = str(os.getppid())  # read at import; a kernel ends with its server
    _import_the_rest()
    with os.fdopen(reads, "rb") as orders:
        text = orders.read()
    if not text:
        os._exit(0)  # the server has ended, and never needed a kernel
    _become(json.loads(text))
    return None


def _import_the_rest() -> None:
    """Import what `minicolab_runtime.kernel` is going to."""
    for name in ("ipykernel.kernelapp", "google.colab._kernel", "google.colab", "minicolab_runtime.kernel"):
        importlib.import_module(name)


def _become(order: dict[str, object]) -> None:
    command, environment = order["command"], order["environment"]
    assert isinstance(command, list) and isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(order["folder"]))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd())  # as `python -m` does
    sys.orig_argv = command
    sys.argv = [str(Path(__file__).with_name("kernel.py")), *command[3:]]
    show_command(command)


def show_command(command: Sequence[str]) -> None:
    """Show `command` as this process's command line, where the kernel lets it be longer than it was.

    The beginning of the old environment lies behind it and is overwritten: nothing may point there any more (os.environ has been
    filled anew).
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end, environment, environment_end = map(int, fields[_ARGUMENTS])
    text = " ".join(command).encode() + b"\0"
    if start and end == environment and len(text) <= environment_end - start:
        text = text.ljust(end - start, b"\0")
        ctypes.memmove(start, text, len(text))
