"""The runtime's server, started by the container's first process before that imports what it needs itself: so this imports little."""

from __future__ import annotations

import base64
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from spawner.container.spec import DRIVES
from spawner.supervisor import linux

OOM_SCORE_ADJUSTMENT = "500"  # when memory ends, a program of the user's goes before the supervisor
NOT_STARTED = 127


class Places:
    """Where things are inside. Tests put them elsewhere."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.content = root / "content"
        self.run = root / "run" / "minicolab"
        self.drives = root / DRIVES.lstrip("/")
        self.python = Path("/opt/venv/bin/python")
        self.tmp = Path("/tmp")


class Started:
    """A server that is starting: its process, a descriptor of what it writes, and one that is readable when something lies in `run`."""

    def __init__(self, pid: int, log: int, ready_watch: int) -> None:
        self.pid, self.log, self.ready_watch = pid, log, ready_watch


def start(spec: Mapping[str, Any], places: Places) -> Started:
    """Start the server that `spec` (spawner.container.spec) describes. No thread may run yet. Raise OSError, ValueError, KeyError."""
    key = base64.b64decode(spec["ticket_key"])
    places.run.mkdir(parents=True, exist_ok=True)
    places.content.mkdir(parents=True, exist_ok=True)
    (places.run / "ready.json").unlink(missing_ok=True)  # of a container that was started again
    secret = places.run / "ticket.key"
    secret.touch(mode=0o600)
    secret.write_bytes(key)
    ready_watch = linux.watch_or_look(str(places.run))
    env = environment(places, spec["shape"], spec["environment"], os.environ)
    log, writes = os.pipe()
    pid = os.fork()
    if not pid:
        _become_server(places, env, writes, spec["shape"]["processes"])
    os.close(writes)
    return Started(pid, log, ready_watch)


def environment(
    places: Places, shape: Mapping[str, Any], given: Mapping[str, str], around: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the server: what the image says, less what is the supervisor's own, and what it is told."""
    programs = places.python.parent
    out = {name: value for name, value in around.items() if not name.startswith(("MINICOLAB_", "PYTHON"))}
    threads = str(max(1, round(shape["cpus"])))
    return {
        **out,
        "PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm-256color",
        "SHELL": "/bin/bash",
        "DEBIAN_FRONTEND": "noninteractive",
        "VIRTUAL_ENV": str(programs.parent),
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "MINICOLAB_MEMORY_BYTES": str(shape["memory_bytes"]),
        "MINICOLAB_ROOT": str(places.content),
        "MINICOLAB_RUNTIME_DIR": str(places.run / "kernels"),
        "MINICOLAB_READY_FILE": str(places.run / "ready.json"),
        "MINICOLAB_TICKET_KEY_FILE": str(places.run / "ticket.key"),
        **given,
    }


def limit(processes: int) -> None:
    """Set what holds for everything but the supervisor."""
    if linux.in_own_user_namespace():
        # Counted within that namespace. In the machine's own, the processes of every container of this user count together, and one
        # could keep all others from starting any: there only the engine or the node can hold the limit.
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJUSTMENT)


def _become_server(places: Places, env: Mapping[str, str], log: int, processes: int) -> NoReturn:
    try:
        os.setsid()
        os.chdir(places.content)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        limit(processes)
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        os.execve(places.python, [str(places.python), "-m", "minicolab_runtime.server"], env)
    except OSError as error:
        sys.stderr.write(f"Python can not be started: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(NOT_STARTED)
