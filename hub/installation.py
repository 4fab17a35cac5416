"""The state folder of an installation: who runs it, on which ports, with which tokens."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub.settings import Ports, Service, Settings, SettingsError, load_service, save_service

FIRST_PORT = 20_000  # of those a free one is chosen from; they end where the kernel's own begin


class AlreadyRunning(Exception):
    """Another `up` holds this state folder; `holder` says who."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(
            f"{holder.state} is in use by process {holder.pid}, which serves {holder.url or 'a starting service'}"
        )
        self.holder = holder


@dataclass(frozen=True)
class Holder:
    """The process that runs an installation."""

    state: Path
    pid: int
    url: str
    processes: dict[str, int]


def _lock_file(state: Path) -> Path:
    return state / "run" / "up.lock"


@contextmanager
def hold(state: Path) -> Iterator[HolderFile]:
    """Hold the state folder while inside. Raise AlreadyRunning."""
    path = _lock_file(state)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(read_holder(state) or Holder(state, 0, "", {})) from None
        holder = HolderFile(file.fileno(), path)
        holder.write("", {})
        try:
            yield holder
        finally:
            holder.clear()


class HolderFile:
    """What the lock file says about its holder. The lock is the flock, never the file's existence."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path

    def write(self, url: str, processes: dict[str, int]) -> None:
        data = json.dumps({"pid": os.getpid(), "url": url, "processes": processes}).encode()
        # In this order a reader finds what was there or what is now, never nothing.
        os.pwrite(self._fd, data.ljust(os.fstat(self._fd).st_size), 0)
        os.ftruncate(self._fd, len(data))

    def clear(self) -> None:
        os.ftruncate(self._fd, 0)


def read_holder(state: Path) -> Holder | None:
    """Return who runs the installation now, or None when nobody does."""
    path = _lock_file(state)
    try:
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                data = json.loads(file.read() or "{}")
    except (FileNotFoundError, ValueError):
        return None
    return Holder(state, data.get("pid", 0), data.get("url", ""), data.get("processes", {}))


def prepare(state: Path, settings: Settings, port: int | None) -> Service:
    """Return the resolved installation: ports and tokens of the last start where they are still good, else new ones."""
    for name in ("run", "keys", "databases", "logs"):
        (state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o711)  # a runtime of another uid may pass through to its own folder, and list nothing
    try:
        old: Service | None = load_service(state)
    except (SettingsError, KeyError, ValueError):
        old = None
    public = port if port is not None else settings.service.port
    taken = {public}
    internal = [
        _port(getattr(old.ports, name) if old else None, taken)
        for name in ("proxy_api", "hub", "documents", "control")
    ]
    service = Service(
        state=state,
        settings=settings,
        ports=Ports(public, *internal),
        documents_token=old.documents_token if old else secrets.token_hex(32),
        control_token=old.control_token if old else secrets.token_hex(32),
        proxy_token=old.proxy_token if old else secrets.token_hex(32),
    )
    save_service(service)
    return service


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether we could listen on the port."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True


def _port(preferred: int | None, taken: set[int]) -> int:
    """Return a free loopback port, the preferred one when it still is."""
    if preferred is not None and preferred not in taken and port_is_free(preferred):
        taken.add(preferred)
        return preferred
    port = free_port(taken)
    taken.add(port)
    return port


def free_port(taken: Container[int] = ()) -> int:
    """Return a free loopback port, one the kernel gives nobody who asks for any port.

    So it is still free when its process begins to listen, and when that process is away for a moment.
    """
    try:
        end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        end = 32768
    tries = 1000 if end > FIRST_PORT else 0
    for _ in range(tries):
        port = FIRST_PORT + secrets.randbelow(end - FIRST_PORT)
        if port not in taken and port_is_free(port):
            return port
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = int(s.getsockname()[1])
        if port not in taken:
            return port
