"""Read images/catalogue.yaml: the runtimes a notebook can have."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml


class CatalogueError(Exception):
    """The catalogue can not be used; the text names the entry and what is wrong."""


@dataclass(frozen=True)
class CatalogueEntry:
    """One runtime. `size_bytes`, `install_seconds` and `image_bytes` are estimates for people.

    `image` is the name and tag of its container image, without a registry; `system_packages` what Debian packages that has.
    """

    name: str
    title: str
    default: bool
    pins: tuple[str, ...]
    size_bytes: int
    install_seconds: float
    accelerators: tuple[str, ...]
    image: str
    image_bytes: int
    system_packages: tuple[str, ...]

    @property
    def key(self) -> str:
        """Return the hash of what decides the environment's content: the pins and the interpreter."""
        text = "\n".join([f"{sys.version_info[0]}.{sys.version_info[1]}", sys.base_prefix, *self.pins])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Catalogue:
    """All runtimes."""

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
        entries = tuple(
            CatalogueEntry(
                name=str(item["name"]),
                title=str(item["title"]),
                default=bool(item["default"]),
                pins=tuple(str(pin) for pin in item["pins"]),
                size_bytes=int(item["size_bytes"]),
                install_seconds=float(item["install_seconds"]),
                accelerators=tuple(str(a) for a in item["accelerators"]),
                image=str(item["image"]),
                image_bytes=int(item["image_bytes"]),
                system_packages=tuple(str(p) for p in item["system_packages"]),
            )
            for item in data["runtimes"]
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CatalogueError(f"{path}: can not be read: {error}") from error
    for entry in entries:
        loose = [pin for pin in entry.pins if "==" not in pin]
        if loose:
            raise CatalogueError(f"{path}: {entry.name}: not pinned exactly: {', '.join(loose)}")
    return Catalogue(entries)
