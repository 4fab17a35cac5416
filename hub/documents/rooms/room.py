"""One open notebook: who is in it, what they type, and when it is on the disk.

Order of a save: the merge history is committed, then the file is replaced, then the page is told that nothing is unsaved. The
file is only replaced when it is still the version this room last saw; a version that came from outside (a kernel that wrote
the same file through the mount) is taken over when nobody has unsaved edits here, and kept as a second file when somebody has.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Sequence
from typing import Protocol, cast

from hub.documents.rooms import shape, wire
from hub.documents.rooms.form import content_digest, digest, dump, parse
from hub.documents.rooms.outputs import Told
from hub.documents.rooms.shape import Json, NotShareable, Object
from hub.documents.rooms.shelf import ChangedOutside, Shelf, ShelfError, Version
from hub.documents.rooms.store import History, HistoryStore, SavedAs
from hub.documents.rooms.writer import Answer, OutputWriter
from hub.documents.rooms.ydoc import SharedNotebook
from quota.clock import Clock

log = logging.getLogger(__name__)

QUIET_SECONDS = 0.7  # a save begins when nobody has typed for this long
LONGEST_WAIT_SECONDS = 4.0  # ... or when the first unsaved edit is this old
FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 30.0


class Visitor(Protocol):
    """One page that has the notebook open."""

    async def check(self) -> None:
        """Leave when the user may no longer be here."""
        ...

    def send(self, message: bytes) -> None:
        """Send a message, or do nothing when the page has gone."""
        ...


class Room:
    """An open notebook. `readonly`: nobody's edits are merged, and nothing is saved."""

    def __init__(
        self,
        file_id: str,
        shelf: Shelf,
        history: HistoryStore,
        clock: Clock,
        *,
        readonly: bool,
        max_bytes: int,
    ) -> None:
        self.file_id = file_id
        self.readonly = readonly
        self.epoch = ""
        self.visitors: set[Visitor] = set()
        self._presence: dict[int, tuple[wire.Presence, Visitor]] = {}
        self._shelf = shelf
        self._history = history
        self._clock = clock
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()
        self._outbox: list[bytes] = []
        self._edits = 0  # counts merged edits
        self._saved_edits = 0  # how many of them the file holds
        self._first_unsaved = 0.0
        self._last_edit = 0.0
        self._autosave: asyncio.Task[None] | None = None
        self._shared = SharedNotebook(self._outbox.append)
        self._base: Object = {}
        self._before: Object = {}
        self._at = Version("", "")
        self._digest = ""
        self._recorded = False  # whether the history has this room
        self._outputs = OutputWriter(lambda: self._shared, clock)

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Load the notebook; raise ShelfError or NotShareable."""
        raw, self._at = await self._shelf.load()
        self._digest = digest(raw)
        document = await asyncio.to_thread(parse, raw)
        known = await self._recall()
        if known is None or not await self._resume(known.updates):
            await self._begin(document)
        else:
            self.epoch, self._recorded = known.epoch, True
            self._tell(saveState=None, notice=None)
            ours = next((v for v in (known.saved, known.writing) if v and v.digest == self._digest), None)
            if ours is not None:
                self._set_base(document, ours.ids)
                if not shape.same(self._shared.read(), self._before):
                    self._edited()  # the last save did not come about
            elif known.saved.content == content_digest(self._shared.read()) or self.readonly:
                self._take_over(document)
            else:
                await self._keep_both(raw, document)
        self._tell(path=f"{self.file_id}/{self._at.name}", hash=self._digest)

    async def _recall(self) -> History | None:
        try:
            return await self._history.load(self.file_id)
        except sqlite3.Error as error:
            raise ShelfError(f"The notebook's history can not be read: {error}.") from error

    async def _resume(self, updates: tuple[bytes, ...]) -> bool:
        try:
            for update in updates:
                self._shared.merge(update)
            self._shared.read()
        except NotShareable:
            log.exception(
                "the merge history of %s is damaged; beginning a new one from the file", self.file_id
            )
            self._shared.close()
            self._shared = SharedNotebook(self._outbox.append)
            return False
        finally:
            self._outbox.clear()
        return True

    async def _begin(self, document: Object) -> None:
        self.epoch = secrets.token_urlsafe(18)
        self._set_base(document, ())
        self._shared.replace(self._before)
        self._outbox.clear()
        try:
            await self._record()
        except sqlite3.Error as error:  # a full disk does not keep anybody from reading
            log.warning("the history of %s can not be written yet: %s", self.file_id, error)
            self.tell_problem(f"Changes can not be saved now: {error}. They are kept in this page.")

    async def _record(self) -> None:
        """Put this room into the history as it is now."""
        version, update = self._saved_as(self._digest, self._before), self._shared.updates_since()
        await self._history.begin(self.file_id, self.epoch, version, update, self._clock.now())
        self._recorded = True

    def _set_base(self, document: Object, known_ids: tuple[str, ...]) -> None:
        self._base = document
        self._before = shape.to_shared(document, shape.cell_ids(document, known_ids))

    def _saved_as(self, file_digest: str, shared: Object) -> SavedAs:
        cells = cast("list[Object]", shared["cells"])
        return SavedAs(file_digest, tuple(str(c["id"]) for c in cells), content_digest(shared))

    async def close(self) -> None:
        """Save what is unsaved and forget the room; raise ShelfError or NotShareable when it can not be saved."""
        if self._autosave is not None:
            self._autosave.cancel()
            await asyncio.gather(self._autosave, return_exceptions=True)
            self._autosave = None
        try:
            if self.unsaved:
                await self.save()
        except BaseException:
            self._edited()  # keep trying
            raise
        if self._recorded:
            await self._history.compact(self.file_id, self._shared.updates_since(), self._clock.now())
        self._shared.close()

    async def abandon(self) -> None:
        """Forget the room of a file that is gone. Its edits stay in the history, for when it comes back."""
        if self._autosave is not None:
            self._autosave.cancel()
            await asyncio.gather(self._autosave, return_exceptions=True)
        await self._history.flush()
        self._shared.close()

    @property
    def unsaved(self) -> bool:
        """Whether there are edits that the file does not hold."""
        return self._edits != self._saved_edits

    @property
    def name(self) -> str:
        """Present name of the file."""
        return self._at.name

    # -- pages --------------------------------------------------------------------------------------------------

    def enter(self, visitor: Visitor) -> None:
        """A page opened the notebook: tell it what we have and who is here."""
        self.visitors.add(visitor)
        visitor.send(wire.sync(wire.STEP1, self._shared.state_vector()))
        if self._presence:
            visitor.send(wire.presence([entry for entry, _ in self._presence.values()]))

    def leave(self, visitor: Visitor) -> None:
        """A page closed the notebook, or lost its connection."""
        self.visitors.discard(visitor)
        gone = [e for e, who in self._presence.values() if who is visitor]
        for entry in gone:
            del self._presence[entry.client]
        self._outputs.left(e.client for e in gone)
        if gone:
            self._send(wire.presence([wire.Presence(e.client, e.clock + 1, None) for e in gone]))

    def answer(self, state_vector: bytes) -> bytes:
        """Return the message with what a page is missing; raise NotShareable."""
        return wire.sync(wire.STEP2, self._shared.updates_since(state_vector))

    def merge(self, update: bytes, visitor: Visitor) -> None:
        """Merge a page's edit, pass it on, and save it soon; raise NotShareable."""
        if self.readonly:
            return
        self._outputs.heard(client for client, (_, who) in self._presence.items() if who is visitor)
        self._outputs.before_merge()
        try:
            self._shared.merge(update)
            self._outputs.repair()
        finally:
            changed = self._flush_outbox(visitor)
        if changed:
            self._edited()

    def present(self, entries: list[wire.Presence], visitor: Visitor) -> None:
        """Pass on what a page says about itself. It can not speak for a page of somebody else.

        Everybody may open a read-only example; who else reads it is nobody's business.
        """
        if self.readonly:
            visitor.send(wire.presence([]))
            return
        own = [e for e in entries if self._presence.get(e.client, (e, visitor))[1] is visitor]
        for entry in own:
            if entry.state is None:
                self._presence.pop(entry.client, None)
                self._outputs.left([entry.client])
            else:
                self._presence[entry.client] = (entry, visitor)
                self._outputs.heard([entry.client])
        self._send(wire.presence(own), but=None if own else visitor)
        if not own:
            visitor.send(wire.presence([]))  # the page takes silence for a lost connection

    # -- outputs that no page writes ------------------------------------------------------------------------------

    @property
    def awaits_outputs(self) -> bool:
        """Whether a runtime still tells of cells of this notebook."""
        return self._outputs.busy

    def deliver(self, found: Sequence[Told]) -> Answer:
        """Take in what a runtime tells of its cells; see hub.documents.rooms.outputs for who writes it."""
        if self.readonly:
            return Answer(tuple(told.run for told in found), ())
        answer = self._outputs.deliver(found)
        if self._flush_outbox(None):
            self._edited()
        return answer

    def look_at_outputs(self) -> None:
        """Write what has become ours to write since."""
        if self._outputs.busy:
            self._outputs.look()
            if self._flush_outbox(None):
                self._edited()

    def tell_problem(self, message: str | None) -> None:
        """Show `message` on every page until it is taken away with None."""
        value: Json = None
        if message is not None:
            value = {"status": "failed", "message": message, "since": self._clock.now().isoformat()}
        told = self._shared.told("saveState")
        if (told is None) != (message is None) or (isinstance(told, dict) and told.get("message") != message):
            self._tell(saveState=value)

    def _tell(self, **values: Json) -> None:
        self._shared.tell(**values)
        self._flush_outbox(None)

    def _flush_outbox(self, origin: Visitor | None) -> bool:
        """Remember and send the updates made since the last call. The origin gets only what we added to its own."""
        if not self._outbox:
            return False
        from pycrdt import merge_updates

        several = len(self._outbox) > 1
        update = merge_updates(*self._outbox) if several else self._outbox[0]
        self._outbox.clear()
        if self._recorded:
            self._history.append(self.file_id, update)
        self._send(wire.sync(wire.UPDATE, update), but=None if several else origin)
        return True

    def _send(self, message: bytes, *, but: Visitor | None = None) -> None:
        for visitor in list(self.visitors):
            if visitor is not but:
                visitor.send(message)

    # -- saving -------------------------------------------------------------------------------------------------

    def _edited(self) -> None:
        now = self._clock.boottime()
        if not self.unsaved:
            self._first_unsaved = now
        self._last_edit = now
        self._edits += 1
        if self._autosave is None or self._autosave.done():
            self._autosave = asyncio.create_task(self._save_soon(), name=f"autosave {self.file_id}")

    async def _save_soon(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while self.unsaved:
            now = self._clock.boottime()
            due = min(self._last_edit + QUIET_SECONDS, self._first_unsaved + LONGEST_WAIT_SECONDS)
            if due > now:
                await asyncio.sleep(due - now)
                continue
            try:
                await self.save()
                retry = FIRST_RETRY_SECONDS
            except (ShelfError, NotShareable, sqlite3.Error) as error:
                log.warning("%s could not be saved, trying again in %.0f s: %s", self.file_id, retry, error)
                await asyncio.sleep(retry)
                retry = min(retry * 2, LONGEST_RETRY_SECONDS)

    async def save(self) -> None:
        """Return when every edit merged so far is in the file, durably; raise ShelfError, NotShareable or sqlite3.Error."""
        async with self._lock:
            try:
                await self._save()
            except (ShelfError, NotShareable) as error:
                self.tell_problem(str(error))
                raise
            except sqlite3.Error as error:
                self.tell_problem(
                    f"The notebook's history can not be written ({error}). Your edits are kept in this page."
                )
                raise
            self.tell_problem(None)

    async def _save(self) -> None:
        edits = self._edits
        now = self._shared.read()
        if not shape.same(now, self._before):
            document, raw = await asyncio.to_thread(self._render, now)
            if len(raw) > self._max_bytes:
                raise ShelfError(
                    f"The notebook is larger than {self._max_bytes >> 20} MiB and was not saved. Clear some outputs."
                )
            await self._write(raw, now)
            self._base, self._before = document, now
        self._saved_edits = edits
        self._first_unsaved = self._last_edit
        if not self.unsaved:
            self._tell(dirty=False, hash=self._digest)

    def _render(self, now: Object) -> tuple[Object, bytes]:
        document = shape.to_file(self._base, self._before, now)
        return document, dump(document)

    async def _write(self, raw: bytes, shared: Object) -> None:
        version = self._saved_as(digest(raw), shared)
        await self._announce(version)
        while True:
            try:
                self._at = await self._shelf.store(raw, self._at.etag)
                break
            except ChangedOutside:
                outside, self._at = await self._shelf.load()
                if digest(outside) not in (self._digest, version.digest):
                    await self._put_aside(outside)
                self._digest = digest(outside)
        self._digest = version.digest
        await self._history.saved(self.file_id, version)

    async def _announce(self, version: SavedAs) -> None:
        """Make sure that the history holds everything the file is about to hold."""
        if not self._recorded:
            await self._record()
        await self._history.flush()
        await self._history.writing(self.file_id, version)

    # -- changes from outside -----------------------------------------------------------------------------------

    async def look_outside(self) -> None:
        """Notice a new name and a new content; raise ShelfError."""
        at = await self._shelf.version()
        if at == self._at:
            return
        async with self._lock:
            at = await self._shelf.version()
            if at.name != self._at.name:
                self._tell(path=f"{self.file_id}/{at.name}")
                self._at = Version(at.name, self._at.etag)
            if at.etag == self._at.etag:
                return
            raw, at = await self._shelf.load()
            if digest(raw) == self._digest:
                self._at = at
                return
            if self.unsaved:
                return  # the save that is due meets the other version and keeps both
            try:
                document = await asyncio.to_thread(parse, raw)
            except NotShareable as error:
                self.tell_problem(f"The file was changed outside this page and is no notebook now: {error}")
                return
            if self.unsaved:
                return
            self._at, self._digest = at, digest(raw)
            self._take_over(document)
            self.tell_problem(None)
            await self._remember()

    def _take_over(self, document: Object) -> None:
        """Make the pages show what the file holds."""
        read = self._shared.read()
        cells = cast("list[Object]", read["cells"])
        known = tuple(str(c["id"]) for c in cells)
        with_ids = all("id" in cell for cell in cast("list[Object]", document.get("cells", [])))
        self._set_base(document, () if with_ids else known)
        self._shared.replace(self._before)
        self._tell(dirty=False, hash=self._digest)

    async def _keep_both(self, raw: bytes, document: Object) -> None:
        """The room was opened with edits that were never saved, and the file changed meanwhile."""
        self._set_base(document, ())
        if not self.readonly:
            await self._put_aside(raw)
        self._edited()

    async def _put_aside(self, raw: bytes) -> None:
        name = await self._shelf.put_aside(raw, "changed outside")
        log.warning(
            "%s was changed outside while it had unsaved edits; that version is kept as %r",
            self.file_id,
            name,
        )
        self._tell(
            notice={
                "message": f"This notebook was changed outside this page. That version is kept as “{name}”.",
                "at": self._clock.now().isoformat(),
            }
        )

    async def _remember(self) -> None:
        if not self._recorded:
            await self._record()
        await self._history.flush()
        await self._history.saved(self.file_id, self._saved_as(self._digest, self._before))

    # -- REST ---------------------------------------------------------------------------------------------------

    async def replace(self, raw: bytes, replaces: str | None) -> Version:
        """Make `raw` the content, for the pages too. Raise ChangedOutside when the etag is not `replaces`; else as `save`."""
        document = await asyncio.to_thread(parse, raw)
        async with self._lock:
            if self.unsaved:
                await self._save()
            if replaces is not None and replaces != self._at.etag:
                raise ChangedOutside("File changed since you opened it.")
            shared = shape.to_shared(document, shape.cell_ids(document))
            version = self._saved_as(digest(raw), shared)
            await self._announce(version)
            self._at = await self._shelf.store(raw, self._at.etag)
            self._digest = version.digest
            self._base, self._before = document, shared
            edits_meanwhile = self.unsaved
            self._shared.replace(shared)
            self._flush_outbox(None)
            if not edits_meanwhile:
                self._tell(dirty=False, hash=self._digest)
            await self._remember()
            return self._at
