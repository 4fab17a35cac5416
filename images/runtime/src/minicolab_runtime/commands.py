"""Shell commands of a notebook (`!cmd`, `%%shell`): a terminal of their own, output as it comes, questions answered, interruptible."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import os
import platform
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_ROWS, _COLUMNS = 24, 100
_QUIET_SECONDS = 0.3  # a command that prints nothing for so long may be waiting for a line
_POLL_MS = 100
_PATIENCE = (  # after an interrupt: what to send next, and how many seconds after the one before
    (signal.SIGINT, 3.0),
    (signal.SIGTERM, 3.0),
    (signal.SIGKILL, 3.0),
)
_READ_CALLS = {"x86_64": 0, "aarch64": 63}
_SELECT_CALLS = {"x86_64": (23, 270), "aarch64": (72,)}


# The session's leader is a plain sh that waits, and the command its child: bash as leader would take the terminal as its
# controlling one, and its end would hang the terminal up under whatever it left in the background.
_LEADER = 'trap : INT TERM; "$1" -c "$2"; exit $?'


class Asker(Protocol):
    """How a running command's question reaches the person and the answer comes back."""

    def begin(self, password: bool) -> None:
        """Show an input box below the cell."""
        ...

    def poll(self) -> str | None:
        """Return the line that was entered, or None as long as there is none."""
        ...


def run(command: str, write: Callable[[str], None], asker: Asker | None = None) -> int:
    """Run `command` in bash; pass its output to `write` as it comes; return its exit status (negative: the signal)."""
    master, slave = pty.openpty()
    try:
        _configure(slave)
        process = subprocess.Popen(
            [
                "/bin/sh",
                "-c",
                _LEADER,
                "sh",
                "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh",
                command,
            ],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            close_fds=True,
        )
        terminal = os.ttyname(slave)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    pump = _Pump(master, process, terminal, write, asker)
    try:
        pump.until_exit()
    finally:
        pump.leave()
    status = process.returncode
    return 128 - status if status > 128 else status  # a shell reports a signal as 128 + its number


class _Pump:
    """Moves bytes between one command's terminal and the notebook."""

    def __init__(
        self,
        master: int,
        process: subprocess.Popen[bytes],
        terminal: str,
        write: Callable[[str], None],
        asker: Asker | None,
    ) -> None:
        self._master = master
        self._process = process
        self._terminal = Path(terminal)
        self._write = write
        self._asker = asker
        self._asked = False
        self._password = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._echo = ""  # what the terminal will echo of an answer, which the page has shown already
        self._held = ""  # a carriage return whose next character is not known yet
        self._closed = False
        self._quiet_since = time.monotonic()

    def until_exit(self) -> None:
        """Pump until the command has ended, whatever it left in the background."""
        exited = os.pidfd_open(self._process.pid)
        interrupts = 0
        escalate_at: float | None = None
        poller = select.poll()
        poller.register(self._master, select.POLLIN)
        poller.register(exited, select.POLLIN)
        try:
            while True:
                try:
                    events = dict(poller.poll(_POLL_MS))
                    if self._master in events:
                        if not self._read():
                            poller.unregister(self._master)
                    else:
                        self._attend()
                    if exited in events:
                        self._process.wait()
                        self._drain()
                        return
                    if escalate_at is not None and time.monotonic() >= escalate_at:
                        interrupts += 1
                        escalate_at = self._interrupt(interrupts)
                except KeyboardInterrupt:
                    if escalate_at is None:
                        self._emit("^C\n")
                    else:
                        interrupts += 1
                    escalate_at = self._interrupt(interrupts)
        finally:
            os.close(exited)

    def leave(self) -> None:
        """Let go of the terminal. A background process that still writes to it goes on, into a drain."""
        self._emit(self._decoder.decode(b"", True), final=True)
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._closed or self._hung_up():
            os.close(self._master)
            return
        threading.Thread(
            target=_discard, args=(self._master,), name="background-command", daemon=True
        ).start()

    def _read(self) -> bool:
        """Pass on what there is; return False at the end."""
        try:
            data = os.read(self._master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: every holder of the terminal's other side has closed it
                raise
            data = b""
        if not data:
            self._closed = True
            return False
        self._quiet_since = time.monotonic()
        self._emit(self._decoder.decode(data))
        return True

    def _drain(self) -> None:
        """Pass on what the command had printed when it ended, without waiting for what it left in the background."""
        while not self._closed:
            ready, _, _ = select.select([self._master], [], [], 0)
            if not ready or not self._read():
                return

    def _emit(self, text: str, final: bool = False) -> None:
        text = self._without_echo(self._held + text)
        self._held = ""
        if text.endswith("\r") and not final:
            text, self._held = text[:-1], "\r"
        if text:
            self._write(text.replace("\r\n", "\n"))

    def _without_echo(self, text: str) -> str:
        """Return `text` without the terminal's echo of the last answer, as far as it begins with that."""
        if not self._echo or not text:
            return text
        plain = text.replace("\r\n", "\n")
        if plain.startswith(self._echo):
            plain, self._echo = plain[len(self._echo) :], ""
            return plain
        if self._echo.startswith(plain):
            self._echo = self._echo[len(plain) :]
            return ""
        self._echo = ""
        return text

    def _attend(self) -> None:
        """While the command is quiet: ask the person if it waits for a line, and pass the answer on."""
        if self._asker is None or self._closed:
            return
        if self._asked:
            line = self._asker.poll()
            if line is not None:
                self._asked = False
                self._quiet_since = time.monotonic()
                self._answer(line)
        elif time.monotonic() - self._quiet_since > _QUIET_SECONDS and waits_for_line(
            self._process.pid, self._terminal
        ):
            flags = termios.tcgetattr(self._master)[3]
            # A readline prompt turns echo off too, but leaves canonical mode; a password prompt keeps it.
            self._password = not flags & termios.ECHO and bool(flags & termios.ICANON)
            self._asker.begin(self._password)
            self._asked = True

    def _answer(self, line: str) -> None:
        """Type a line into the terminal."""
        self._echo = "" if self._password else line + "\n"
        os.write(self._master, line.encode("utf-8") + b"\n")

    def _interrupt(self, step: int) -> float:
        """Send the next harder signal to the command and its children; return when to send the one after."""
        number, patience = _PATIENCE[min(step, len(_PATIENCE) - 1)]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        return time.monotonic() + patience

    def _hung_up(self) -> bool:
        poller = select.poll()
        poller.register(self._master, 0)
        return any(event & select.POLLHUP for _, event in poller.poll(0))


def waits_for_line(session: int, terminal: Path) -> bool:
    """Return whether a process of this session is blocked reading the terminal as its standard input.

    Known from /proc/PID/syscall: a read of descriptor 0, or a select over descriptor 0 alone (readline).
    """
    machine = platform.machine()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session or (folder / "fd/0").readlink() != terminal:
                continue
            call = (folder / "syscall").read_text().split()
        except (OSError, IndexError, ValueError):
            continue
        if len(call) < 3 or not call[0].isdigit():
            continue
        number, first = int(call[0]), int(call[1], 16)
        if number == _READ_CALLS.get(machine) and first == 0:
            return True
        if number in _SELECT_CALLS.get(machine, ()) and first == 1:
            return True
    return False


def _configure(slave: int) -> None:
    """Set the terminal's size, and let it leave line ends as they are."""
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))


def _discard(master: int) -> None:
    """Read a terminal to its end, so that whoever still writes to it neither blocks nor fails."""
    try:
        while os.read(master, 65536):
            pass
    except OSError:
        pass  # the last writer is gone
    finally:
        os.close(master)
