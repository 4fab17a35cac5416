"""What the page remembers for each user: settings of its plug-ins and its layout. One folder a user, never shared.

The shapes of the answers are those of JupyterLab's own settings and workspaces addresses, which the page asks for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub.documents.jupyter_api import JupyterHandler
from hub.documents.labextensions import Programs
from hub.documents.library import Library
from hub.web.body import text_field
from hub.web.errors import ApiError, bad_request, not_found, printable

MAX_SETTING_BYTES = 256 << 10
MAX_WORKSPACE_BYTES = 1 << 20
MAX_WORKSPACES = 50


@dataclass
class Schemas:
    """Schemas of the page's settings with our calmer defaults (`overrides.json`), read once."""

    programs: Programs
    overrides: dict[str, dict[str, Any]]
    _loaded: dict[str, dict[str, Any]] = field(default_factory=dict)
    _stamp: tuple[tuple[str, float], ...] = ()

    async def all(self) -> dict[str, dict[str, Any]]:
        """Return every schema by plug-in id."""
        return await asyncio.to_thread(self._all)

    def _all(self) -> dict[str, dict[str, Any]]:
        files = self.programs.schemas()
        stamp = tuple((name, file.stat().st_mtime) for name, file in files.items())
        if stamp != self._stamp:
            loaded = {name: self._load(name, file) for name, file in files.items()}
            self._loaded, self._stamp = loaded, stamp
        return self._loaded

    def _load(self, name: str, file: Path) -> dict[str, Any]:
        schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
        properties = schema.setdefault("properties", {})
        for key, value in self.overrides.get(name, {}).items():
            if key == "jupyter.lab.shortcuts" or key.startswith("jupyter.lab."):
                schema[key] = value
            else:
                properties.setdefault(key, {})["default"] = value
        return schema


class PreferencesHandler(JupyterHandler):
    """Base: knows the user's folder."""

    async def folder(self) -> Path:
        library: Library = self.settings["library"]
        users: Path = self.settings["users_folder"]
        return users / await library.drive_id(self.user.name)

    @property
    def schemas(self) -> Schemas:
        schemas: Schemas = self.settings["schemas"]
        return schemas


class SettingsHandler(PreferencesHandler):
    """`lab/api/settings` and `lab/api/settings/<plug-in id>`."""

    max_body_bytes = MAX_SETTING_BYTES

    async def get(self, name: str) -> None:
        schemas = await self.schemas.all()
        folder = await self.folder() / "settings"
        if name:
            if name not in schemas:
                raise not_found("No such setting.")
            self.reply(await asyncio.to_thread(_setting, folder, name, schemas[name]))
        elif self.get_query_argument("ids_only", "") == "true":
            self.reply({"settings": [{"id": n} for n in schemas]})
        else:
            everything = await asyncio.to_thread(lambda: [_setting(folder, n, s) for n, s in schemas.items()])
            self.reply({"settings": everything})

    async def put(self, name: str) -> None:
        import json5
        from jsonschema import Draft7Validator, ValidationError

        schemas = await self.schemas.all()
        if name not in schemas:
            raise not_found("No such setting.")
        raw = text_field(self.json_body(), "raw", max_length=MAX_SETTING_BYTES)
        try:
            value = json5.loads(raw)
            Draft7Validator(schemas[name]).validate(value)
        except (ValueError, RecursionError):
            raise bad_request("bad_setting", "raw is not valid JSON.", field="raw") from None
        except ValidationError as error:
            raise bad_request(
                "bad_setting", f"raw does not fit: {printable(error.message, 200)}", field="raw"
            ) from None
        await asyncio.to_thread(_write, _setting_file(await self.folder() / "settings", name), raw.encode())
        self.set_status(204)


def _setting_file(folder: Path, name: str) -> Path:
    return folder / (hashlib.sha256(name.encode()).hexdigest()[:32] + ".json5")


def _setting(folder: Path, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    file = _setting_file(folder, name)
    out: dict[str, Any] = {"id": name, "schema": schema, "version": "", "raw": "{}", "settings": {}}
    out |= {"last_modified": None, "created": None}
    try:
        raw = file.read_text("utf-8")
    except OSError:
        return out
    import json5

    try:
        value = json5.loads(raw)
    except ValueError:
        return out | {"warning": "The saved setting could not be read and is ignored."}
    at = datetime.fromtimestamp(file.stat().st_mtime, tz=UTC).isoformat()
    return out | {"raw": raw, "settings": value, "last_modified": at, "created": at}


class WorkspacesHandler(PreferencesHandler):
    """`lab/api/workspaces` and `lab/api/workspaces/<name>`: the layout of the page."""

    max_body_bytes = MAX_WORKSPACE_BYTES

    async def get(self, name: str) -> None:
        folder = await self.folder() / "workspaces"
        if name:
            found = await asyncio.to_thread(_read_json, _workspace_file(folder, name))
            self.reply(found or {"data": {}, "metadata": {"id": name}})
            return
        files = await asyncio.to_thread(lambda: sorted(folder.glob("*.json")) if folder.is_dir() else [])
        spaces = [s for s in [await asyncio.to_thread(_read_json, f) for f in files] if s]
        self.reply({"workspaces": {"ids": [s["metadata"]["id"] for s in spaces], "values": spaces}})

    async def put(self, name: str) -> None:
        if not name:
            raise bad_request("missing_field", "The layout needs a name.", field="name")
        value = self.json_body()
        metadata = value.get("metadata")
        if (
            not isinstance(metadata, dict)
            or metadata.get("id") != name
            or not isinstance(value.get("data"), dict)
        ):
            raise bad_request("bad_workspace", "A layout needs data, and metadata with its own id.")
        folder = await self.folder() / "workspaces"
        file = _workspace_file(folder, name)
        if not file.exists() and folder.is_dir() and len(list(folder.iterdir())) >= MAX_WORKSPACES:
            raise ApiError(409, "too_many", f"At most {MAX_WORKSPACES} layouts are kept.")
        await asyncio.to_thread(_write, file, json.dumps(value).encode())
        self.set_status(204)

    async def delete(self, name: str) -> None:
        file = _workspace_file(await self.folder() / "workspaces", name)
        if not name or not file.is_file():
            raise not_found("No such layout.")
        file.unlink()
        self.set_status(204)


def _workspace_file(folder: Path, name: str) -> Path:
    return folder / (hashlib.sha256(name.encode()).hexdigest()[:32] + ".json")


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(file: Path, data: bytes) -> None:
    """Replace a small file so that a reader sees the old or the new content."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    try:
        with draft.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ApiError(507, "disk_full", f"The setting could not be saved: {error.strerror}.") from error


class TranslationsHandler(JupyterHandler):
    """`lab/api/translations[/<locale>]`: the page speaks English."""

    async def get(self, locale: str) -> None:
        packs = {"en": {"displayName": "English", "nativeName": "English"}}
        self.reply({"data": {} if locale else packs, "message": ""})
