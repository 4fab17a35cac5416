"""What ended runtimes left on this machine: why they ended, their executions, /content. It stays until it is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from quota.clock import SystemClock
from spawner import keep
from spawner.model import EndReason, LeftBehind
from spawner.ports import BackendError
from spawner.supervisor.handover import MOST_BYTES

KEEP_SECONDS = 7 * 24 * 3600.0
SUFFIXES = REASON, EXECUTIONS, CONTENT, ARCHIVE, NOTE = (
    ".json",
    ".executions.json",
    ".content",
    ".tar.gz",
    ".note",
)


class Ended:
    """The folder in which it lies. Ids are taken as they are: whoever asks has looked at them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, runtime_id: str, suffix: str) -> Path:
        return self._folder / f"{runtime_id}{suffix}"

    def make(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put_reason(self, runtime_id: str, reason: EndReason) -> None:
        """Leave why a runtime ended. Raise OSError."""
        self.make()
        draft = self._folder / f".{runtime_id}"
        told = {
            "id": runtime_id,
            "code": reason.code,
            "message": reason.message,
            "boottime": reason.boottime,
        }
        draft.write_text(json.dumps(told), "utf-8")
        draft.replace(self.path(runtime_id, REASON))

    def reason(self, runtime_id: str) -> EndReason | None:
        """Return why a runtime ended, None when nobody left word."""
        try:
            data = json.loads(self.path(runtime_id, REASON).read_text("utf-8"))
            return EndReason(data["code"], data["message"], data.get("boottime"))
        except (OSError, ValueError, KeyError):
            return None

    def put_executions(self, runtime_id: str, parts: Iterable[bytes]) -> None:
        """Leave what a runtime's server wrote of its cells, whole or not at all. Raise OSError, or ValueError when it is too large."""
        self.make()
        draft, size = self._folder / f".{runtime_id}.executions", 0
        try:
            with draft.open("wb") as file:
                for part in parts:
                    size += len(part)
                    if size > MOST_BYTES:
                        raise ValueError(f"more than {MOST_BYTES} bytes")
                    file.write(part)
            draft.replace(self.path(runtime_id, EXECUTIONS))
        finally:
            draft.unlink(missing_ok=True)

    def new_archive(self, runtime_id: str) -> tuple[Path, IO[bytes]]:
        """Return a draft for an archive of /content that comes from elsewhere, and its file, open for writing. Raise OSError."""
        self.make()
        fd, name = tempfile.mkstemp(prefix=f".{runtime_id}.", suffix=".draft", dir=self._folder)
        return Path(name), os.fdopen(fd, "wb")

    def put_archive(self, runtime_id: str, draft: Path) -> None:
        """Leave a draft that is whole now. Raise OSError."""
        draft.replace(self.path(runtime_id, ARCHIVE))

    def put_note(self, runtime_id: str, why_not: str) -> None:
        """Leave word why /content was not kept. Raise OSError."""
        self.make()
        self.path(runtime_id, NOTE).write_text(why_not, "utf-8")

    async def left_behind(self, runtime_id: str) -> LeftBehind | None:
        """Return what a runtime left, None when there is nothing of it."""
        paths = {suffix: self.path(runtime_id, suffix) for suffix in SUFFIXES}
        if not any(path.exists() for path in paths.values()):
            return None
        executions = await asyncio.to_thread(_executions, paths[EXECUTIONS])
        if paths[ARCHIVE].exists() or paths[CONTENT].exists():
            archive = await asyncio.to_thread(keep.pack, paths[CONTENT], paths[ARCHIVE])
            return LeftBehind(executions, archive)
        note = paths[NOTE].read_text("utf-8") if paths[NOTE].exists() else ""
        return LeftBehind(executions, None, note)

    async def forget(self, runtime_id: str) -> None:
        """Remove what a runtime left."""
        await asyncio.to_thread(keep.forget, *(self.path(runtime_id, suffix) for suffix in SUFFIXES))

    def forget_old(self) -> None:
        """Remove what nobody asked for in a week."""
        now = SystemClock().now().timestamp()
        for path in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_ctime > KEEP_SECONDS:
                    keep.forget(path)


async def restore(snapshot: Path, content: Path, owner: int | None = None) -> int:
    """Unpack a snapshot into the content folder of a runtime; return how many files. Raise BackendError."""
    try:
        return await asyncio.to_thread(keep.restore, snapshot, content, owner)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BackendError("bad_snapshot", f"The snapshot can not be read: {error}.") from error
    except OSError as error:
        raise BackendError("restore_failed", f"The snapshot was not restored: {error.strerror}.") from error


def _executions(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the executions a runtime's server left: its user's code may have written them, so they may be anything."""
    try:
        found = json.loads(path.read_bytes())["executions"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ()
    return tuple(e for e in found if isinstance(e, dict)) if isinstance(found, list) else ()
