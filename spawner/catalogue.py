"""Read and write catalogues, such as images/catalogue.yaml: the runtimes a notebook can have, and their images."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
RECORDED = """\
# Written by `minicolab images build --record`: the images of one installation, each by what it holds (its digest).
# `runtimes.catalogue` of the settings names this file.
"""


class CatalogueError(Exception):
    """The catalogue can not be used; the text names the entry and what is wrong."""


@dataclass(frozen=True)
class CatalogueImage:
    """A container image. `image` is its name and tag, without a registry; `digest` what it holds, once it was pushed.

    `bytes` is its size on a disk, an estimate until then.
    """

    image: str
    bytes: int
    digest: str | None = None

    def reference(self, registry: str) -> str:
        """Return what an engine is asked for: by the digest where one is known, so that a tag that moves changes nothing."""
        if self.digest is None:
            return f"{registry}/{self.image}"
        return f"{registry}/{self.image.partition(':')[0]}@{self.digest}"


@dataclass(frozen=True)
class ServiceImage:
    """An image that no notebook runs in: that of the services. `programs` are the parts of minicolab in it."""

    name: str
    title: str
    programs: tuple[str, ...]
    image: CatalogueImage


@dataclass(frozen=True)
class CatalogueEntry:
    """One runtime. `size_bytes` and `install_seconds` are estimates for people, `system_packages` its image's Debian packages."""

    name: str
    title: str
    default: bool
    pins: tuple[str, ...]
    size_bytes: int
    install_seconds: float
    accelerators: tuple[str, ...]
    image: CatalogueImage
    system_packages: tuple[str, ...]

    @property
    def key(self) -> str:
        """Return the hash of what decides the environment's content: the pins and the interpreter."""
        text = "\n".join([f"{sys.version_info[0]}.{sys.version_info[1]}", sys.base_prefix, *self.pins])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Catalogue:
    """All runtimes and the services' images; `registry` is where the images are, or docker.io/local for those built here."""

    registry: str
    services: tuple[ServiceImage, ...]
    entries: tuple[CatalogueEntry, ...]

    def entry(self, name: str) -> CatalogueEntry:
        """Return the runtime called `name`. Raise KeyError."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)


def load_catalogue(path: Path) -> Catalogue:
    """Return the catalogue in `path`. Raise CatalogueError."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
        services = tuple(
            ServiceImage(
                name=str(item["name"]),
                title=str(item["title"]),
                programs=tuple(str(p) for p in item["programs"]),
                image=_image(item),
            )
            for item in data["services"]
        )
        entries = tuple(
            CatalogueEntry(
                name=str(item["name"]),
                title=str(item["title"]),
                default=bool(item["default"]),
                pins=tuple(str(pin) for pin in item["pins"]),
                size_bytes=int(item["size_bytes"]),
                install_seconds=float(item["install_seconds"]),
                accelerators=tuple(str(a) for a in item["accelerators"]),
                image=_image(item),
                system_packages=tuple(str(p) for p in item["system_packages"]),
            )
            for item in data["runtimes"]
        )
        catalogue = Catalogue(str(data["registry"]), services, entries)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CatalogueError(f"{path}: can not be read: {error}") from error
    for entry in entries:
        loose = [pin for pin in entry.pins if "==" not in pin]
        if loose:
            raise CatalogueError(f"{path}: {entry.name}: not pinned exactly: {', '.join(loose)}")
    return catalogue


def _image(item: dict[str, Any]) -> CatalogueImage:
    digest = item.get("digest")
    if digest is not None and not DIGEST.fullmatch(str(digest)):
        raise ValueError(f"{item['name']}: {digest!r} is no digest (sha256:…)")
    return CatalogueImage(str(item["image"]), int(item["image_bytes"]), digest)


def record_image(path: Path, shipped: Path, registry: str, name: str, digest: str, image_bytes: int) -> None:
    """Write into the catalogue in `path` what the image `name` holds; all else of its entry is taken from `shipped`.

    `path` is made when it is not there. Raise CatalogueError when its images are in another registry.
    """
    ours = yaml.safe_load(shipped.read_text("utf-8"))
    data = yaml.safe_load(path.read_text("utf-8")) if path.exists() else {**ours, "registry": registry}
    if data["registry"] != registry:
        raise CatalogueError(f"{path}: its images are in {data['registry']}, not in {registry}")
    for kind in ("services", "runtimes"):
        for recipe in ours[kind]:
            if recipe["name"] == name:
                entry = {**recipe, "image_bytes": image_bytes, "digest": digest}
                others = [other for other in data[kind] if other["name"] != name]
                data[kind] = sorted([*others, entry], key=lambda e: _place(ours[kind], e["name"]))
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(RECORDED + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120), "utf-8")
    load_catalogue(draft)
    draft.replace(path)


def _place(entries: list[dict[str, Any]], name: str) -> int:
    """Return an entry's place in the shipped order; those that are not shipped come last."""
    names = [entry["name"] for entry in entries]
    return names.index(name) if name in names else len(names)
