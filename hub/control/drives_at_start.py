"""Consent to a Drive where none can be brought into a running runtime (drives: subpath): its notebook's next ones start with it.

The consent is the call to mount, as everywhere. Here it is written into the record of the runtime that asked, handed on from a
notebook's runtime to its next one, and ends when the Drive is taken away. Nothing else ever puts a Drive into a runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quota.clock import Clock
from quota.model import Filter, Session
from quota.ports import Ledger
from spawner.model import DriveAtStart
from storage_mount.service import DriveService

AGREED, WITHDRAWN = "drive_agreed", "drive_withdrawn"


@dataclass(frozen=True)
class Agreed:
    """What a user agreed to: their drive, at `path` inside."""

    folder: Path
    path: str
    readonly: bool

    @property
    def drive(self) -> DriveAtStart:
        return DriveAtStart(self.folder.name, self.readonly)


class DrivesAtStart:
    """The consents. Not `needed`: Drives come into running runtimes, and nothing is kept here."""

    def __init__(self, ledger: Ledger, drive: DriveService, clock: Clock, *, needed: bool) -> None:
        self._ledger, self._drive, self._clock, self.needed = ledger, drive, clock, needed

    def agree(self, session: Session, path: str, *, readonly: bool) -> None:
        """Note that the user wants their Drive in the next runtimes of this one's notebook."""
        self._record(session, AGREED, {"path": path, "readonly": readonly})

    def withdraw(self, session: Session) -> None:
        """Note that they do not any more."""
        if self.needed and self._last(session) is not None:
            self._record(session, WITHDRAWN, {})

    def hand_on(self, session: Session) -> None:
        """Let a new session have what the last one of its notebook had."""
        if not self.needed:
            return
        found, _ = self._ledger.find(Filter(session.user, session.file_id), 0, 2)
        for earlier in found:
            if earlier.id != session.id:
                agreed = self._last(earlier)
                if agreed is not None:
                    self._record(session, AGREED, agreed)
                return

    def of(self, session: Session) -> Agreed | None:
        """Return what the session's runtime is to start with."""
        agreed = self._last(session) if self.needed else None
        if agreed is None:
            return None
        folder = self._drive.drive_folder(session.user)
        return Agreed(folder, str(agreed["path"]), bool(agreed["readonly"]))

    def _last(self, session: Session) -> dict[str, object] | None:
        """Return the consent that holds for a session."""
        for event, detail, _ in reversed(self._ledger.events(session.id)):
            if event in (AGREED, WITHDRAWN):
                return detail if event == AGREED else None
        return None

    def _record(self, session: Session, event: str, detail: dict[str, object]) -> None:
        self._ledger.record(session.id, event, detail, self._clock.now())
