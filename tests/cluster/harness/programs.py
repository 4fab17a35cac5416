"""The cluster's programs: found in the cache folder, or built from source there, once for each set of pins.

No registry hands out ready binaries of Kubernetes, but the Go module proxy has all sources. The sets are built one by one, so who
needs only helm does not wait for the rest. Built with the same Go, the same pins give the same programs.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.harness.errors import ClusterError, Unavailable
from hub.settings import cache_folder
from hub.setup.steps import SetupError, locked, publish, run, step

TOOLS = Path(__file__).parents[1] / "tools"

LEAN = ("-trimpath", "-gcflags=all=-dwarf=false")
STRIPPED = "-s -w"
WITHOUT_C = {"CGO_ENABLED": "0", "GOWORK": "off"}

HELM_PACKAGE = "helm.sh/helm/v3/cmd/helm@v3.22.0"
KWOK_MODULE, KWOK_VERSION = "sigs.k8s.io/kwok", "v0.8.0"

KWOK_STAGES = "kwok-stages.yaml"
# Of kwok's own module: nodes become and stay Ready, pods run at once.
STAGE_FOLDERS = ("node/fast", "node/heartbeat-with-lease", "pod/fast")


@dataclass(frozen=True)
class Set:
    """Programs that are built together. `build` puts them into a folder."""

    name: str
    programs: tuple[str, ...]
    pins: str
    estimate_seconds: float
    build: Callable[[Path, Path], None]

    @property
    def folder(self) -> Path:
        return (
            cache_folder() / "cluster" / f"{self.name}-{hashlib.sha256(self.pins.encode()).hexdigest()[:16]}"
        )


def find(program: str) -> Path | None:
    """Return where a program is, if it has been built."""
    path = set_of(program).folder / program
    return path if path.exists() else None


def get(program: str) -> Path:
    """Return where a program is; build its set first when it has not been. Raise ClusterError."""
    found = find(program)
    if found is not None:
        return found
    wanted = set_of(program)
    if shutil.which("go") is None:
        raise Unavailable(f"{program} must be built, and Go is not installed")
    parent = wanted.folder.parent
    try:
        with locked(parent / f".lock-{wanted.name}"):
            if not wanted.folder.exists():
                with step(f"Building {wanted.name} for the test cluster", wanted.estimate_seconds):
                    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=parent))
                    try:
                        wanted.build(draft, cache_folder() / "logs" / f"cluster-{wanted.name}.log")
                        draft.chmod(0o755)
                        publish(draft, wanted.folder)
                    finally:
                        shutil.rmtree(draft, ignore_errors=True)
    except SetupError as error:
        raise ClusterError(str(error)) from None
    return wanted.folder / program


def get_all() -> None:
    """Build whatever has not been built. Raise ClusterError."""
    for each in SETS:
        get(each.programs[0])


def missing() -> list[str]:
    """Return the sets that have not been built."""
    return [each.name for each in SETS if not each.folder.exists()]


def set_of(program: str) -> Set:
    """Return the set a program belongs to."""
    return next(each for each in SETS if program in each.programs)


def kubernetes_version() -> str:
    """Return the version that is pinned, with its `v`."""
    pinned = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (TOOLS / "go.mod").read_text("utf-8"), re.MULTILINE)
    assert pinned is not None
    return pinned[1]


def kubernetes_flags() -> tuple[str, ...]:
    """Return how Kubernetes is compiled: without debugging data, and knowing its version."""
    version = kubernetes_version()
    values = {
        "gitVersion": version,
        "gitMajor": "1",
        "gitMinor": version.split(".")[1],
        "gitTreeState": "clean",
    }
    linker = STRIPPED
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        linker += "".join(f" -X {package}.{name}={value}" for name, value in values.items())
    return (*LEAN, "-ldflags", linker)


def _build_kubernetes(target: Path, log: Path) -> None:
    command = ["go", "build", *kubernetes_flags(), "-o", f"{target}/", "./kube", "./fakedp", "./pause"]
    run(command, cwd=TOOLS, env=WITHOUT_C, log=log)
    for name in KUBERNETES.programs:
        if not (target / name).exists():
            (target / name).symlink_to("kube")


def _build_dns(target: Path, log: Path) -> None:
    command = ["go", "build", *LEAN, "-ldflags", STRIPPED, "-o", str(target / "coredns"), "."]
    run(command, cwd=TOOLS / "dns", env=WITHOUT_C, log=log)


def _install(package: str, target: Path, log: Path) -> None:
    command = ["go", "install", "-trimpath", "-ldflags", STRIPPED, package]
    run(command, cwd=target, env={**WITHOUT_C, "GOBIN": str(target)}, log=log)


def _build_helm(target: Path, log: Path) -> None:
    _install(HELM_PACKAGE, target, log)


def _build_kwok(target: Path, log: Path) -> None:
    _install(f"{KWOK_MODULE}/cmd/kwok@{KWOK_VERSION}", target, log)
    module = f"{KWOK_MODULE}@{KWOK_VERSION}"
    answer = subprocess.run(
        ["go", "mod", "download", "-json", module], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise SetupError(f"'go mod download {module}' failed: {answer.stderr.strip()}")
    stages = Path(json.loads(answer.stdout)["Dir"]) / "kustomize" / "stage"
    files = [
        file
        for folder in STAGE_FOLDERS
        for file in sorted((stages / folder).glob("*.yaml"))
        if file.name != "kustomization.yaml"
    ]
    (target / KWOK_STAGES).write_text("\n---\n".join(file.read_text("utf-8") for file in files), "utf-8")


def _sources(folder: Path, *patterns: str) -> str:
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return "\n".join(f"{file.relative_to(folder)}\n{file.read_text('utf-8')}" for file in files)


KUBERNETES = Set(
    "kubernetes",
    (
        "kube",
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
        "fakedp",
        "pause",
    ),
    _sources(TOOLS, "go.*", "kube/*.go", "fakedp/*.go", "pause/*.go"),
    400,
    _build_kubernetes,
)
DNS = Set("coredns", ("coredns",), _sources(TOOLS / "dns", "go.*", "*.go"), 120, _build_dns)
HELM = Set("helm", ("helm",), HELM_PACKAGE, 100, _build_helm)
KWOK = Set("kwok", ("kwok", KWOK_STAGES), f"{KWOK_MODULE}/cmd/kwok@{KWOK_VERSION}", 115, _build_kwok)
SETS = (HELM, KWOK, DNS, KUBERNETES)  # the quickest first: tests of the chart need helm alone
