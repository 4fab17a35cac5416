"""The rows of one drive, brought into agreement with its folder, which a runtime may have changed meanwhile.

A row gives a file its id. It follows the file through a rename made in a runtime: path first, then the file's identity.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from quota.clock import Clock
from storage_mount import errors, policy
from storage_mount.beneath import Facts, Folder
from storage_mount.model import ROOT_ID, ROOT_NAME, FileEntry, FileType, Role, type_of
from storage_mount.sql import FileRow

ASKED_AT_ONCE = 500  # rows of one query; a database takes so many values and not many more
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})

T = TypeVar("T")


@dataclass(frozen=True)
class Drive:
    """A user's drive: `folder` is what is mounted; `trash` is out of reach of any runtime."""

    id: str
    user: str
    files: Folder
    trash: Folder
    folder: Path


class Rows:
    """The rows of a drive, within one transaction."""

    def __init__(self, db: Session, drive: Drive, clock: Clock) -> None:
        self.db, self.drive, self._clock = db, drive, clock

    def find(self, file_id: str) -> tuple[FileRow, Facts]:
        """Return a living file by its id, also when a runtime moved it. Raise NotFound, InTrash."""
        row = self.db.get(FileRow, file_id) if 0 < len(file_id) <= 64 else None
        if row is None or row.drive != self.drive.id:
            raise errors.NotFound
        if row.trashed is not None:
            raise errors.InTrash
        try:
            facts = self.drive.files.facts(row.path)
        except OSError as error:
            if error.errno not in GONE:
                raise
            moved = self._search_identity(row.identity)
            if moved is None:
                raise errors.NotFound from None
            self.moved(row.path, moved[0])
            facts = moved[1]
        self.note(row, facts)
        return row, facts

    def _search_identity(self, identity: str) -> tuple[str, Facts] | None:
        for path, facts in self.drive.files.walk():
            if facts.identity == identity and policy.is_text(path):
                return path, facts
        return None

    def at(self, path: str, facts: Facts) -> FileRow:
        """Return the row of what lies at `path`: by path, else the one that was moved here, else a new one."""
        return self.all_at([(path, facts)])[0]

    def all_at(self, found: Sequence[tuple[str, Facts]]) -> list[FileRow]:
        """Return the rows of what lies at many paths, as `at` does; the database is asked once for a few hundred of them."""
        known = {row.path: row for row in self._where(FileRow.path, [path for path, _ in found])}
        strange = [(path, facts) for path, facts in found if path not in known]
        elsewhere: dict[str, list[FileRow]] = {}
        for row in self._where(FileRow.identity, [facts.identity for _, facts in strange]):
            elsewhere.setdefault(row.identity, []).append(row)
        for path, facts in strange:
            known[path] = self._moved_here(path, elsewhere.get(facts.identity, ())) or self._new(path, facts)
        if strange:
            self.db.flush()
        for path, facts in found:
            self.note(known[path], facts)
        return [known[path] for path, _ in found]

    def _where(self, column: InstrumentedAttribute[str], values: Sequence[str]) -> Iterator[FileRow]:
        for group in batched(values, ASKED_AT_ONCE):
            yield from self.db.scalars(
                select(FileRow).where(
                    FileRow.drive == self.drive.id, column.in_(group), FileRow.trashed.is_(None)
                )
            )

    def _moved_here(self, path: str, candidates: Iterable[FileRow]) -> FileRow | None:
        for row in candidates:
            if row.path == path:
                return row  # a folder above it was found to be moved, and this row with it
            if not exists(self.drive.files, row.path):
                self.moved(row.path, path)
                return row
        return None

    def _new(self, path: str, facts: Facts) -> FileRow:
        row = FileRow(
            id=new_id(),
            drive=self.drive.id,
            path=path,
            identity=facts.identity,
            signature=facts.signature,
            version=1,
            created=self._clock.now(),
            trashed=None,
            trashed_with=None,
        )
        self.db.add(row)
        return row

    def note(self, row: FileRow, facts: Facts, *, new_version: bool = True) -> None:
        if row.signature != facts.signature:
            if new_version and not facts.is_folder:
                row.version += 1
            row.signature, row.identity = facts.signature, facts.identity

    def moved(self, old: str, new: str) -> None:
        for below in self.below(old):
            below.path = new + below.path[len(old) :]
        row = self.db.scalars(
            select(FileRow).where(
                FileRow.drive == self.drive.id, FileRow.path == old, FileRow.trashed.is_(None)
            )
        ).first()
        if row is not None:
            row.path = new
        self.db.flush()

    def below(self, path: str) -> list[FileRow]:
        rows = self.db.scalars(
            select(FileRow).where(
                FileRow.drive == self.drive.id,
                FileRow.trashed.is_(None),
                FileRow.path.startswith(path + "/", autoescape=True),
            )
        )
        return list(rows)

    def folder_path(self, folder_id: str) -> str:
        if folder_id == ROOT_ID:
            return ""
        try:
            row, facts = self.find(folder_id)
        except errors.NotFound:
            raise errors.NotFound("No such folder.") from None
        if not facts.is_folder:
            raise errors.BadRequest("This is a file, not a folder.", code="not_a_folder", field="parent")
        return row.path

    # -- entries ----------------------------------------------------------------------------------------------

    def root_entry(self) -> FileEntry:
        facts = self.drive.files.facts("")
        at = _time(facts.mtime_ns)
        return FileEntry(
            ROOT_ID,
            ROOT_NAME,
            "",
            "",
            FileType.FOLDER,
            None,
            at,
            at,
            Role.OWNER,
            f'"root-{self.drive.id[:8]}"',
            self.drive.user,
        )

    def entry(self, row: FileRow, facts: Facts) -> FileEntry:
        """Return a file as its owner sees it."""
        return self.make_entry(row, facts, self._folder_ids([row.path])[policy.split(row.path)[0]])

    def entries(self, found: Sequence[tuple[str, Facts]]) -> list[FileEntry]:
        """Return what lies at many paths as its owner sees it."""
        folders = self._folder_ids([path for path, _ in found])
        return [
            self.make_entry(row, facts, folders[policy.split(row.path)[0]])
            for row, (_, facts) in zip(self.all_at(found), found, strict=True)
        ]

    def _folder_ids(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the ids of the folders in which the paths lie, by the folders' own paths."""
        above = sorted({policy.split(path)[0] for path in paths} - {""})
        rows = self.all_at([(path, self.drive.files.facts(path)) for path in above])
        return {"": ROOT_ID, **{row.path: row.id for row in rows}}

    def make_entry(self, row: FileRow, facts: Facts, parent: str) -> FileEntry:
        name = policy.split(row.path)[1]
        return FileEntry(
            id=row.id,
            name=name,
            path=row.path,
            parent=parent,
            type=type_of(name, is_folder=facts.is_folder),
            size=None if facts.is_folder else facts.size,
            created=utc(row.created),
            modified=_time(facts.mtime_ns),
            role=Role.OWNER,
            etag=etag(row),
            owner=self.drive.user,
            trashed=utc(row.trashed) if row.trashed is not None else None,
        )


def new_id() -> str:
    """Return 128 random bits as URL-safe text that does not begin like a flag or an example's id."""
    while True:
        text = secrets.token_urlsafe(16)
        if text[0] not in "-_" and not text.startswith("ex-"):
            return text


def etag(row: FileRow) -> str:
    """Return the version of a file's content, quotes included, as in the HTTP header."""
    return f'"v{row.version}-{hashlib.sha256(f"{row.id}{row.signature}".encode()).hexdigest()[:16]}"'


def exists(files: Folder, path: str) -> bool:
    """Return whether anything lies at a path."""
    try:
        files.facts(path)
    except OSError:
        return False
    return True


def batched(values: Sequence[T], size: int) -> Iterator[list[T]]:
    """Yield the values in lists of at most `size`."""
    rest = iter(values)
    while group := list(islice(rest, size)):
        yield group


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC)


def utc(value: datetime) -> datetime:
    """Return a time out of the database, which may have forgotten that it is UTC."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
