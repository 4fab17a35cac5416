"""The second watcher of a runtime's end: a small process beside the supervisor, which ends the runtime when that one does not.

The supervisor tells it when it will have something to say next, and what the end would be then. When that moment passes in
silence, the supervisor is stopped or hangs: it is first sent on its way (SIGCONT), and when it is silent still, killed, and all of
the runtime with it. What the supervisor would have left behind is left all the same. In turn the supervisor replaces a watchdog
that has ended or does not answer.

Its clock is CLOCK_BOOTTIME. It shares the lock of the runtime's folder, so nobody takes the runtime for gone while it works.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Protocol

from spawner.supervisor import linux, processes

LATE_SECONDS = 1.0  # after the moment that was told, before the supervisor is sent on its way
SILENT_SECONDS = 3.0  # from then on, before it is killed
KILLED_SECONDS = 2.0  # how long a killed process may take to end
LOOK_SECONDS = 5.0  # how often the supervisor looks whether its watchdog answers
MOST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Word:
    """When the supervisor will say something next (boottime), and how the runtime ends if it does not."""

    at: float
    code: str
    message: str
    snapshot_bytes: int = 0
    was_ready: bool = False

    def reason(self, ended_at: float) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "boottime": ended_at}


class Watched(Protocol):
    """What a watchdog needs of the runtime."""

    def kill(self) -> None:
        """End every process of the runtime but the supervisor, at once."""
        ...

    def leave(self, reason: dict[str, Any], snapshot_bytes: int, was_ready: bool) -> None:
        """Leave what an ended runtime leaves."""
        ...


class Watchdog:
    """The supervisor's end of it. `kept` are descriptors the watchdog needs besides its own, such as the folder's lock."""

    def __init__(self, watched: Watched, kept: tuple[int, ...]) -> None:
        self._watched, self._kept = watched, kept
        self._word = Word(linux.boottime() + 60.0, "start_timeout", "Python did not answer.")
        self._channel: socket.socket | None = None
        self._pid = 0
        self._answered = True

    @property
    def pid(self) -> int:
        return self._pid

    def _start(self) -> None:
        """Fork the watchdog. What it then needs it has in memory: it opens and imports nothing. Raise OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.pidfd_open(os.getpid())
        try:
            pid = os.fork()
            if pid == 0:
                _watch(theirs, supervisor, self._word, self._watched, self._kept)
        finally:
            theirs.close()
            os.close(supervisor)
        ours.setblocking(False)
        self._channel, self._pid, self._answered = ours, pid, True

    def tell(self, word: Word) -> None:
        """Say when we will say something next."""
        self._word = word
        if self._channel is not None:
            # One that does not read is replaced at the next look.
            with contextlib.suppress(OSError):
                self._channel.send(json.dumps(asdict(word)).encode())

    def look(self) -> None:
        """Start the watchdog, or a new one when it has ended or said nothing since the last look. Raise OSError."""
        self._hear()
        if self._channel is None or not self._answered or self._ended():
            self.close()
            self._start()
        self._answered = False
        self.tell(self._word)

    def close(self) -> None:
        """End the watchdog: nothing is left to watch."""
        if self._channel is None:
            return
        self._channel.close()
        self._channel = None
        if not self._ended():
            os.kill(self._pid, signal.SIGKILL)  # our own child, not yet waited for: the number is still its
            os.waitpid(self._pid, 0)
        self._pid = 0

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            while self._channel is not None and self._channel.recv(16):
                self._answered = True

    def _ended(self) -> bool:
        """Return whether the watchdog is gone; its status is taken then."""
        try:
            return os.waitpid(self._pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True


def _watch(
    channel: socket.socket, supervisor: int, word: Word, watched: Watched, kept: tuple[int, ...]
) -> NoReturn:
    """Be the watchdog."""
    try:
        _settle(channel, supervisor, kept)
        _hold(channel, supervisor, word, watched)
    except BaseException:  # the only way out of a forked child is _exit
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _settle(channel: socket.socket, supervisor: int, kept: tuple[int, ...]) -> None:
    """Leave behind what we inherited from the supervisor: signals, session, and every descriptor that is not ours."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    mine = sorted({2, channel.fileno(), supervisor, *kept})
    for low, high in zip(mine, [*mine[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)


def _hold(channel: socket.socket, supervisor: int, word: Word, watched: Watched) -> None:
    timer = linux.new_timer()
    poll = select.poll()
    for fd in (channel.fileno(), supervisor, timer):
        poll.register(fd, select.POLLIN)
    while True:
        linux.set_timer(timer, word.at + LATE_SECONDS)
        ready = {fd for fd, _ in poll.poll()}
        if supervisor in ready:
            # It was killed. What it left is removed by whoever looks next; its processes are not left to run.
            watched.kill()
            return
        if channel.fileno() in ready:
            told = _word(channel)
            if told is None:
                poll.unregister(channel)
            else:
                word = told
        elif timer in ready:
            _send(supervisor, signal.SIGCONT)
            if not _says_something(channel, supervisor):
                _end(supervisor, word, watched)
                return


def _word(channel: socket.socket) -> Word | None:
    """Return what the supervisor says now, and answer; None when it will say nothing more."""
    text = channel.recv(MOST_BYTES)
    if not text:
        return None
    with contextlib.suppress(OSError):
        channel.send(b".", socket.MSG_DONTWAIT)
    return Word(**json.loads(text))


def _says_something(channel: socket.socket, supervisor: int) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(supervisor, select.POLLIN)
    return bool(poll.poll(SILENT_SECONDS * 1000))


def _end(supervisor: int, word: Word, watched: Watched) -> None:
    sys.stderr.write("the supervisor kept silent beyond the runtime's end: it is killed\n")
    _send(supervisor, signal.SIGKILL)
    processes.wait(supervisor, int(KILLED_SECONDS * 1000))
    watched.kill()
    watched.leave(word.reason(linux.boottime()), word.snapshot_bytes, word.was_ready)


def _send(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, number)
