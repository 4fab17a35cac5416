"""The example notebooks that come with minicolab: read-only files with ids `ex-<slug>`, the same for everybody."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from storage_mount.errors import NotFound
from storage_mount.model import FileEntry, FileType, Role

PREFIX = "ex-"


@dataclass(frozen=True)
class Example:
    """One example: `title` and `summary` are for menus, `file` is where it lies."""

    slug: str
    title: str
    summary: str
    file: Path

    @property
    def id(self) -> str:
        return PREFIX + self.slug


class Examples:
    """The catalogue, read once. A folder without index.yaml has no examples."""

    def __init__(self, folder: Path) -> None:
        index = folder / "index.yaml"
        listed = yaml.safe_load(index.read_text("utf-8")) if index.is_file() else []
        if isinstance(listed, dict):
            listed = listed.get("examples", [])
        self._examples = {
            PREFIX + item["slug"]: Example(
                slug=item["slug"],
                title=item["title"],
                summary=item.get("summary", ""),
                file=folder / item.get("file", item["slug"] + ".ipynb"),
            )
            for item in listed
        }

    def list(self) -> tuple[Example, ...]:
        """Return the examples in the order of the index."""
        return tuple(self._examples.values())

    def get(self, file_id: str) -> Example:
        """Return one example; raise NotFound."""
        found = self._examples.get(file_id)
        if found is None:
            raise NotFound
        return found

    def read(self, file_id: str) -> bytes:
        """Return the notebook's bytes; raise NotFound."""
        try:
            return self.get(file_id).file.read_bytes()
        except OSError:
            raise NotFound from None

    def entry(self, file_id: str) -> FileEntry:
        """Return the example as a file everybody may read; raise NotFound."""
        example = self.get(file_id)
        raw = self.read(file_id)
        at = datetime.fromtimestamp(example.file.stat().st_mtime, tz=UTC)
        return FileEntry(
            id=file_id,
            name=example.file.name,
            path="",
            parent="",
            type=FileType.NOTEBOOK,
            size=len(raw),
            created=at,
            modified=at,
            role=Role.VIEWER,
            etag=f'"{hashlib.sha256(raw).hexdigest()[:32]}"',
            owner="",
        )
