"""Archives of this source tree's images, for clusters that have no registry: built on the tests' own Docker engine when they are not there.

They lie in the cache folder below a key made of everything that goes into them, so another state of the tree has archives of its own.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import docker

from hub.settings import cache_folder
from hub.setup import images
from support import docker_engine

KEPT = 2  # states of the tree whose archives stay
SOURCES = (
    "hub",
    "spawner",
    "gpu_scheduler",
    "storage_mount",
    "quota",
    "images",
    "examples",
    "pyproject.toml",
)
MADE = ("__pycache__", "node_modules", "labextension", "static", "lib", ".mypy_cache")


class NoArchives(Exception):
    """They can not be built on this machine; the text says why."""


def image_archives(names: Sequence[str] = (images.HUB, "minimal")) -> dict[str, Path]:
    """Return the archives of the images. The first time this takes some minutes. Raise NoArchives."""
    top = cache_folder() / "images"
    folder = top / _key()
    found = {name: folder / images.archive_name(images.image_called(name)) for name in names}
    missing = [name for name, path in found.items() if not path.exists()]
    if missing:
        if why_not := docker_engine.missing():
            raise NoArchives(why_not)
        with docker_engine.engine() as engine:
            for name in missing:
                docker_engine.build_image(engine, name)
                client = docker.DockerClient(base_url=engine.url, timeout=3600)
                images.save(client, images.image_called(name), folder)
                client.close()
        _forget_old(top, folder)
    return found


def _key() -> str:
    """Return a hash of the files that images are made of."""
    digest = hashlib.sha256()
    for name in SOURCES:
        top = images.ROOT / name
        paths = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]
        for path in paths:
            inside = path.relative_to(images.ROOT)
            if not set(inside.parts) & set(MADE):
                digest.update(str(inside).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _forget_old(top: Path, newest: Path) -> None:
    others = [p for p in top.iterdir() if p.is_dir() and p != newest]
    for old in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
