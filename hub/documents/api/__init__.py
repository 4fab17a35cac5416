"""The Drive's REST API, below `/services/documents/api/v1/`; described by hub/documents/openapi.json."""

from __future__ import annotations

from typing import Any

from hub.documents.api.content import ContentHandler, DownloadHandler, UploadHandler
from hub.documents.api.files import (
    CopyHandler,
    ExamplesHandler,
    FileHandler,
    FilesHandler,
    MeHandler,
    RecentHandler,
    SearchHandler,
)
from hub.documents.api.outputs import OutputsHandler
from hub.documents.api.trash import RestoreHandler, TrashedHandler, TrashHandler


def routes() -> list[tuple[Any, ...]]:
    """Return (pattern, handler) below the API's prefix. An id is one path segment."""
    one = r"([^/]+)"
    return [
        ("files", FilesHandler),
        ("files/upload", UploadHandler),
        (f"files/{one}", FileHandler),
        (f"files/{one}/content", ContentHandler),
        (f"files/{one}/download", DownloadHandler),
        (f"files/{one}/copy", CopyHandler),
        (f"files/{one}/restore", RestoreHandler),
        (f"files/{one}/outputs", OutputsHandler),
        ("trash", TrashHandler),
        (f"trash/{one}", TrashedHandler),
        ("search", SearchHandler),
        ("recent", RecentHandler),
        ("examples", ExamplesHandler),
        ("me", MeHandler),
    ]
