"""What cells printed, as control brings it from their runtime: written to the document when no page does it."""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

from hub.documents.api.base import DriveHandler
from hub.documents.examples import PREFIX
from hub.documents.rooms.handler import room_error
from hub.documents.rooms.outputs import MAX_EXECUTIONS, Told, read_told
from hub.documents.rooms.shape import NotShareable
from hub.documents.rooms.shelf import ShelfError
from hub.web.body import only_fields, text_field
from hub.web.errors import ApiError, bad_request, denied, not_found
from hub.web.identity import HubIdentity, bearer_token
from storage_mount.model import FileType, Role

MAX_BODY_BYTES = 128 << 20  # a runtime records less of one kernel


class OutputsHandler(DriveHandler):
    """`files/<id>/outputs`: for the control service alone, on behalf of the user whose runtime it is.

    The body has `runtime_id`, `user`, `ended` and `executions`: those the runtime recorded, with or without their outputs.
    The answer names the `settled` ones, of which nothing more is to be told, and the ones whose outputs are `wanted`.
    """

    @classmethod
    def body_limit(cls, settings: dict[str, Any]) -> int:
        return MAX_BODY_BYTES

    async def prepare(self) -> None:
        token = bearer_token(self)
        if token is None:
            raise ApiError(
                401,
                "not_signed_in",
                "Only the control service may do this.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not await self._is_controls(token):
            raise denied("denied", "Only the control service may do this.")

    async def _is_controls(self, token: str) -> bool:
        """Return whether a token is control's; in a cluster documents does not hold it, and asks the hub."""
        known = self.service.control_token
        if known:
            return hmac.compare_digest(token.encode(), known.encode())
        identity: HubIdentity = self.settings["identity"]
        return await identity.service_of(token) == "control"

    async def post(self, file_id: str) -> None:
        # Not parsed as a person's body is: that is a character at a time, and a picture has millions.
        body = await asyncio.to_thread(_parse, self.request.body)
        only_fields(body, {"runtime_id", "user", "ended", "executions"})
        user, runtime_id = text_field(body, "user"), text_field(body, "runtime_id")
        found = await asyncio.to_thread(_read, runtime_id, body)
        role = await self.library.role(user, file_id)
        if role is None:
            raise not_found()
        if file_id.startswith(PREFIX) or not role.allows(Role.EDITOR):
            raise denied("denied", f"{user} may not change this file.")
        entry = await self.library.entry(user, file_id)
        if entry.type is not FileType.NOTEBOOK:
            raise bad_request("not_a_notebook", "Only notebooks have outputs.")
        try:
            answer = await self.rooms.deliver(file_id, found)
        except (ShelfError, NotShareable) as error:
            raise room_error(error) from error
        self.reply({"settled": answer.settled, "wanted": answer.wanted})


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise bad_request("bad_json", "Request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise bad_request("bad_body", "Request body must be a JSON object.")
    return body


def _read(runtime_id: str, body: dict[str, Any]) -> list[Told]:
    executions, ended = body.get("executions"), body.get("ended", False)
    if not isinstance(executions, list) or len(executions) > MAX_EXECUTIONS:
        raise bad_request(
            "bad_type", f"executions must be a list of at most {MAX_EXECUTIONS}.", field="executions"
        )
    if not isinstance(ended, bool):
        raise bad_request("bad_type", "ended must be true or false.", field="ended")
    found = (read_told(runtime_id, value, over=ended) for value in executions)
    return [told for told in found if told is not None]
