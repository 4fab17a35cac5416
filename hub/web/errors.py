"""The one error a web API of minicolab answers with.

```
ApiError            status, code, message, field
 ├─ bad_request     400      ├─ not_found   404   (also for "not yours")
 ├─ denied          403      └─ conflict    409
```
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal with a stable `code` and one sentence; `details` are further JSON fields (numbers, `resets_at`...)."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: dict[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = headers or {}
        self.details = details

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        out: dict[str, Any] = {"status": self.status, "code": self.code, "message": self.message}
        if self.field is not None:
            out["field"] = self.field
        out.update(self.details)
        return out


def bad_request(code: str, message: str, *, field: str | None = None) -> ApiError:
    """Return a 400."""
    return ApiError(400, code, message, field=field)


def denied(code: str, message: str, **details: Any) -> ApiError:
    """Return a 403."""
    return ApiError(403, code, message, **details)


def not_found(message: str = "No such file.", code: str = "not_found") -> ApiError:
    """Return a 404: it does not exist, or it is not the caller's to see."""
    return ApiError(404, code, message)


def conflict(code: str, message: str, **details: Any) -> ApiError:
    """Return a 409."""
    return ApiError(409, code, message, **details)


def printable(text: str, limit: int = 80) -> str:
    """Return `text` fit for an error message: control characters escaped, at most `limit` characters."""
    safe = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"
