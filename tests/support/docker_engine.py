"""A Docker engine of the tests' own: Debian's dockerd in a network and a mount namespace that nobody else is in.

The machine's firewall, mounts and any engine it has stay as they are. A veth pair and one route lead from the machine to the containers,
slirp4netns leads from the containers out. Layers stay in the cache folder between runs; containers do not.

    python -m support.docker_engine up|down|base        for a person (from the folder `tests`)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from hub.settings import cache_folder
from hub.setup import images
from support.patience import PATIENCE, until

VETH_PREFIX = 30
EGRESS = "tap0"
PROGRAMS = Path(__file__).parent / "engine_programs"
NEEDED = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "slirp4netns": "slirp4netns",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
}
QUOTA_DISK_BYTES = 8 << 30
BASE_IMAGE = "docker.io/local/debian:bookworm"
# What this machine trusts besides Debian's own authorities, so that pip in a build trusts it too.
LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")
BASE_DOCKERFILE = """\
FROM minicolab-base-plain
COPY authorities/ /usr/local/share/ca-certificates/
RUN update-ca-certificates
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
"""


@dataclass(frozen=True)
class Site:
    """A place for an engine: its name on this machine and its addresses, 10.`number` and the next.

    `remapped`: root of a container is a user without rights of this machine, and layers lie on a file system with quotas (btrfs, in a
    file). `gpus`: the engine finds what NVIDIA's toolkit installs, a pretended one.
    """

    name: str
    number: int
    remapped: bool = False
    gpus: bool = False

    @property
    def machine_side(self) -> str:
        return f"10.{self.number}.0.1"

    @property
    def engine_side(self) -> str:
        return f"10.{self.number}.0.2"

    @property
    def bridge(self) -> str:
        return f"10.{self.number + 1}.0.1/24"

    @property
    def pool(self) -> str:
        return f"10.{self.number + 1}.0.0/16"

    @property
    def folder(self) -> Path:
        folder = cache_folder() / ("docker-engine" if self is MAIN else f"docker-engine-{self.name}")
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        return folder


MAIN = Site("mc-docker", 246, gpus=True)
REMAPPED = Site("mc-remap", 248, remapped=True)
MACHINE_SIDE = MAIN.machine_side


@dataclass(frozen=True)
class Engine:
    """A running engine. `machine_address` is where containers reach this machine."""

    socket: str
    machine_address: str
    site: Site
    holder: int

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def docker(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the `docker` command against this engine."""
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, "DOCKER_HOST": self.url, "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def restart(self) -> None:
        """End the daemon and start it again; containers live on."""
        _end_daemon(self.site.folder)
        _start_daemon(self.site, self.holder)

    @property
    def daemon(self) -> int:
        """The engine's process."""
        pid = _pid(self.site.folder / "dockerd.pid")
        assert pid is not None, "the engine does not run"
        return pid


def missing() -> str | None:
    """Return why this machine can not run an engine, None when it can."""
    if os.geteuid() != 0:
        return "a Docker engine of the tests' own needs root"
    packages = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if packages:
        return f"a Docker engine of the tests' own needs: apt-get install {' '.join(packages)}"
    if not Path("/dev/net/tun").exists():
        return "a Docker engine of the tests' own needs /dev/net/tun"
    return None


_ours: dict[Path, Engine] = {}  # those this process runs, by the folder of their site


@contextmanager
def engine(site: Site | None = None) -> Iterator[Engine]:
    """Run the engine while inside; one at a time on a machine, other processes wait."""
    site = site or MAIN
    if site.folder in _ours:
        yield _ours[site.folder]
        return
    with (site.folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        down(site)
        try:
            _ours[site.folder] = up(site)
            yield _ours[site.folder]
        finally:
            _ours.pop(site.folder, None)
            down(site)


def up(site: Site | None = None) -> Engine:
    """Start the engine, or return the one that runs."""
    site = site or MAIN
    holder = _pid(site.folder / "holder.pid")
    if holder is None:
        holder = _start_namespaces(site)
        _start_daemon(site, holder)
    return _engine(site, holder)


def down(site: Site | None = None) -> None:
    """Leave nothing of the engine but its cached layers."""
    site = site or MAIN
    folder = site.folder
    if _pid(folder / "dockerd.pid") is not None and (folder / "docker.sock").exists():
        here = _engine(site, 0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            names = here.docker("ps", "-aq", check=False, timeout=PATIENCE).stdout.split()
            if names:
                here.docker("rm", "-fv", *names, check=False, timeout=PATIENCE)
            here.docker("network", "prune", "-f", check=False, timeout=PATIENCE)
    _end_daemon(folder)
    _end_shims(folder)
    for name in ("slirp.pid", "holder.pid"):
        _end(folder / name, signal.SIGKILL)
    if Path("/run/netns", site.name).exists():
        subprocess.run(["ip", "netns", "delete", site.name], check=False)
    subprocess.run(["ip", "link", "delete", site.name], check=False, stderr=subprocess.DEVNULL)
    for group in Path("/sys/fs/cgroup").glob(f"*/{site.name}"):
        _remove_groups(group)
    # With the holder its mount namespace is gone, so nothing is mounted below.
    shutil.rmtree(folder / "exec", ignore_errors=True)


def _engine(site: Site, holder: int) -> Engine:
    return Engine(str(site.folder / "docker.sock"), site.machine_side, site, holder)


def base_image(engine: Engine) -> str:
    """Return the name of a small Debian that was made on this machine."""
    if engine.docker("image", "inspect", BASE_IMAGE, check=False).returncode == 0:
        return BASE_IMAGE
    folder = engine.site.folder
    archive = folder / "debian.tar"
    if not archive.exists():
        draft = folder / "debian.draft.tar"
        command = [
            "mmdebstrap",
            "--variant=minbase",
            "--include=ca-certificates",
            "bookworm",
            str(draft),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        draft.replace(archive)
    engine.docker("import", str(archive), "minicolab-base-plain")
    context = folder / "base"
    shutil.rmtree(context, ignore_errors=True)
    (context / "authorities").mkdir(parents=True)
    (context / "authorities" / "README").write_text("Certificates of authorities this machine trusts.\n")
    for path in LOCAL_AUTHORITIES.glob("*.crt"):
        shutil.copy(path, context / "authorities")
    (context / "Dockerfile").write_text(BASE_DOCKERFILE)
    engine.docker("build", "-t", BASE_IMAGE, str(context))
    return BASE_IMAGE


def build_image(engine: Engine, name: str) -> str:
    """Build an image of this source tree; the engine's cache makes what has not changed cost a second. Return its tag."""
    image = images.image_called(name)
    client = docker.DockerClient(base_url=engine.url, timeout=3600)
    try:
        images.build(client, image, base_image(engine), lambda line: None)
        client.images.prune({"dangling": True})
    finally:
        client.close()
    return image.tag


def load_image(engine: Engine, name: str, source: Engine) -> str:
    """Bring an image of another engine into this one, when it is not there already. Return its tag."""
    tag = images.image_called(name).tag
    identity = source.docker("image", "inspect", "--format", "{{.Id}}", tag).stdout
    if engine.docker("image", "inspect", "--format", "{{.Id}}", tag, check=False).stdout != identity:
        to, out = (f"unix://{one.socket}" for one in (engine, source))
        command = f"docker -H {out} save {tag} | docker -H {to} load"
        subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
        engine.docker("image", "prune", "-f")
    return tag


def settle_quotas(engine: Engine) -> None:
    """Count what lies on a remapped engine's file system: until btrfs has done that, it lets limits of layers be passed."""
    data = str(engine.site.folder / "data")
    inside = ["nsenter", f"--mount=/proc/{engine.holder}/ns/mnt", "btrfs", "quota"]
    for command in (("enable", data), ("rescan", "-w", data)):
        subprocess.run([*inside, *command], check=True, capture_output=True)


def _start_namespaces(site: Site) -> int:
    """Make the namespaces, their link to this machine, and their way out; return the process that holds them."""
    folder, name = site.folder, site.name
    run = ["ip", "netns", "add", name]
    subprocess.run(run, check=True)
    inside = ["nsenter", f"--net=/run/netns/{name}"]
    # Not `ip netns exec`: it mounts a /sys without control groups.
    hold = [*inside, "unshare", "--mount", "--propagation", "private", "sleep", "infinity"]
    holder = _spawn(hold, folder, "holder")
    peer = f"{name}-in"
    for command in (
        ["ip", "link", "add", name, "type", "veth", "peer", "name", peer, "netns", name],
        ["ip", "address", "add", f"{site.machine_side}/{VETH_PREFIX}", "dev", name],
        ["ip", "link", "set", name, "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
        [*inside, "ip", "address", "add", f"{site.engine_side}/{VETH_PREFIX}", "dev", peer],
        [*inside, "ip", "link", "set", peer, "up"],
        ["ip", "route", "replace", site.pool, "via", site.engine_side],
        [*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"],
    ):
        subprocess.run(command, check=True)
    slirp = ["slirp4netns", "--configure", "--mtu=1400", "--disable-host-loopback", "--netns-type=path"]
    _spawn([*slirp, f"/run/netns/{name}", EGRESS], folder, "slirp")
    until(lambda: EGRESS in subprocess.run([*inside, "ip", "route"], capture_output=True, text=True).stdout)
    until(lambda: not Path(f"/proc/{holder}/ns/mnt").samefile("/proc/self/ns/mnt"))
    if site.remapped:
        _prepare_remapping(site, holder)
    return holder


def _prepare_remapping(site: Site, holder: int) -> None:
    """Give the engine's namespace a copy of /etc, in which it makes its user, and a file system with quotas for its layers."""
    folder = site.folder
    own, disk, data = folder / "etc", folder / "data.btrfs", folder / "data"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree("/etc", own, symlinks=True, ignore_dangling_symlinks=True)
    data.mkdir(exist_ok=True)
    if not disk.exists():
        draft = folder / "draft.btrfs"
        with draft.open("wb") as file:
            file.truncate(QUOTA_DISK_BYTES)
        subprocess.run(["mkfs.btrfs", "-q", "-f", str(draft)], check=True, capture_output=True)
        draft.replace(disk)
    inside = ["nsenter", f"--mount=/proc/{holder}/ns/mnt"]
    subprocess.run([*inside, "mount", "--bind", str(own), "/etc"], check=True)
    subprocess.run([*inside, "mount", "-o", "loop,noatime", str(disk), str(data)], check=True)


def _start_daemon(site: Site, holder: int) -> None:
    folder = site.folder
    runtimes = {"nvidia": {"path": str(PROGRAMS / "nvidia-container-runtime")}}
    (folder / "daemon.json").write_text(
        json.dumps(
            {
                "runtimes": runtimes if site.gpus else {},
                "default-address-pools": [{"base": site.pool, "size": 24}],
                "live-restore": True,
                "max-download-attempts": 2,  # five would wait for a minute in all
                "insecure-registries": [f"{site.machine_side}/32"],  # that of a test
            }
        )
    )
    path = os.environ["PATH"] + (f":{PROGRAMS}" if site.gpus else "")
    special = ("--userns-remap=default", "--storage-driver=btrfs") if site.remapped else ()
    _spawn(
        [
            *("nsenter", f"--net=/run/netns/{site.name}", f"--mount=/proc/{holder}/ns/mnt"),
            *("env", f"PATH={path}", "dockerd", "--config-file", str(folder / "daemon.json"), *special),
            *("--host", f"unix://{folder}/docker.sock", "--pidfile", str(folder / "dockerd.own.pid")),
            *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
            *("--bip", site.bridge, "--cgroup-parent", f"/{site.name}", "--userland-proxy=false"),
            *("--mtu", "1400", "--oom-score-adjust", "0"),
        ],
        folder,
        "dockerd",
    )
    here = _engine(site, holder)
    until(lambda: here.docker("version", check=False).returncode == 0, "dockerd does not answer")
    # The way in from this machine, which is another host to the engine.
    rule = ["DOCKER-USER", "-i", f"{site.name}-in", "-j", "ACCEPT"]
    inside = ["nsenter", f"--net=/run/netns/{site.name}", "iptables", "-w"]
    if subprocess.run([*inside, "-C", *rule], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        subprocess.run([*inside, "-I", *rule], check=True)


def _spawn(command: list[str], folder: Path, name: str) -> int:
    """Start a process that outlives us, its output in `<name>.log`, its id and start time in `<name>.pid`."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    (folder / f"{name}.pid").write_text(f"{process.pid} {_started(process.pid)}")
    return process.pid


def _started(pid: int) -> str:
    """Return when a process started: with its id this names it for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _pid(path: Path) -> int | None:
    """Return the process whose id is in `path`, None when it has ended."""
    try:
        pid, started = path.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started else None


def _end(path: Path, number: signal.Signals) -> None:
    pid = _pid(path)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        until(lambda: _gone(pid), f"{path.stem} does not end")
    path.unlink(missing_ok=True)


def _gone(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not Path(f"/proc/{pid}").exists()


def _end_daemon(folder: Path) -> None:
    _end(folder / "dockerd.pid", signal.SIGTERM)
    # Its own containerd ends with it, unless it was killed.
    _end_those_that_name(f"{folder}/exec/containerd/containerd.toml")
    (folder / "dockerd.own.pid").unlink(missing_ok=True)


def _end_shims(folder: Path) -> None:
    _end_those_that_name(f"{folder}/exec/containerd/containerd.sock")


def _end_those_that_name(path: str) -> None:
    """End the processes with this path of ours in their command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                path.encode() in (entry / "cmdline").read_bytes().split(b"\0")
                and int(entry.name) != os.getpid()
            ):
                os.kill(int(entry.name), signal.SIGKILL)
                until(lambda pid=int(entry.name): _gone(pid))  # type: ignore[misc]


def _remove_groups(top: Path) -> None:
    for group in sorted([p for p in top.rglob("*") if p.is_dir()] + [top], reverse=True):
        for _ in range(50):
            with contextlib.suppress(OSError):
                for pid in (group / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)  # the kernel takes a moment to let go of killed processes


def main() -> None:
    if why_not := missing():
        sys.exit(why_not)
    match sys.argv[1:]:
        case ["up"]:
            print(up().url)
        case ["base"]:
            print(base_image(up()))
        case ["down"]:
            down()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
