"""Build the sandbox's command lines. Pure: strings in, strings out.

rung         what
namespaces   user and mount namespace, overlays of the system and of the runtime environment, bubblewrap
bubblewrap   user and mount namespace, read-only system, an environment stacked on the shared one, bubblewrap
plain        processes only: nothing is kept apart
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spawner.model import KEPT_CAPABILITIES


class Rung(StrEnum):
    """A rung of the ladder, best first."""

    NAMESPACES = "namespaces"
    BUBBLEWRAP = "bubblewrap"
    PLAIN = "plain"


# Top folders of the system that a runtime may write to, each into its own overlay. Of /var only what apt needs: the rest of the
# machine's /var is nobody's business in a runtime.
OVERLAYS = ("usr", "etc", "var/lib/dpkg", "var/lib/apt")
# Folders of the machine's configuration. What others than its owner can not read there is hidden, because the sandbox's root
# could; and these besides, which everybody can read but which are nobody's business in a runtime.
CONFIGURATION = ("/etc", "/usr/local/etc")
HIDDEN = ("/etc/ssh", "/etc/machine-id", "/etc/kubernetes", "/etc/docker", "/etc/letsencrypt")
# Files and folders of /proc that tell of the whole machine what only its root may know. All of /proc is read-only besides: the
# sandbox's root has the machine's root's number, and most of /proc/sys asks for no more than that.
HIDDEN_PROC = (
    "acpi",
    "asound",
    "bus",
    "fs",
    "iomem",
    "ioports",
    "irq",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "mtrr",
    "pagetypeinfo",
    "sched_debug",
    "scsi",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
)


# Where the stacked environment lies inside bubblewrap: a path that tells nothing of the machine.
VENV_INSIDE = Path("/opt/runtime")


@dataclass(frozen=True)
class Layout:
    """The folders of one runtime: `folder` is DIR/runtimes/<id>, `env` the shared environment, `code` the layer over it."""

    folder: Path
    env: Path
    code: Path
    python_base: Path
    rung: Rung

    @property
    def content(self) -> Path:
        return self.folder / "content"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def var(self) -> Path:
        return self.folder / "var"

    @property
    def kernels(self) -> Path:
        """Where the server keeps its kernels' sockets."""
        return self.run / "kernels"

    @property
    def short_kernels(self) -> Path:
        """A short way to the same, for the plain rung: an address of a unix socket has room for 107 bytes only."""
        return Path("/tmp", f"minicolab-{self.folder.name}")

    @property
    def own(self) -> Path:
        """The few files that are made for this runtime: `hosts`, `hostname`."""
        return self.folder / "own"

    @property
    def venv(self) -> Path:
        """The stacked environment of the lower rungs."""
        return self.folder / "venv"

    def upper(self, name: str) -> Path:
        return self.folder / "upper" / name.replace("/", "-")

    def work(self, name: str) -> Path:
        return self.folder / "work" / name.replace("/", "-")

    def merged(self, name: str) -> Path:
        return self.folder / "merged" / name.replace("/", "-")

    @property
    def python(self) -> Path:
        """The interpreter, by its path inside."""
        places = {Rung.NAMESPACES: self.env, Rung.BUBBLEWRAP: VENV_INSIDE, Rung.PLAIN: self.venv}
        return places[self.rung] / "bin" / "python"

    @property
    def root_inside(self) -> str:
        return str(self.content) if self.rung is Rung.PLAIN else "/content"

    def folders(self) -> list[Path]:
        """Return every folder that must exist before the start."""
        plain = [self.content, self.home, self.run, self.tmp, self.own]
        if self.rung is not Rung.NAMESPACES:
            return plain
        overlays = [f(name) for name in (*OVERLAYS, "env") for f in (self.upper, self.work, self.merged)]
        return [
            *plain,
            *overlays,
            self.var / "tmp",
            self.var / "log",
            self.var / "cache/apt/archives/partial",
            self.var / "lib",
        ]


@dataclass(frozen=True)
class Machine:
    """What the sandbox must know of the machine.

    `links` are top folders (name → target, "" when it is no link); `resolv_conf` where /etc/resolv.conf really lies when outside
    /etc; `hidden` what of the configuration must not be seen (path → whether it is a folder), `proc` the same of /proc;
    `named` the files of /etc that tell the machine's name.
    """

    links: Mapping[str, str]
    resolv_conf: str | None
    hidden: Mapping[str, bool]
    proc: Mapping[str, bool]
    named: tuple[str, ...]


def bubblewrap(
    layout: Layout,
    hostname: str,
    machine: Machine,
    *,
    devices: tuple[str, ...],
    shown: tuple[tuple[Path, str], ...],
    mask: bool,
) -> list[str]:
    """Return bubblewrap's arguments up to, not including, the program.

    `devices` are device files to grant, `shown` (outside, inside) what is visible read-only besides; `mask`: cover what of the
    configuration is hidden, because no overlay has taken it away.
    """
    a: list[str] = []
    if layout.rung is Rung.NAMESPACES:
        for name in ("usr", "etc"):
            a += ["--bind", str(layout.merged(name)), f"/{name}"]
        a += ["--bind", str(layout.var), "/var"]
        for name in ("var/lib/dpkg", "var/lib/apt"):
            a += ["--bind", str(layout.merged(name)), f"/{name}"]
    else:
        a += [
            "--ro-bind",
            "/usr",
            "/usr",
            "--ro-bind",
            "/etc",
            "/etc",
            "--perms",
            "1777",
            "--dir",
            "/var/tmp",
        ]
        a += ["--ro-bind", str(layout.own / "hostname"), "/var/colab/hostname"]
    if mask:
        for path, is_folder in machine.hidden.items():
            a += ["--tmpfs", path] if is_folder else ["--ro-bind", "/dev/null", path]
    for path in machine.named:
        a += ["--bind", str(layout.own / path.rpartition("/")[2]), path]
    for name, target in machine.links.items():
        a += ["--symlink", target, name] if target else ["--ro-bind", name, name]
    a += ["--proc", "/proc"]
    for path, is_folder in machine.proc.items():
        a += ["--tmpfs", path, "--remount-ro", path] if is_folder else ["--ro-bind", "/dev/null", path]
    a += ["--remount-ro", "/proc"]
    a += ["--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm", "--tmpfs", "/run"]
    for device in devices:
        a += ["--dev-bind-try", device, device]
    for outside, inside in shown:
        a += ["--ro-bind-try", str(outside), inside]
    if machine.resolv_conf is not None:
        a += ["--ro-bind-try", machine.resolv_conf, machine.resolv_conf]
    for folder, inside in ((layout.tmp, "/tmp"), (layout.home, "/root"), (layout.content, "/content")):
        a += ["--bind", str(folder), inside]
    if not _is_below(layout.python_base, Path("/usr")):
        # After /root: an interpreter may live below the home of whoever installed it.
        a += ["--ro-bind", str(layout.python_base), str(layout.python_base)]
    a += ["--bind", str(layout.run), "/run/minicolab"]
    if layout.rung is Rung.NAMESPACES:
        a += ["--bind", str(layout.merged("env")), str(layout.env)]
    else:
        a += ["--ro-bind", str(layout.env), str(layout.env), "--ro-bind", str(layout.code), str(layout.code)]
        a += ["--bind", str(layout.venv), str(VENV_INSIDE)]
    a += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", hostname]
    a += ["--die-with-parent", "--new-session", "--chdir", "/content", "--cap-drop", "ALL"]
    if layout.rung is Rung.NAMESPACES:
        for capability in KEPT_CAPABILITIES:
            a += ["--cap-add", f"CAP_{capability}"]
    return a


def environment(layout: Layout, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the runtime's server."""
    inside = layout.rung is not Rung.PLAIN
    programs = layout.python.parent
    out = {
        "PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root" if inside else str(layout.home),
        "TMPDIR": "/tmp" if inside else str(layout.tmp),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm-256color",
        "SHELL": "/bin/bash",
        "DEBIAN_FRONTEND": "noninteractive",
        "USER": "root" if inside else given.get("MINICOLAB_USER", "user"),
        "VIRTUAL_ENV": str(programs.parent),
        "MINICOLAB_ROOT": layout.root_inside,
        "MINICOLAB_RUNTIME_DIR": "/run/minicolab/kernels" if inside else str(layout.short_kernels),
        "MINICOLAB_READY_FILE": "/run/minicolab/ready.json" if inside else str(layout.run / "ready.json"),
        "MINICOLAB_TICKET_KEY_FILE": "/run/minicolab/ticket.key"
        if inside
        else str(layout.run / "ticket.key"),
    }
    return {**out, **given}


def _is_below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def no_apt(why: str) -> str:
    """Return a program to stand in for apt-get where packages of the system can not be installed."""
    return (
        "#!/bin/sh\n"
        f"echo \"apt can not install in this runtime: {why}. Python packages can be installed with '!pip install'; \"\\\n"
        '"for others, ask who runs this machine." >&2\n'
        "exit 100\n"
    )
