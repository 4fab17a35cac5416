"""The trash of a drive: what lies there is out of reach of any runtime, and can be brought back."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from sqlalchemy import delete, select

from storage_mount import errors, policy
from storage_mount.drives import Drives
from storage_mount.model import ROOT_ID, FileEntry
from storage_mount.rows import Rows
from storage_mount.sql import FileRow


class Trash(Drives):
    """Put into the trash, look, restore, delete for ever."""

    def trash(self, user: str, file_id: str) -> FileEntry:
        """Put a file into the trash, out of reach of any runtime."""
        with self._rows(user) as rows:
            row, facts = rows.find(file_id)
            entry = rows.entry(row, facts)
            rows.drive.files.move(row.path, rows.drive.trash, row.id)
            now = self._clock.now()
            for below in rows.below(row.path):
                below.trashed, below.trashed_with = now, row.id
            row.trashed, row.trashed_with = now, None
            return replace(entry, trashed=now)

    def list_trash(self, user: str) -> list[FileEntry]:
        """Return what is in the trash, last put there first."""
        with self._rows(user) as rows:
            query = select(FileRow).where(
                FileRow.drive == rows.drive.id, FileRow.trashed.is_not(None), FileRow.trashed_with.is_(None)
            )
            out = []
            for row in rows.db.scalars(query):
                with contextlib.suppress(OSError):
                    out.append(_trash_entry(rows, row))
            return sorted(out, key=lambda e: (e.trashed is not None and e.trashed, e.id), reverse=True)

    def restore(self, user: str, file_id: str) -> FileEntry:
        """Bring a file back to where it was; to the drive's top when that folder is gone; with a number when the name is taken."""
        with self._rows(user) as rows:
            row = _in_trash(rows, file_id)
            folder, name = policy.split(row.path)
            try:
                taken = rows.drive.files.names(folder)
            except OSError:
                folder, taken = "", rows.drive.files.names("")
            old, path = row.path, policy.join(folder, policy.free_name(policy.numbered(name), taken))
            rows.drive.trash.move(row.id, rows.drive.files, path)
            for below in rows.db.scalars(select(FileRow).where(FileRow.trashed_with == row.id)):
                below.path = path + below.path[len(old) :]
                below.trashed = below.trashed_with = None
            row.path, row.trashed = path, None
            facts = rows.drive.files.facts(path)
            rows.note(row, facts, new_version=False)
            return rows.entry(row, facts)

    def delete_forever(self, user: str, file_id: str) -> None:
        """Delete something that is in the trash. Raise NotFound."""
        with self._rows(user) as rows:
            row = _in_trash(rows, file_id)
            rows.drive.trash.remove(row.id)
            rows.db.execute(delete(FileRow).where(FileRow.trashed_with == row.id))
            rows.db.delete(row)

    def empty_trash(self, user: str) -> int:
        """Delete everything in the trash; return how many things that were."""
        entries = self.list_trash(user)
        for entry in entries:
            with contextlib.suppress(errors.NotFound):
                self.delete_forever(user, entry.id)
        return len(entries)


def _trash_entry(rows: Rows, row: FileRow) -> FileEntry:
    facts = rows.drive.trash.facts(row.id)
    return rows.make_entry(row, facts, parent=ROOT_ID)


def _in_trash(rows: Rows, file_id: str) -> FileRow:
    row = rows.db.get(FileRow, file_id)
    if row is None or row.drive != rows.drive.id or row.trashed is None or row.trashed_with is not None:
        raise errors.NotFound
    return row
