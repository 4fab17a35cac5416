"""Coming and going of a browser, and who it is."""

from __future__ import annotations

import json
from typing import Any

from hub.documents.pages import PageHandler
from hub.documents.rooms.handler import page_user
from hub.web.handlers import ApiHandler


class OAuthCallback(PageHandler):
    """`oauth_callback`: the hub sends the browser back with a code."""

    async def prepare(self) -> None:
        """Nobody is signed in yet."""

    async def get(self) -> None:
        self.redirect(await self.identity.finish_sign_in(self))


class Logout(PageHandler):
    """`logout`: forget the session here and at the hub."""

    async def prepare(self) -> None:
        """Also for those whose session has ended."""

    async def get(self) -> None:
        self.identity.sign_out(self)
        self.redirect("/hub/logout")


class Me(ApiHandler):
    """`api/me`, in Jupyter's words."""

    async def get(self) -> None:
        permissions: dict[str, Any] = {"updatable_fields": []}
        self.reply({"identity": page_user(self.user), "permissions": permissions})


class Health(ApiHandler):
    """`healthz`: this process answers."""

    async def prepare(self) -> None:
        """For everybody."""

    async def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"status": "ok"}))
