"""Where the notebook of a room lies, as the room sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class ShelfError(Exception):
    """The file can not be read or written; the text is a sentence for the user."""


class Gone(ShelfError):
    """The file is no longer there."""


class ChangedOutside(ShelfError):
    """The file is not the version that was to be replaced."""


@dataclass(frozen=True)
class Version:
    """A version of a file as it lies in the Drive: `name` is its present name, `etag` names the version."""

    name: str
    etag: str


class Shelf(Protocol):
    """Where the notebook of one room lies. Raises ShelfError."""

    async def version(self) -> Version:
        """Return the present name and version."""
        ...

    async def load(self) -> tuple[bytes, Version]:
        """Return the content and its version."""
        ...

    async def store(self, raw: bytes, replaces: str) -> Version:
        """Replace the content, durably; raise ChangedOutside when its etag is not `replaces`."""
        ...

    async def put_aside(self, raw: bytes, note: str) -> str:
        """Keep `raw` as a second file beside this one whose name ends in `note`; return that name."""
        ...
