"""A notebook as bytes of a file and as an object, and the digests by which versions are told apart."""

from __future__ import annotations

import hashlib
import json
from typing import cast

from hub.documents.rooms.shape import NotShareable, Object
from storage_mount import notebook
from storage_mount.errors import StorageError


def parse(raw: bytes) -> Object:
    """Return the notebook in `raw` in format 4; raise NotShareable with a sentence."""
    try:
        document: Object = notebook.check(raw)
    except StorageError as error:
        raise NotShareable(error.message) from error
    if document.get("nbformat") == 3:
        import nbformat

        try:
            upgraded: str = nbformat.writes(nbformat.reads(raw.decode(), as_version=4))  # type: ignore[no-untyped-call]
            document = cast("Object", json.loads(upgraded))
        except Exception as error:
            raise NotShareable(
                f"The notebook is in an old format that can not be converted: {error}."
            ) from error
    return document


def dump(document: Object) -> bytes:
    """Return the bytes of a notebook file."""
    return (json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def content_digest(shared: Object) -> str:
    return digest(json.dumps(shared, sort_keys=True).encode("utf-8", "backslashreplace"))
