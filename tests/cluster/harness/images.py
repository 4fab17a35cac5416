"""Container images without a registry: made from a folder, and imported into the node's containerd."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.harness import programs
from cluster.harness.errors import ClusterError
from cluster.harness.machine import command

PAUSE = "docker.io/local/pause:1"
DNS = "docker.io/local/coredns:1"
BUSYBOX = "docker.io/local/busybox:1"

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BLOCK = 1 << 20


def archive(folder: Path, name: str, target: Path, *, entrypoint: Sequence[str] = (), user: str = "") -> Path:
    """Write an image of one layer, a folder's content, as `docker save` does; return the file."""
    layer = target.with_suffix(".layer")
    try:
        with tarfile.open(layer, "w") as tar:
            for entry in sorted(folder.iterdir()):
                tar.add(entry, arcname=entry.name, filter=_anonymous)
        digest = _sha256(layer)
        configuration = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Env": [PATH], "Entrypoint": list(entrypoint) or None, "User": user},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        content = json.dumps(configuration).encode()
        config_name = hashlib.sha256(content).hexdigest() + ".json"
        manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
        with tarfile.open(target, "w") as tar:
            for file, data in ((config_name, content), ("manifest.json", json.dumps(manifest).encode())):
                entry_info = tarfile.TarInfo(file)
                entry_info.size = len(data)
                tar.addfile(entry_info, io.BytesIO(data))
            tar.add(layer, arcname=f"{digest}.tar")
    finally:
        layer.unlink(missing_ok=True)
    return target


def import_own(node: Sequence[str], socket: Path, folder: Path) -> None:
    """Give containerd the images that every cluster has, as far as it lacks them; their archives are made in `folder`."""
    listed = command(*node, "ctr", "-a", str(socket), "-n", "k8s.io", "images", "ls", "-q").stdout.split()
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[], Path]] = {
        PAUSE: lambda: _of_program(folder / "pause.tar", PAUSE, "pause"),
        DNS: lambda: _of_program(folder / "coredns.tar", DNS, "coredns"),
        BUSYBOX: lambda: busybox(folder / "busybox.tar"),
    }
    for name, make in makers.items():
        if name not in listed:
            file = make()
            import_archive(node, socket, file)
            file.unlink()


def import_archive(node: Sequence[str], socket: Path, file: Path) -> None:
    """Give containerd an image. `node` is what a command begins with that runs in the node."""
    if not file.exists():
        raise ClusterError(f"{file} does not exist")
    command(*node, "ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", str(file.resolve()))


def _of_program(target: Path, name: str, program: str) -> Path:
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(programs.get(program), Path(scratch, program))
        return archive(Path(scratch), name, target, entrypoint=(f"/{program}",))


def busybox(target: Path) -> Path:
    """A shell and the usual small programs, from Debian's busybox-static; user `app` is 1000."""
    source = Path(shutil.which("busybox") or "/bin/busybox").resolve()
    if b"ld-linux" in source.read_bytes()[:4096]:
        raise ClusterError(f"{source} needs libraries; install Debian's busybox-static")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in ("bin", "tmp", "etc", "proc", "sys", "dev"):
            (root / name).mkdir()
        (root / "tmp").chmod(0o1777)
        shutil.copy(source, root / "bin" / "busybox")
        for applet in command(str(source), "--list").stdout.split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc" / "passwd").write_text(
            "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n", "utf-8"
        )
        return archive(root, BUSYBOX, target)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
