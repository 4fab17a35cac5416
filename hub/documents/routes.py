"""Every address this service answers, in one table, and the guard that nothing else is answered.

`table` makes the application. `check` compares what the application really serves with the committed list `allowed_routes.txt`, by pattern
and handler; an address that is not on the list stops the process at start. Whoever adds an address adds it here, and says who
may use it (`tests/integration/documents/test_access.py` walks all of them as another user and as nobody).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tornado import web
from tornado.routing import PathMatches, Rule

from hub.documents.assets import asset_route, inside
from hub.documents.contents import CheckpointsHandler, ContentsHandler, FilesHandler
from hub.documents.jupyter_api import ExportFormats
from hub.documents.labextensions import Programs
from hub.documents.pages import BASE, DrivePage, ExamplesPage, FilePage, NotebookAddress, PageHandler
from hub.documents.preferences import SettingsHandler, TranslationsHandler, WorkspacesHandler
from hub.documents.rooms.handler import RoomHandler, SessionHandler
from hub.documents.sign_in import Health, Logout, Me, OAuthCallback
from hub.web.handlers import NotFoundHandler

Route = tuple[Any, ...]


class UnknownRoutes(Exception):
    """The application answers addresses that nobody allowed; the text lists them."""


def table(programs: Programs, static: Path) -> list[Route]:
    """Return the routes of this package; those of `hub.documents.api` come beside them."""
    b = re.escape(BASE)
    return [
        (b + r"healthz", Health),
        (b + r"oauth_callback", OAuthCallback),
        (b + r"logout", Logout),
        # pages
        (r"/drive(?:/.*)?", DrivePage),
        (r"/d/([^/]+)/?", FilePage),
        (r"/examples/?([^/]*)", ExamplesPage),
        (b + r"notebooks/(.+)", NotebookAddress),
        # what the notebook page asks for
        (b + r"api/me", Me),
        (b + r"api/contents/?(.+)/checkpoints", CheckpointsHandler),
        (b + r"api/contents/?(.*)", ContentsHandler),
        (b + r"api/nbconvert", ExportFormats),
        (b + r"files/(.+)", FilesHandler),
        (b + r"api/collaboration/session/(.+)", SessionHandler),
        (b + r"api/collaboration/room/([^/]+)", RoomHandler),
        (b + r"lab/api/settings/?(.*)", SettingsHandler),
        (b + r"lab/api/workspaces/?(.*)", WorkspacesHandler),
        (b + r"lab/api/translations/?(.*)", TranslationsHandler),
        # assets
        asset_route(b + r"lab/api/themes/(.+)", programs.find_theme),
        asset_route(b + r"lab/extensions/(.+)", programs.find_extension_file),
        asset_route(b + r"static/notebook/(.+)", programs.find_static),
        asset_route(b + r"assets/(.+)", lambda path: inside(static, path)),
    ]


class NoSuchPage(PageHandler):
    """Any other address outside the APIs."""

    async def get(self, *_: str) -> None:
        self.not_found_page("There is nothing at this address.")


LAST: list[Route] = [
    (re.escape(BASE) + r"(?:api|lab|static|assets)(?:/.*)?", NotFoundHandler),
    (r"/.*", NoSuchPage),
]


def served(application: web.Application) -> set[tuple[str, str]]:
    """Return (pattern, handler) of everything the application answers."""
    return set(_rules([*application.default_router.rules, *application.wildcard_router.rules]))


def _rules(rules: Iterable[Rule]) -> Iterable[tuple[str, str]]:
    for rule in rules:
        target = rule.target
        inner = getattr(target, "rules", None)
        if inner is not None:
            yield from _rules(inner)
            continue
        pattern = rule.matcher.regex.pattern if isinstance(rule.matcher, PathMatches) else repr(rule.matcher)
        name = f"{target.__module__}.{target.__qualname__}" if isinstance(target, type) else repr(target)
        yield pattern, name


def check(application: web.Application, allowed: Iterable[tuple[str, str]]) -> None:
    """Raise UnknownRoutes when the application answers an address that is not allowed."""
    unknown = sorted(served(application) - set(allowed))
    if unknown:
        lines = "\n".join(f"  {pattern}  ->  {handler}" for pattern, handler in unknown)
        raise UnknownRoutes(
            f"these addresses are not on the allow-list (hub/documents/allowed_routes.txt):\n{lines}"
        )


def allowed_routes() -> dict[tuple[str, str], str]:
    """Return the committed allow-list, with who may use each address: `public`, `user` or `file`."""
    text = Path(__file__).with_name("allowed_routes.txt").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    return {(pattern, handler): who for pattern, handler, who in rows}
