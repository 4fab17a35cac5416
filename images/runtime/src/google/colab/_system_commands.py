"""`!cmd`, `%shell` and `%%shell`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

import zmq

from minicolab_runtime import commands, pip_hint

_PIP_WARNING_MIME = "application/vnd.colab-display-data+json"


class ShellResult:
    """What a `%shell` command printed (`output`), and its exit status (`returncode`)."""

    def __init__(self, args: str, returncode: int, output: str) -> None:
        self.args = args
        self.returncode = returncode
        self.output = output

    def check_returncode(self) -> None:
        """Raise CalledProcessError unless the command succeeded."""
        if self.returncode:
            raise subprocess.CalledProcessError(self.returncode, self.args, self.output)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show nothing: the output was shown as it came."""


class _KernelAsker:
    """Asks through the kernel's own input channel, which every Jupyter client shows below the cell."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def begin(self, password: bool) -> None:
        kernel = self._kernel
        while kernel.stdin_socket.poll(0, zmq.POLLIN):
            kernel.stdin_socket.recv_multipart(
                zmq.NOBLOCK
            )  # an answer to an earlier question that nobody asks any more
        parent = kernel.get_parent("shell")
        kernel.announce_input("", password, parent)
        ident = kernel._get_shell_context_var(kernel._shell_parent_ident)
        content = {"prompt": "", "password": password}
        kernel.session.send(kernel.stdin_socket, "input_request", content, parent, ident=ident)

    def poll(self) -> str | None:
        kernel = self._kernel
        if not kernel.stdin_socket.poll(0, zmq.POLLIN):
            return None
        _, reply = kernel.session.recv(kernel.stdin_socket, zmq.NOBLOCK)
        value = ((reply or {}).get("content") or {}).get("value")
        return value if isinstance(value, str) else None


def run(shell: Any, command: str, *, collect: list[str] | None = None) -> int:
    """Run an expanded command for `shell`; return its exit status. Output is also put into `collect`."""

    def write(text: str) -> None:
        if collect is not None:
            collect.append(text)
        sys.stdout.write(text)
        sys.stdout.flush()

    kernel = shell.kernel
    asks = kernel is not None and getattr(kernel, "_allow_stdin", False)
    if os.environ.get("COLAB_DISABLE_STDIN_FOR_SHELL_MAGICS"):
        asks = False
    installs = pip_hint.is_install(command) and not os.environ.get("SKIP_COLAB_PIP_WARNING")
    before = pip_hint.installed() if installs else {}
    status = commands.run(command, write, _KernelAsker(kernel) if asks else None)
    if installs:
        _warn_of_stale_imports(before)
    return status


def shell_magic(shell: Any, line: str, cell: str | None = None) -> ShellResult | None:
    """`%shell command`, or `%%shell [--ignore-errors]` over a script: like bash, and an error when it fails."""
    ignore_errors = False
    command = line
    if cell is not None:
        parser = argparse.ArgumentParser(prog="%%shell", exit_on_error=False, add_help=False)
        parser.add_argument("--ignore-errors", action="store_true")
        ignore_errors = parser.parse_args(line.split()).ignore_errors
        command = cell
    if not command.strip():
        return None
    collected: list[str] = []
    status = run(shell, shell.var_expand(command, depth=3) if cell is None else command, collect=collected)
    result = ShellResult(command, status, "".join(collected))
    if not ignore_errors:
        result.check_returncode()
    return result


def _warn_of_stale_imports(before: dict[str, str]) -> None:
    stale = pip_hint.stale_imports(before, pip_hint.installed())
    if not stale:
        return
    from IPython.display import display

    print(
        "WARNING: The following packages were previously imported in this runtime:\n"
        f"  [{','.join(stale)}]\n"
        "You must restart the runtime in order to use newly installed versions."
    )
    show: Any = display
    show({_PIP_WARNING_MIME: {"pip_warning": {"packages": stale}}}, raw=True)
