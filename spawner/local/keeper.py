"""The keeper: enters the namespaces of one runtime, mounts its overlays, runs bubblewrap, and ends with it.

The supervisor starts it and it dies with the supervisor; bubblewrap dies with it, and with bubblewrap's init every process of
the runtime. Its mount namespace is the only place where the runtime's mounts exist, so they are gone when it ends. On the plain
rung it has no namespaces to end with; there it adopts every orphan and kills all its descendants before it ends.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spawner.local.sandbox import (
    CONFIGURATION,
    HIDDEN,
    HIDDEN_PROC,
    OVERLAYS,
    Layout,
    Machine,
    Rung,
    bubblewrap,
)
from spawner.supervisor import linux, processes

TOP_FOLDERS = ("/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")
# When the whole machine is short of memory, a runtime goes before the services do.
OOM_SCORE_ADJUSTMENT = "300"
NAMED = ("/etc/hosts", "/etc/hostname")


@dataclass(frozen=True)
class Job:
    """What to run inside, and with what. `rlimits`: resource limit → value; `shown`: (outside, inside), read-only.

    `not_kept`: open descriptors that are the supervisor's alone.
    """

    layout: Layout
    command: Sequence[str]
    hostname: str
    env: Mapping[str, str]
    out: int
    groups: tuple[Path, ...] = ()
    shown: tuple[tuple[Path, str], ...] = ()
    devices: tuple[str, ...] = ()
    rlimits: Mapping[int, int] = field(default_factory=dict)
    not_kept: tuple[int, ...] = ()


def look_at_machine() -> Machine:
    """Return what the sandbox must know of this machine."""
    links = {
        name: (os.readlink(name) if Path(name).is_symlink() else "")
        for name in TOP_FOLDERS
        if Path(name).exists()
    }
    resolv_conf = os.path.realpath("/etc/resolv.conf")
    outside = not resolv_conf.startswith("/etc/") and Path(resolv_conf).exists()
    hidden = {name: Path(name).is_dir() for name in HIDDEN if Path(name).exists()}
    for folder in CONFIGURATION:
        hidden.update(unreadable(folder))
    proc = {
        f"/proc/{name}": Path("/proc", name).is_dir() for name in HIDDEN_PROC if Path("/proc", name).exists()
    }
    named = tuple(name for name in NAMED if Path(name).is_file() and not Path(name).is_symlink())
    return Machine(links, resolv_conf if outside else None, hidden, proc, named)


def unreadable(folder: str) -> dict[str, bool]:
    """Return what lies below `folder` that others than its owner can not read: path → whether it is a folder."""
    found: dict[str, bool] = {}
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return found  # what even we can not list, a runtime can not either
    for entry in entries:
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            if mode & 0o005 == 0o005:
                found.update(unreadable(entry.path))
            else:
                found[entry.path] = True
        elif not stat.S_ISLNK(mode) and not mode & 0o004:
            found[entry.path] = False
    return found


def spawn(job: Job) -> int:
    """Fork the keeper, which runs the job inside the sandbox; return its process id. Must be called from one thread only.

    Raise OSError when the namespaces can not be made; then nothing is left.
    """
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    error_read, error_write = os.pipe()
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        for fd in (ready_read, go_write, error_read):
            os.close(fd)
        try:
            _child(job, supervisor, ready_write, go_read, error_write)
        except BaseException as error:  # the only way out of a forked child is _exit; the parent is told why
            with contextlib.suppress(OSError):
                os.write(error_write, f"{error}".encode()[:4000])
            os._exit(1)
        os._exit(0)
    for fd in (ready_write, go_read, error_write):
        os.close(fd)
    try:
        if job.layout.rung is not Rung.PLAIN and os.read(ready_read, 1):
            _map_ids(pid)
        os.write(go_write, b"g")
    except OSError:
        os.kill(pid, signal.SIGKILL)
    finally:
        os.close(go_write)
        os.close(ready_read)
    problem = os.read(error_read, 4096)  # empty once the sandbox's program runs: the pipe is closed then
    os.close(error_read)
    if problem:
        os.waitpid(pid, 0)
        raise OSError(problem.decode("utf-8", "replace"))
    return pid


def _map_ids(pid: int) -> None:
    """Give the child's user namespace its ids: the same 65,536 when we are root, so that apt can work; else just our own."""
    if os.geteuid() == 0:
        uid_map, gid_map = "0 0 65536", "0 0 65536"
    else:
        uid_map, gid_map = f"0 {os.geteuid()} 1", f"0 {os.getegid()} 1"
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/gid_map").write_text(gid_map)
    Path(f"/proc/{pid}/uid_map").write_text(uid_map)


def _child(job: Job, parent: int, ready: int, go: int, error: int) -> None:
    root = os.geteuid() == 0
    for fd in job.not_kept:
        os.close(fd)
    for group in job.groups:
        (group / "cgroup.procs").write_text("0")
    with contextlib.suppress(OSError):  # a machine without this file has no such scores
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJUSTMENT)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    linux.forbid_abstract_sockets()
    if job.layout.rung is Rung.PLAIN:
        _wait_for(go)
        os.setsid()
        linux.adopt_orphans()
        _limit(job.rlimits)
        _run(job, list(job.command), parent, null, error, cwd=job.layout.content)
        return
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    os.write(ready, b"r")
    _wait_for(go)
    if root:
        os.setgroups([])
    os.setgid(0)
    os.setuid(0)
    # Only now: a change of credentials clears it.
    linux.set_parent_death_signal(signal.SIGKILL)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    machine = look_at_machine()
    if job.layout.rung is Rung.NAMESPACES:
        _overlays(job.layout)
        if root:
            _take_away(job.layout, machine)
    # A drive that is bound below it later must appear inside bubblewrap's own mount namespace, made from this one.
    linux.mount(str(job.layout.content), str(job.layout.content), None, linux.MS_BIND)
    linux.mount("none", str(job.layout.content), None, linux.MS_SHARED)
    mask = not (root and job.layout.rung is Rung.NAMESPACES)
    arguments = bubblewrap(job.layout, job.hostname, machine, devices=job.devices, shown=job.shown, mask=mask)
    # No namespaces within: they would give code inside powers over the kernel that it does not need. A container may forbid
    # to say so; then its own rules hold.
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    _limit(job.rlimits)
    # By descriptor, so that the process list inside does not tell where things lie outside.
    listing = os.memfd_create("bubblewrap")
    os.write(listing, b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
    os.lseek(listing, 0, os.SEEK_SET)
    program = shutil.which("bwrap") or "/usr/bin/bwrap"
    command = [program, "--args", str(listing), *job.command]
    # This process stays: its namespaces are where later mounts are made.
    _run(job, command, parent, null, error, keep=(listing,))


def _wait_for(go: int) -> None:
    """Wait until the supervisor says go. Raise BrokenPipeError when it ended before it could."""
    if not os.read(go, 1):
        raise BrokenPipeError("the supervisor ended")


def _run(
    job: Job,
    command: list[str],
    parent: int,
    null: int,
    error: int,
    *,
    cwd: Path | None = None,
    keep: tuple[int, ...] = (),
) -> None:
    """Run the command until it ends, or until we are told to end. Does not return."""

    def told(*_: object) -> None:
        processes.kill_below(os.getpid())
        os._exit(0)

    signal.signal(signal.SIGTERM, told)
    if job.layout.rung is Rung.PLAIN:
        linux.set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != parent:
        told()
    inner = subprocess.Popen(
        command, env=dict(job.env), stdin=null, stdout=job.out, stderr=job.out, cwd=cwd, pass_fds=keep
    )
    os.close(error)
    status = inner.wait()
    processes.kill_below(os.getpid())
    os._exit(status & 0xFF)


def _limit(rlimits: Mapping[int, int]) -> None:
    for which, value in rlimits.items():
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def _overlays(layout: Layout) -> None:
    for name in (*OVERLAYS, "env"):
        lower = f"{layout.code}:{layout.env}" if name == "env" else f"/{name}"
        if name != "env" and not Path(lower).is_dir():
            continue
        data = f"lowerdir={lower},upperdir={layout.upper(name)},workdir={layout.work(name)},userxattr"
        linux.mount("overlay", str(layout.merged(name)), "overlay", 0, data)


def _take_away(layout: Layout, machine: Machine) -> None:
    """Remove what is hidden from the overlays; unlike a mask this leaves a system in which packages can be installed."""
    for path, is_folder in machine.hidden.items():
        top, _, below = path.lstrip("/").partition("/")
        place = layout.merged(top) / below
        if is_folder:
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    shadow = layout.merged("etc") / "shadow"
    shadow.touch(mode=0o600)
    shadow.write_text("root:*:19000:0:99999:7:::\n")


def _probe(rung: Rung, scratch: Path) -> int:
    """Run `true` in a sandbox of this rung; used by spawner.local.probe."""
    env, code = scratch / "lower", scratch / "layer"
    for layer in (env, code):
        layer.mkdir()
    layout = Layout(scratch / "r", env, code, Path(sys.base_prefix), rung)
    for folder in [*layout.folders(), layout.venv]:
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("hosts", "hostname"):
        (layout.own / name).touch()
    log = scratch / "log"
    with log.open("wb") as out:
        command = ["/bin/sh", "-c", "touch /content/x /tmp/x"]
        pid = spawn(Job(layout, command, "probe", {"PATH": "/usr/bin:/bin"}, out.fileno()))
        _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.stderr.write(log.read_text("utf-8", "replace") or f"the sandbox ended with status {status}")
    for path in scratch.rglob("work/*/work"):
        with contextlib.suppress(OSError):
            path.chmod(0o700)  # overlayfs leaves it with mode 000
    return int(status != 0)


if __name__ == "__main__":
    raise SystemExit(_probe(Rung(sys.argv[2]), Path(sys.argv[3])))
