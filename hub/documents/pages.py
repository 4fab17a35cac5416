"""Pages for people: Drive, a notebook, and messages. Who is not signed in is sent to sign in and comes back."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, select_autoescape
from tornado import web

from hub.documents.examples import PREFIX, Examples
from hub.documents.library import Library
from hub.documents.rooms.handler import page_user
from hub.documents.rooms.rooms import Rooms
from hub.documents.rooms.shape import NotShareable
from hub.documents.rooms.shelf import Gone, ShelfError
from hub.settings import Service
from hub.web.errors import ApiError
from hub.web.handlers import http_error
from hub.web.identity import HubIdentity, User, user_model
from storage_mount.errors import InTrash, NotFound, StorageError
from storage_mount.model import FileEntry, FileType, Role

log = logging.getLogger(__name__)

BASE = "/services/documents/"
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def make_templates(ours: Path, notebook: Path) -> Environment:
    """Return the page templates: ours, then those of Notebook 7."""
    return Environment(
        loader=FileSystemLoader([ours, notebook / "templates"]), autoescape=select_autoescape(default=True)
    )


@dataclass(frozen=True)
class Link:
    """A button of a message page."""

    href: str
    text: str
    download: bool = False


TO_DRIVE = Link("/drive", "Go to Drive")


class PageHandler(web.RequestHandler):
    """A signed-in HTML page."""

    user: User

    @property
    def identity(self) -> HubIdentity:
        identity: HubIdentity = self.settings["identity"]
        return identity

    @property
    def library(self) -> Library:
        library: Library = self.settings["library"]
        return library

    @property
    def service(self) -> Service:
        service: Service = self.settings["service"]
        return service

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

    def check_xsrf_cookie(self) -> None:
        """Pages change nothing, and HubIdentity refuses cookies from other sites where something is changed."""

    async def prepare(self) -> None:
        user = await self.identity.user(self)
        if user is None:
            self.redirect(self.identity.begin_sign_in(self, self.request.uri or "/drive"))
            return
        self.user = user

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise ApiError(404, "not_found", "No such address.") from None

    def message(self, status: int, title: str, lines: list[str], links: list[Link]) -> None:
        """Finish with a page that says something."""
        templates: Environment = self.settings["templates"]
        self.set_status(status)
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'",
        )
        self.finish(
            templates.get_template("documents/message.html").render(
                title=title, lines=lines, links=links, base_url=BASE
            )
        )

    def not_found_page(self, sentence: str | None = None) -> None:
        self.message(
            404,
            "We can't find that file",
            [
                sentence
                or "It may have been deleted, or it is not shared with you. Ask its owner, or look for it in your Drive.",
            ],
            [TO_DRIVE],
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if not isinstance(error, ApiError):
            error = http_error(status_code, error)
        if error.status == 404:
            self.not_found_page()
            return
        for name, value in error.headers.items():
            self.set_header(name, value)
        self.message(error.status, "That did not work", [error.message], [TO_DRIVE])

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        super().send_error(error.status if isinstance(error, ApiError) else status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if not isinstance(value, (ApiError, web.HTTPError)):
            log.error("%s %s failed", self.request.method, self.request.path[:200], exc_info=(typ, value, tb))


class DrivePage(PageHandler):
    """`/drive...`: the page finds out by itself which folder it shows."""

    async def get(self, *_: str) -> None:
        page: Path = self.settings["drive_page"]
        try:
            html = page.read_bytes()
        except OSError:
            raise ApiError(503, "not_built", "The Drive page is missing from this installation.") from None
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
            "font-src 'self' data:; connect-src 'self'; media-src 'self' blob:; frame-src 'self' blob:; "
            "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        )
        self.finish(html)


class ExamplesPage(PageHandler):
    """`/examples/<slug>`: a readable address of an example."""

    async def get(self, slug: str) -> None:
        examples: Examples = self.settings["examples"]
        if not slug:
            self.redirect("/drive/examples")
        elif any(e.slug == slug for e in examples.list()):
            self.redirect(f"/d/{PREFIX}{slug}")
        else:
            self.not_found_page("There is no example of that name.")


class NotebookAddress(PageHandler):
    """`notebooks/<id>/<name>`, the address Notebook 7 itself makes: it is `/d/<id>` here."""

    async def get(self, path: str) -> None:
        self.redirect(f"/d/{quote(path.split('/')[0])}")


class FilePage(PageHandler):
    """`/d/<id>`: the file, whatever it is."""

    async def get(self, file_id: str) -> None:
        try:
            entry = await self.library.entry(self.user.name, file_id)
        except InTrash:
            self.message(
                404,
                "This file is in the trash",
                ["Restore it to open it."],
                [Link("/drive/trash", "Go to Trash"), TO_DRIVE],
            )
            return
        except NotFound:
            self.not_found_page()
            return
        except StorageError as error:
            raise ApiError(503, error.code, error.message) from error
        if entry.type is FileType.FOLDER:
            self.redirect(f"/drive/folders/{quote(entry.id)}")
        elif entry.type is FileType.FILE:
            self.redirect(f"/drive?open={quote(entry.id)}")
        else:
            await self._notebook(entry)

    async def _notebook(self, entry: FileEntry) -> None:
        rooms: Rooms = self.settings["rooms"]
        try:
            await rooms.join(entry.id)  # so that it is there when the page asks for it
        except NotShareable as error:
            self._broken(entry, str(error))
            return
        except Gone:
            self.not_found_page()
            return
        except ShelfError as error:
            raise ApiError(503, "storage_error", str(error)) from error
        templates: Environment = self.settings["templates"]
        config = notebook_page_config(
            entry, self.user, self.settings["programs"].page_config(), self.settings["examples"]
        )
        html = templates.get_template("documents/notebook.html").render(
            page_config=config, base_url=BASE, ws_url="", custom_css=False
        )
        self.set_header("Content-Security-Policy", self._policy(html))
        self.finish(html)

    def _broken(self, entry: FileEntry, why: str) -> None:
        links = [TO_DRIVE]
        if not entry.id.startswith(PREFIX):
            links = [
                Link(f"{BASE}api/v1/files/{quote(entry.id)}/content", "Download the file as it is", True),
                *links,
            ]
        self.message(
            422,
            f"{entry.name} can't be opened as a notebook",
            [why, "The file was not changed. You can download it as it is, repair it, and upload it again."],
            links,
        )

    def _policy(self, html: str) -> str:
        """Return the page's content security policy.

        'unsafe-eval': JupyterLab compiles its settings schemas with it. Frames from https: for IFrame and video outputs;
        they have origins of their own.
        """
        hashes = " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
            for script in _INLINE_SCRIPT.findall(html)
        )
        runtime = self.service.runtime_origin(self.user.name)
        sockets = runtime.replace("http", "ws", 1)
        own_sockets = self.service.app_origin.replace("http", "ws", 1)
        return "; ".join(
            [
                "default-src 'self'",
                f"script-src 'self' 'unsafe-eval' {hashes}",
                "style-src 'self' 'unsafe-inline'",
                "img-src 'self' data: blob: https: http:",
                "media-src 'self' data: blob: https: http:",
                "font-src 'self' data:",
                f"connect-src 'self' {own_sockets} {runtime} {sockets}",
                "worker-src 'self' blob:",
                f"frame-src 'self' blob: data: https: {runtime}",
                "object-src 'none'",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            ]
        )


def notebook_page_config(
    entry: FileEntry, user: User, programs: dict[str, Any], examples: Examples
) -> dict[str, Any]:
    """Return what the notebook page is told. There is no token in it: the page has the browser's cookie."""
    readonly = not entry.role.allows(Role.EDITOR)
    file = {
        "id": entry.id,
        "name": entry.name,
        "path": f"{entry.id}/{entry.name}",
        "parent": entry.parent,
        "role": entry.role.value,
        "type": entry.type.value,
        "readOnly": readonly,
        "example": entry.id.startswith(PREFIX),
    }
    catalogue = [{"id": e.id, "title": e.title} for e in examples.list()]
    return {
        **programs,
        "appName": "minicolab",
        "appNamespace": "minicolab",
        "appUrl": "/lab",
        "baseUrl": BASE,
        "wsUrl": "",
        "token": "",
        "notebookPage": "notebooks",
        "frontendUrl": BASE,
        "fullStaticUrl": f"{BASE}static/notebook",
        "fullAppUrl": f"{BASE}lab",
        "labextensionsUrl": "/lab/extensions",
        "fullLabextensionsUrl": f"{BASE}lab/extensions",
        "settingsUrl": "/lab/api/settings",
        "fullSettingsUrl": f"{BASE}lab/api/settings",
        "workspacesApiUrl": "/lab/api/workspaces",
        "fullWorkspacesApiUrl": f"{BASE}lab/api/workspaces",
        "themesUrl": "/lab/api/themes",
        "fullThemesUrl": f"{BASE}lab/api/themes",
        "translationsApiUrl": "/lab/api/translations",
        "fullTranslationsApiUrl": f"{BASE}lab/api/translations",
        "treeUrl": "/tree",
        "fullTreeUrl": "/drive",
        "cacheFiles": "true",
        "disableRTC": "false",
        "serverSideExecution": "false",
        "terminalsAvailable": "true",
        "exposeAppInBrowser": "false",
        "notebookStartsKernel": "false",
        "preferredPath": "/",
        "minicolabFile": json.dumps(file),
        "minicolabUser": json.dumps({**user_model(user), "identity": page_user(user)}),
        "minicolabControlUrl": "/services/control/",
        "minicolabDocumentsApi": f"{BASE}api/v1/",
        "minicolabExamples": json.dumps(catalogue),
    }
