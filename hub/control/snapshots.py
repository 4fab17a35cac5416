"""/content of ended runtimes, kept in the user's Drive: a folder of archives that people can see, move and delete.

Written as a runtime would write it, beneath the user's own folder; documents finds it there. An archive is named after its
notebook and its runtime, so that it can be offered to the notebook's next runtime.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quota.model import LIVE, Session
from quota.ports import Ledger
from spawner import keep
from spawner.model import LeftBehind
from storage_mount.beneath import Folder
from storage_mount.service import DriveService

FOLDER = "Runtime snapshots"
KEPT_PER_NOTEBOOK = 3
CHUNK_BYTES = 1 << 20
NAME = re.compile(r"^.{1,150} \((r-[a-z2-7]{12})\)\.tar\.gz$", re.DOTALL)


@dataclass(frozen=True)
class Snapshot:
    """One archive. `id` is the id of the runtime it was made of, `file_id` that of its notebook."""

    id: str
    name: str
    file_id: str
    size_bytes: int
    created: datetime


class Snapshots:
    """The snapshots of every user."""

    def __init__(self, drive: DriveService, ledger: Ledger) -> None:
        self._drive, self._ledger = drive, ledger

    def take(self, session: Session, left: LeftBehind) -> dict[str, object]:
        """Put what a runtime left into its user's Drive; return what the record says of it, nothing when nothing was kept.

        The oldest of a notebook's snapshots make room. One that is there already is not written again. Raise OSError.
        """
        if left.snapshot is None:
            return {"kept": False, "message": left.snapshot_note} if left.snapshot_note else {}
        folder = Folder(self._drive.drive_folder(session.user))
        with suppress(FileExistsError):
            folder.make_folder(FOLDER)
        name = _name_of(session)
        with suppress(FileExistsError), left.snapshot.open("rb") as file:
            folder.write(f"{FOLDER}/{name}", iter(lambda: file.read(CHUNK_BYTES), b""), replace=False)
        mine = [s for s in self.of(session.user) if s.file_id == session.file_id]
        for old in mine[KEPT_PER_NOTEBOOK:]:
            folder.remove(f"{FOLDER}/{old.name}")
        return {"kept": True, "name": name, "size_bytes": left.snapshot.stat().st_size}

    def became_of(self, session: Session) -> dict[str, object] | None:
        """Return what became of an ended runtime's /content, None when nothing was to be kept or it has not been looked at yet.

        `kept` says whether it is in the Drive; if not, `message` says why.
        """
        if session.state in LIVE:
            return None
        events = self._ledger.events(session.id)
        note = next((detail for event, detail, _ in reversed(events) if event == "snapshot"), None)
        if note is None or note.get("message") == keep.EMPTY:
            return None
        return {"kept": bool(note["kept"]), "message": str(note.get("message", ""))}

    def of(self, user: str) -> list[Snapshot]:
        """Return a user's snapshots, the newest first."""
        folder = Folder(self._drive.drive_folder(user))
        try:
            entries = folder.scan(FOLDER)
        except OSError:
            return []
        found: list[Snapshot] = []
        for name, facts in entries:
            match = NAME.match(name)
            session = self._ledger.get(match[1]) if match and not facts.is_folder else None
            if session is not None and session.user == user:
                made = datetime.fromtimestamp(facts.mtime_ns / 1e9, UTC)
                found.append(Snapshot(session.id, name, session.file_id, facts.size, made))
        return sorted(found, key=lambda s: (s.created, s.id), reverse=True)

    @contextmanager
    def opened(self, user: str, snapshot_id: str) -> Iterator[Path | None]:
        """Yield a path to one of the user's snapshots that holds while this is open, None when there is none."""
        snapshot = next((s for s in self.of(user) if s.id == snapshot_id), None)
        if snapshot is None:
            yield None
            return
        fd, _ = Folder(self._drive.drive_folder(user)).open_file(f"{FOLDER}/{snapshot.name}")
        try:
            yield Path(f"/proc/{os.getpid()}/fd/{fd}")
        finally:
            os.close(fd)


def _name_of(session: Session) -> str:
    stem = session.file_name.removesuffix(".ipynb").replace("/", "_").strip(". ") or "notebook"
    while len(stem.encode()) > 150:
        stem = stem[:-1]
    return f"{stem} ({session.id}).tar.gz"
