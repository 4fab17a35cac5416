"""The websocket of a page that has a notebook open, and the request that precedes it.

Who the user is and what they may do is known before a room is opened, and asked again for every message: a page whose user
lost the right to edit is read-only from its next message on, one whose user lost the file is closed.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable
from typing import Any

from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from hub.documents.jupyter_api import JupyterHandler
from hub.documents.library import Library
from hub.documents.rooms import wire
from hub.documents.rooms.room import Room
from hub.documents.rooms.rooms import Rooms
from hub.documents.rooms.shape import NotShareable
from hub.documents.rooms.shelf import Gone, ShelfError
from hub.web.body import text_field
from hub.web.errors import ApiError, bad_request, not_found
from hub.web.identity import HubIdentity, User
from hub.web.storage import as_api_errors
from quota.clock import Clock
from storage_mount.model import FileType, Role

log = logging.getLogger(__name__)

ROLE_SECONDS = 0.5  # how long an answer about a role is believed
MAX_PRESENCE_BYTES = 64 << 10
ROOM_FORMAT, ROOM_TYPE = "json", "notebook"
SIGNED_OUT, NOT_YOURS, NOT_FOUND, BAD_NOTEBOOK, FAILED = 4401, 4403, 4404, 4400, 4500
OTHER_HISTORY = 1003


def room_error(error: ShelfError | NotShareable) -> ApiError:
    """Return how REST answers a room that can not be opened or saved."""
    if isinstance(error, Gone):
        return not_found()
    if isinstance(error, NotShareable):
        return ApiError(422, "bad_notebook", str(error))
    return ApiError(503, "storage_error", str(error))


class SessionHandler(JupyterHandler):
    """`PUT api/collaboration/session/<file id>/<name>`: which room holds this notebook, and which history it has."""

    async def put(self, path: str) -> None:
        body = self.json_body()
        for name, wanted in (("format", ROOM_FORMAT), ("type", ROOM_TYPE)):
            if text_field(body, name) != wanted:
                raise bad_request("bad_room", "Only notebooks can be edited together.", field=name)
        library: Library = self.settings["library"]
        with as_api_errors():
            entry = await library.entry(self.user.name, path.split("/")[0])
        if entry.type is not FileType.NOTEBOOK:
            raise bad_request("not_a_notebook", "Only notebooks can be edited together.")
        rooms: Rooms = self.settings["rooms"]
        try:
            room = await rooms.join(entry.id)
        except (ShelfError, NotShareable) as error:
            raise room_error(error) from error
        self.reply(
            {"format": ROOM_FORMAT, "type": ROOM_TYPE, "fileId": entry.id, "sessionId": room.epoch},
        )


class RoomHandler(WebSocketHandler):
    """`api/collaboration/room/json:notebook:<file id>`: one page in one room."""

    user: User
    room: Room | None = None

    @property
    def identity(self) -> HubIdentity:
        identity: HubIdentity = self.settings["identity"]
        return identity

    @property
    def max_message_size(self) -> int:
        return int(self.settings["max_notebook"]) + (1 << 20)

    def check_origin(self, origin: str) -> bool:
        """The identity has already refused a cookie from another origin; a bearer token proves itself."""
        return True

    def check_xsrf_cookie(self) -> None:
        """See `check_origin`."""

    async def prepare(self) -> None:
        try:
            user = await self.identity.user(self)
        except ApiError as error:
            raise web.HTTPError(error.status) from None
        if user is None:
            raise web.HTTPError(401)
        self.user = user
        kind, _, self.file_id = self.path_args[0].rpartition(":")
        if kind != f"{ROOM_FORMAT}:{ROOM_TYPE}":
            raise web.HTTPError(404)
        self._role: Role | None = None
        self._asked = float("-inf")
        self._clock: Clock = self.settings["clock"]
        self._pages: set[int] = set()
        if await self.role() is None:
            raise web.HTTPError(404)

    async def role(self) -> Role | None:
        """Return what the user may do now; None when nothing, or no longer signed in."""
        now = self._clock.boottime()
        if now - self._asked >= ROLE_SECONDS:
            library: Library = self.settings["library"]
            self._role = await library.role(self.user.name, self.file_id)
            self._asked = now
        return self._role

    async def signed_in(self) -> bool:
        """Return whether the token or cookie this page came with still holds."""
        try:
            user = await self.identity.user(self)
        except ApiError:
            return True  # the hub does not answer; who was known stays known
        return user is not None and user.name == self.user.name

    async def check(self) -> None:
        if not await self.signed_in():
            self.close(SIGNED_OUT, "signed out")
        elif await self.role() is None:
            self.close(NOT_YOURS, "the file is no longer shared with you")

    async def open(self, *args: str, **kwargs: str) -> None:
        rooms: Rooms = self.settings["rooms"]
        try:
            room = await rooms.join(self.file_id)
        except Gone:
            self.close(NOT_FOUND, "no such file")
            return
        except NotShareable:
            self.close(BAD_NOTEBOOK, "the file is no notebook")
            return
        except ShelfError:
            log.exception("the room of %s can not be opened", self.file_id)
            self.close(FAILED, "the file can not be read")
            return
        if self.get_query_argument("sessionId", "") != room.epoch:
            # A page with another history must not merge: everything would be there twice.
            self.close(OTHER_HISTORY, '{"reason":"unknown_session","sessionId":"","reloadable":true}')
            return
        if self.ws_connection is None:
            return
        self.room = room
        room.enter(self)

    def send(self, message: bytes) -> None:
        try:
            self.write_message(message, binary=True).add_done_callback(_ignore_closed)
        except WebSocketClosedError:
            return

    def on_close(self) -> None:
        if self.room is not None:
            self.room.leave(self)
            if not self.room.visitors:
                rooms: Rooms = self.settings["rooms"]
                rooms.linger(self.file_id)

    async def on_message(self, message: str | bytes) -> None:
        room = self.room
        if room is None or isinstance(message, str):
            return
        role = await self.role()
        if role is None or not await self.signed_in():
            await self.check()
            return
        may_edit = role.allows(Role.EDITOR) and not room.readonly
        try:
            await self._handle(room, wire.Reader(message), may_edit=may_edit)
        except wire.BadMessage as error:
            log.info("%s sent a bad message to %s: %s", self.user.name, self.file_id, error)
            self.close(1002, "bad message")
        except NotShareable as error:
            log.warning("an edit of %s in %s can not be merged: %s", self.user.name, self.file_id, error)
            self.send(wire.text({"type": "conflict"}))

    async def _handle(self, room: Room, reader: wire.Reader, *, may_edit: bool) -> None:
        kind = reader.number()
        if kind == wire.SYNC:
            step, data = reader.number(), reader.bytes()
            if step == wire.STEP1:
                self.send(room.answer(data))
            elif step in (wire.STEP2, wire.UPDATE):
                if may_edit:
                    room.merge(data, self)
            else:
                raise wire.BadMessage("no such step")
        elif kind == wire.AWARENESS:
            data = reader.bytes()
            if len(data) > MAX_PRESENCE_BYTES:
                raise wire.BadMessage("the presence is too large")
            room.present([self._signed(entry) for entry in wire.read_presence(data)], self)
        elif kind == wire.TEXT:
            await self._save(room, reader, may_edit=may_edit)
        else:
            raise wire.BadMessage("no such kind of message")

    def _signed(self, entry: wire.Presence) -> wire.Presence:
        """Return the entry with the true name of its user."""
        if entry.state is None or not isinstance(entry.state.get("user"), dict):
            return entry
        user = {**page_user(self.user), "color": _color(entry.state["user"])}
        return wire.Presence(entry.client, entry.clock, {**entry.state, "user": user})

    async def _save(self, room: Room, reader: wire.Reader, *, may_edit: bool) -> None:
        if reader.text() != "save":
            return
        number = reader.number()
        status = "failed"
        if may_edit:
            try:
                await room.save()
                status = "success"
            except (ShelfError, NotShareable, sqlite3.Error) as error:
                log.warning("%s could not be saved: %s", self.file_id, error)
        self.send(wire.text({"type": "save", "responseTo": number, "status": status}))


def page_user(user: User) -> dict[str, Any]:
    """Return how the page shows a user, in Jupyter's words."""
    return {
        "username": user.name,
        "name": user.name,
        "display_name": user.name,
        "initials": user.name[:1].upper(),
        "avatar_url": None,
        "color": None,
    }


def _color(user: object) -> str | None:
    color = user.get("color") if isinstance(user, dict) else None
    return color if isinstance(color, str) and len(color) <= 64 else None


def _ignore_closed(sent: Awaitable[None]) -> None:
    """A page that goes away while we write to it is no error; `on_close` follows."""
    error = getattr(sent, "exception", lambda: None)()
    if error is not None and not isinstance(error, WebSocketClosedError):
        log.info("writing to a page failed: %s", error)
