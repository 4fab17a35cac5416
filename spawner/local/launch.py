"""Make a runtime's folders and start its sandbox. Imports little: a person is waiting, and forking wants a single thread."""

from __future__ import annotations

import base64
import json
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spawner.local import keeper
from spawner.local.sandbox import Layout, Rung, environment, no_apt
from spawner.model import Shape
from spawner.supervisor import linux
from spawner.supervisor.limits import Groups, make_groups
from spawner.supervisor.wire import SPEC

SAMPLE_DATA = Path(__file__).with_name("sample_data")


@dataclass(frozen=True)
class Launched:
    """A sandbox in which the runtime's server is starting. `ready_watch` is readable when a file appears in `layout.run`, or often."""

    folder: Path
    spec: dict[str, Any]
    shape: Shape
    key: bytes
    layout: Layout
    groups: Groups
    keeper: int
    ready_watch: int


def launch(folder: Path) -> Launched:
    """Start the runtime described in `folder`. Raise OSError; then nothing of it runs."""
    spec: dict[str, Any] = json.loads((folder / SPEC).read_text("utf-8"))
    (folder / SPEC).unlink()  # it holds the key to this runtime
    key = base64.b64decode(spec["ticket_key"])
    shape = Shape(**spec["shape"])
    layout = Layout(
        folder, Path(spec["env"]), Path(spec["code"]), Path(spec["python_base"]), Rung(spec["rung"])
    )
    _fill(layout, spec["id"], key)
    ready_watch = linux.watch_or_look(str(layout.run))
    groups = make_groups(spec["id"], shape)
    try:
        pid = _start(layout, spec, shape, groups, ready_watch)
    except OSError:
        groups.remove()
        raise
    return Launched(folder, spec, shape, key, layout, groups, pid, ready_watch)


def _fill(layout: Layout, runtime_id: str, key: bytes) -> None:
    for path in layout.folders():
        path.mkdir(parents=True, exist_ok=True)
    layout.tmp.chmod(0o1777)
    secret = layout.run / "ticket.key"
    secret.touch(mode=0o600)
    secret.write_bytes(key)
    shutil.copytree(SAMPLE_DATA, layout.content / "sample_data", copy_function=shutil.copyfile)
    (layout.own / "hostname").write_text(f"{runtime_id}\n")
    (layout.own / "hosts").write_text(f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{runtime_id}\n")
    if layout.rung is Rung.NAMESPACES:
        (layout.var / "tmp").chmod(0o1777)
        (layout.var / "colab").mkdir()
        (layout.var / "colab" / "hostname").write_text(f"{runtime_id}\n")
        if os.geteuid() != 0:
            programs = layout.upper("env") / "bin"
            programs.mkdir(parents=True, exist_ok=True)
            _put_no_apt(programs, "the service does not run as root")
    else:
        if layout.rung is Rung.PLAIN:
            layout.kernels.mkdir(mode=0o700)
            layout.short_kernels.symlink_to(layout.kernels)
        stack(layout)
        _put_no_apt(layout.venv / "bin", "its system is shared with the machine and read-only")


def _put_no_apt(programs: Path, why: str) -> None:
    for name in ("apt", "apt-get"):
        (programs / name).write_text(no_apt(why))
        (programs / name).chmod(0o755)


def stack(layout: Layout) -> None:
    """Make an environment of the runtime's own, stacked on the shared one: what `venv --without-pip` makes, without its wait."""
    layers = [next((layer / "lib").glob("python*")) / "site-packages" for layer in (layout.code, layout.env)]
    version = layers[-1].parent.name
    programs, site = layout.venv / "bin", layout.venv / "lib" / version / "site-packages"
    for folder in (programs, site, layout.venv / "include"):
        folder.mkdir(parents=True)
    shutil.copyfile(layout.env / "pyvenv.cfg", layout.venv / "pyvenv.cfg")
    interpreter = os.path.realpath(layout.env / "bin" / "python")
    for name in ("python", "python3", version):
        (programs / name).symlink_to(interpreter)
    lines = [f"import site; site.addsitedir({str(layer)!r})\n" for layer in layers]
    (site / "_base.pth").write_text("".join(lines))
    for name in ("pip", "pip3"):
        script = programs / name
        script.write_text(
            f"#!{layout.python}\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)


def _start(layout: Layout, spec: dict[str, Any], shape: Shape, groups: Groups, ready_watch: int) -> int:
    given = {**spec["environment"], "MINICOLAB_MEMORY_BYTES": str(shape.memory_bytes)}
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        given.setdefault(name, str(max(1, round(shape.cpus))))
    rlimits = {resource.RLIMIT_CORE: 0}
    if "memory" not in groups.limited:
        # Of each process; the sum of them is watched. Not RLIMIT_AS: CUDA and TensorFlow reserve far more than they use.
        rlimits[resource.RLIMIT_DATA] = shape.memory_bytes
    if "pids" not in groups.limited and layout.rung is not Rung.PLAIN:
        rlimits[resource.RLIMIT_NPROC] = shape.processes  # counted within the sandbox's own user namespace
    log = os.open(layout.folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return keeper.spawn(
            keeper.Job(
                layout,
                [str(layout.python), "-m", "minicolab_runtime.server"],
                spec["id"],
                environment(layout, given),
                log,
                groups=groups.folders,
                shown=groups.shown(),
                devices=tuple(spec["devices"]),
                rlimits=rlimits,
                not_kept=(
                    ready_watch,
                ),  # a user has few of these; one for each live runtime would be too many
            )
        )
    finally:
        os.close(log)
