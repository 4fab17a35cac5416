"""Build container images: a context folder from this source tree, then the engine's own builder.

hub         one image with hub, documents, control, the proxy and the drive plugin
NAME        the runtime NAME of images/catalogue.yaml, with the supervisor as its first process

Dockerfiles stay legal for every builder (no RUN --mount), and no context holds the address of an index: what pip and apt use is the
base image's business, so one that trusts a local authority or names a mirror needs no other change.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.setup import frontend
from hub.setup.node import find_node
from hub.setup.npm_package import PROXY
from hub.setup.runtime_environment import CATALOGUE, ROOT, RUNTIME_SOURCE
from hub.setup.steps import SetupError
from spawner.catalogue import CatalogueEntry, load_catalogue

IMAGES = ROOT / "images"
HUB = "hub"
SERVICE_PACKAGES = ("hub", "spawner", "gpu_scheduler", "storage_mount", "quota")
SUPERVISOR_PACKAGES = ("spawner", "quota")
_SKIP = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "node_modules", "frontend", "*.orig")


@dataclass(frozen=True)
class Image:
    """An image that can be built. `entry` is None for the services' image, whose parts `programs` names."""

    name: str
    tag: str
    title: str
    size_bytes: int
    entry: CatalogueEntry | None
    programs: tuple[str, ...] = ()


def known_images(registry: str | None = None) -> list[Image]:
    """Return every image there is a recipe for, as it is named in `registry` (None: on this machine)."""
    catalogue = load_catalogue(CATALOGUE)
    top = registry or catalogue.registry
    services = [
        Image(s.name, f"{top}/{s.image.image}", s.title, s.image.bytes, None, s.programs)
        for s in catalogue.services
    ]
    runtimes = [Image(e.name, f"{top}/{e.image.image}", e.title, e.image.bytes, e) for e in catalogue.entries]
    return services + runtimes


def image_called(name: str, registry: str | None = None) -> Image:
    """Return the image called `name`. Raise SetupError."""
    images = {image.name: image for image in known_images(registry)}
    if name not in images:
        raise SetupError(f"There is no image '{name}' (known: {', '.join(images)}).")
    return images[name]


def version() -> str:
    """Return the version of this source tree."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def labels(image: Image) -> dict[str, str]:
    """Return what the image says of itself."""
    out = {
        "org.opencontainers.image.title": image.title,
        "org.opencontainers.image.version": version(),
        "org.opencontainers.image.licenses": "BSD-3-Clause",
        "minicolab.dev/image": image.name,
        "minicolab.dev/sbom": "/usr/share/sbom/image.cdx.json",
    }
    revision = _revision()
    if revision:
        out["org.opencontainers.image.revision"] = revision
    if image.entry is not None:
        out["minicolab.dev/pins"] = pins_of(image.entry)
        out["minicolab.dev/accelerators"] = ",".join(image.entry.accelerators)
    if image.programs:
        out["minicolab.dev/programs"] = ",".join(image.programs)
    return out


def _revision() -> str:
    """Return the commit this tree is at, nothing when it is none."""
    try:
        command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def context(image: Image) -> Iterator[Path]:
    """Make the folder the builder is given; it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="minicolab-image-"))
    try:
        shutil.copyfile(IMAGES / "common" / "sbom.py", folder / "sbom.py")
        if image.entry is None:
            _fill_hub(folder)
        else:
            _fill_runtime(folder, image.entry)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill_runtime(folder: Path, entry: CatalogueEntry) -> None:
    shutil.copyfile(IMAGES / "runtime" / "Dockerfile", folder / "Dockerfile")
    (folder / "pins.txt").write_text("".join(f"{pin}\n" for pin in entry.pins), "utf-8")
    shutil.copyfile(constraints_of(entry), folder / "constraints.txt")
    shutil.copytree(RUNTIME_SOURCE, folder / "runtime", ignore=_SKIP)
    for package in SUPERVISOR_PACKAGES:
        shutil.copytree(ROOT / package, folder / "supervisor" / package, ignore=_SKIP)


def constraints_of(entry: CatalogueEntry) -> Path:
    """Return the file with the exact version of everything in the entry's image: the pins, and what they bring."""
    return IMAGES / "runtime" / "constraints" / f"{entry.name}.txt"


def pins_of(entry: CatalogueEntry) -> str:
    """Return a hash of what an entry's image has installed, the same wherever it is built."""
    text = "\n".join([*entry.pins, *entry.system_packages, constraints_of(entry).read_text("utf-8")])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _fill_hub(folder: Path) -> None:
    node = find_node()
    frontend.build_assets(node)
    PROXY.install(node)
    shutil.copyfile(IMAGES / "hub" / "Dockerfile", folder / "Dockerfile")
    shutil.copyfile(IMAGES / "hub" / "constraints.txt", folder / "constraints.txt")
    (folder / "requirements.txt").write_text("".join(f"{r}\n" for r in hub_requirements()), "utf-8")
    app = folder / "app"
    app.mkdir()
    for package in SERVICE_PACKAGES:
        shutil.copytree(ROOT / package, app / package, ignore=_SKIP)
    for name in ("images", "examples"):
        shutil.copytree(ROOT / name, app / name, ignore=_SKIP)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copyfile(ROOT / name, app / name)
    shutil.copytree(PROXY.modules, folder / "proxy" / PROXY.version / "node_modules", symlinks=True)


def hub_requirements() -> list[str]:
    """Return what the services need, PostgreSQL's driver included."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["postgresql"]]


def build(
    client: Any,
    image: Image,
    base_image: str | None,
    on_line: Callable[[str], None],
    *,
    fresh: bool = False,
) -> str:
    """Build an image on the engine behind `client`; return its id. `fresh`: without layers of earlier builds.

    Raise SetupError with the builder's last words.
    """
    arguments = {}
    if base_image is not None:
        arguments["BASE_IMAGE"] = base_image
    if image.entry is not None:
        arguments["SYSTEM_PACKAGES"] = " ".join(image.entry.system_packages)
    last: list[str] = []
    with context(image) as folder:
        steps = client.api.build(
            path=str(folder),
            tag=image.tag,
            buildargs=arguments,
            labels=labels(image),
            nocache=fresh,
            rm=True,
            forcerm=True,
            decode=True,
        )
        for step in steps:
            if "error" in step:
                tail = "".join(last[-15:])
                raise SetupError(f"Building {image.tag} failed: {step['error'].strip()}\n{tail}")
            text = re.sub(r"\x1b\[[0-9;]*m", "", step.get("stream", ""))
            last.append(text)
            if text.strip():
                on_line(text.rstrip())
    return str(client.images.get(image.tag).id)


def push(client: Any, image: Image, on_line: Callable[[str], None]) -> str:
    """Push a built image to its registry; return its digest there. Raise SetupError."""
    repository, _, tag = image.tag.rpartition(":")
    digest = ""
    for step in client.api.push(repository, tag=tag, stream=True, decode=True):
        if "error" in step:
            raise SetupError(f"Pushing {image.tag} failed: {step['error'].strip()}")
        digest = step.get("aux", {}).get("Digest", digest)
        if "id" in step and "progress" not in step:
            on_line(f"{step['id']}: {step['status']}")
    if not digest:
        raise SetupError(f"Pushing {image.tag} failed: the registry named no digest.")
    return digest


def archive_name(image: Image) -> str:
    """Return what the archive of an image is called."""
    return f"{HUB if image.entry is None else f'runtime-{image.name}'}.tar"


def save(client: Any, image: Image, folder: Path) -> Path:
    """Write a built image to `folder` as `docker save` does; return the archive."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / archive_name(image)
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        for chunk in client.api.get_image(image.tag):
            file.write(chunk)
    draft.replace(path)
    return path
