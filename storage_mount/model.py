"""The values a drive is made of: file entries, roles, pages of a listing, mounts. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

ROOT_ID = "root"
ROOT_NAME = "My Drive"
NOTEBOOK_SUFFIX = ".ipynb"


class FileType(StrEnum):
    """What a user sees a file as; a notebook is a file whose name ends in `.ipynb`."""

    NOTEBOOK = "notebook"
    FOLDER = "folder"
    FILE = "file"


class Role(StrEnum):
    """What a user may do with a file; each role includes the ones before it."""

    VIEWER = "viewer"
    COMMENTER = "commenter"
    EDITOR = "editor"
    OWNER = "owner"

    def allows(self, needed: Role) -> bool:
        """Return whether this role includes `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class SortKey(StrEnum):
    """What a listing can be ordered by."""

    NAME = "name"
    MODIFIED = "modified"
    CREATED = "created"
    SIZE = "size"
    TYPE = "type"


class Order(StrEnum):
    """Direction of a listing."""

    ASC = "asc"
    DESC = "desc"


class OnClash(StrEnum):
    """What to do when a name is taken: refuse, or take the next free numbered name."""

    ERROR = "error"
    RENAME = "rename"


@dataclass(frozen=True)
class FileEntry:
    """One file or folder as a user sees it.

    `path` is relative to the drive, without a leading slash (empty for the drive itself). `parent` is a folder id or
    "root", empty for the drive itself. `size` is in bytes, None for a folder. `etag` includes its quotes, as in the
    HTTP header. `trashed` is when it was put into the trash.
    """

    id: str
    name: str
    path: str
    parent: str
    type: FileType
    size: int | None
    created: datetime
    modified: datetime
    role: Role
    etag: str
    owner: str
    trashed: datetime | None = None


@dataclass(frozen=True)
class Page:
    """`items` are entries `offset` to `offset + limit` of `total`."""

    items: tuple[FileEntry, ...]
    total: int
    offset: int
    limit: int


@dataclass(frozen=True)
class Mount:
    """A folder made visible inside a runtime: `source` on this machine, `target` an absolute path inside."""

    source: Path
    target: str
    readonly: bool = False


def type_of(name: str, *, is_folder: bool) -> FileType:
    """Return what a file of this name is shown as."""
    if is_folder:
        return FileType.FOLDER
    return FileType.NOTEBOOK if name.lower().endswith(NOTEBOOK_SUFFIX) else FileType.FILE
