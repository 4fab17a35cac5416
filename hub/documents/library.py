"""Everything a user can open: their Drive, and the examples. What pages and rooms ask for files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from hub.documents.examples import PREFIX, Examples
from hub.documents.rooms.shelf import ChangedOutside, Gone, Shelf, ShelfError, Version
from storage_mount import errors
from storage_mount.model import FileEntry, Role
from storage_mount.service import DriveService


class Library:
    """One road to files for this service. The Drive waits for disks, so its calls run in threads."""

    def __init__(self, drive: DriveService, examples: Examples) -> None:
        self._drive = drive
        self._examples = examples

    async def entry(self, user: str, file_id: str) -> FileEntry:
        """Return what `user` may see of a file; raise StorageError."""
        if file_id.startswith(PREFIX):
            return await asyncio.to_thread(self._examples.entry, file_id)
        return await asyncio.to_thread(self._drive.get, user, file_id)

    async def role(self, user: str, file_id: str) -> Role | None:
        """Return what `user` may do with a file, None when they do not see it."""
        try:
            return (await self.entry(user, file_id)).role
        except errors.NotFound:
            return None

    async def read(self, entry: FileEntry) -> tuple[bytes, FileEntry]:
        """Return the content of a file that its reader was shown as `entry`, and its version; raise StorageError."""
        if entry.id.startswith(PREFIX):
            return await asyncio.to_thread(self._examples.read, entry.id), entry
        return await asyncio.to_thread(self._drive.read, entry.owner, entry.id)

    async def rename(self, user: str, file_id: str, name: str) -> FileEntry:
        """Give a file another name; raise StorageError."""
        return await asyncio.to_thread(lambda: self._drive.change(user, file_id, name=name))

    async def drive_id(self, user: str) -> str:
        """Return the random id of a user's Drive, by which everything of theirs is kept."""
        return await asyncio.to_thread(self._drive.drive_id, user)

    def shelf(self, file_id: str) -> tuple[Shelf, bool]:
        """Return where the notebook of a room lies, and whether it is read-only."""
        if file_id.startswith(PREFIX):
            return ExampleShelf(self._examples, file_id), True
        return DriveShelf(self._drive, file_id), False


class ExampleShelf:
    """An example: it can be loaded, and nothing else."""

    def __init__(self, examples: Examples, file_id: str) -> None:
        self._examples = examples
        self._file_id = file_id

    async def version(self) -> Version:
        try:
            entry = self._examples.entry(self._file_id)
        except errors.NotFound as error:
            raise Gone(error.message) from error
        return Version(entry.name, entry.etag)

    async def load(self) -> tuple[bytes, Version]:
        version = await self.version()
        return self._examples.read(self._file_id), version

    async def store(self, raw: bytes, replaces: str) -> Version:
        raise ShelfError("Examples can not be changed. Copy it to your Drive first.")

    async def put_aside(self, raw: bytes, note: str) -> str:
        raise ShelfError("Examples can not be changed. Copy it to your Drive first.")


class DriveShelf:
    """A notebook in somebody's Drive. Rooms act as the file's owner: who may edit was decided at the door."""

    def __init__(self, drive: DriveService, file_id: str) -> None:
        self._drive = drive
        self._file_id = file_id

    async def version(self) -> Version:
        return await asyncio.to_thread(self._version)

    async def load(self) -> tuple[bytes, Version]:
        return await asyncio.to_thread(self._load)

    async def store(self, raw: bytes, replaces: str) -> Version:
        # The write goes on when the waiting is cancelled: a page that leaves can not stop a save half-way.
        return await asyncio.shield(asyncio.to_thread(self._store, raw, replaces))

    async def put_aside(self, raw: bytes, note: str) -> str:
        return await asyncio.shield(asyncio.to_thread(self._put_aside, raw, note))

    def _version(self) -> Version:
        with as_shelf_errors():
            entry = self._drive.get(self._drive.owner(self._file_id), self._file_id)
            return Version(entry.name, entry.etag)

    def _load(self) -> tuple[bytes, Version]:
        with as_shelf_errors():
            raw, entry = self._drive.read(self._drive.owner(self._file_id), self._file_id)
            return raw, Version(entry.name, entry.etag)

    def _store(self, raw: bytes, replaces: str) -> Version:
        with as_shelf_errors():
            owner = self._drive.owner(self._file_id)
            entry = self._drive.write(owner, self._file_id, raw, if_match=replaces)
            return Version(entry.name, entry.etag)

    def _put_aside(self, raw: bytes, note: str) -> str:
        with as_shelf_errors():
            owner = self._drive.owner(self._file_id)
            entry = self._drive.get(owner, self._file_id)
            stem, dot, suffix = entry.name.rpartition(".")
            name = f"{stem} ({note}){dot}{suffix}" if stem else f"{entry.name} ({note})"
            return self._drive.upload(owner, entry.parent, name, [raw]).name


@contextmanager
def as_shelf_errors() -> Iterator[None]:
    """Turn refusals of the Drive into what a room understands."""
    try:
        yield
    except errors.NotFound as error:
        raise Gone(error.message) from error
    except errors.Changed as error:
        raise ChangedOutside(error.message) from error
    except errors.StorageError as error:
        raise ShelfError(error.message) from error
