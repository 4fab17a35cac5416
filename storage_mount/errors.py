"""What can go wrong in a drive, as the domain sees it; `hub.documents.api` turns these into HTTP answers.

```
StorageError                 code, message: one sentence for the user
 ├─ NotFound                 not_found: unknown, vanished, or not yours
 │   └─ InTrash              in_trash: restore it first
 ├─ NotAllowed               denied: your role does not allow this
 ├─ BadRequest               bad_file_name, name_too_long, path_too_long, not_regular, is_a_folder, not_a_folder, bad_parent ...
 │   └─ BadNotebook          bad_notebook: `where` names the place in the document
 ├─ NameTaken                name_taken
 ├─ Changed                  changed: `current` is the etag the file has now
 ├─ IfMatchRequired          if_match_required
 ├─ KeyReused                key_reused, key_in_progress
 ├─ TooLarge                 too_large
 ├─ DiskFull                 disk_full
 └─ Unavailable              db_busy, read_only, storage_error: try again later
```
"""

from __future__ import annotations


class StorageError(Exception):
    """A refusal with a stable `code` and one sentence for the user."""

    code = "storage_error"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        if code is not None:
            self.code = code


class NotFound(StorageError):
    """The file is unknown, has vanished, or belongs to somebody else: the caller cannot tell which."""

    code = "not_found"

    def __init__(self, message: str = "No such file.") -> None:
        super().__init__(message)


class InTrash(NotFound):
    """The caller's own file is in the trash."""

    code = "in_trash"

    def __init__(self) -> None:
        super().__init__("This file is in the trash. Restore it to use it.")


class NotAllowed(StorageError):
    """The caller sees the file but may not do this."""

    code = "denied"


class BadRequest(StorageError):
    """What was asked makes no sense for a drive; `code` says which rule was broken."""

    code = "bad_request"


class BadNotebook(BadRequest):
    """The bytes are not a notebook. `where` is the place, such as `cells[0].source`; empty for the whole document."""

    code = "bad_notebook"

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message, field="content")
        self.where = where


class NameTaken(StorageError):
    """The folder already holds a file with this name, or with a name that looks the same."""

    code = "name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(
            "A file with this name, or one that looks the same, is already in this folder.", field="name"
        )
        self.name = name


class Changed(StorageError):
    """The file is not at the version the caller read."""

    code = "changed"

    def __init__(self, yours: str, current: str) -> None:
        super().__init__(
            f"File changed since you opened it (yours {_version(yours)}, now {_version(current)})."
        )
        self.current = current


class IfMatchRequired(StorageError):
    """Replacing content needs the etag of the version that is being replaced."""

    code = "if_match_required"

    def __init__(self, current: str) -> None:
        super().__init__("Send If-Match with the ETag of the version you are replacing.")
        self.current = current


class KeyReused(StorageError):
    """An Idempotency-Key came back with another request, or while the first one is still running."""

    code = "key_reused"


class TooLarge(StorageError):
    """More bytes than a limit allows. `limit` is in bytes."""

    code = "too_large"

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class DiskFull(StorageError):
    """No space, no inodes, or a quota is used up; the earlier version of the file is intact."""

    code = "disk_full"

    def __init__(self) -> None:
        super().__init__(
            "The Drive's disk is full. Nothing was lost: the last saved version is kept. "
            "Delete files you do not need and empty the trash, then try again."
        )


class Unavailable(StorageError):
    """The disk or the database does not do its work now; nothing was acknowledged."""


def _version(etag: str) -> str:
    """Return the readable part of an etag (`v12`), or a placeholder for one we never gave out."""
    head = etag.strip('"').split("-", 1)[0]
    return head if head[:1] == "v" and head[1:].isdigit() and len(head) <= 12 else "another version"
