"""Refusals of the Drive as HTTP answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hub.web.errors import ApiError
from storage_mount import errors

_STATUS: tuple[tuple[type[errors.StorageError], int], ...] = (
    (errors.NotFound, 404),
    (errors.NotAllowed, 403),
    (errors.BadRequest, 400),
    (errors.NameTaken, 409),
    (errors.KeyReused, 409),
    (errors.Changed, 412),
    (errors.IfMatchRequired, 428),
    (errors.TooLarge, 413),
    (errors.DiskFull, 507),
    (errors.Unavailable, 503),
)


def as_api_error(error: errors.StorageError) -> ApiError:
    """Return the HTTP answer for a refusal of the Drive."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return ApiError(status, error.code, error.message, field=error.field)


@contextmanager
def as_api_errors() -> Iterator[None]:
    """Turn refusals of the Drive into HTTP answers."""
    try:
        yield
    except errors.StorageError as error:
        raise as_api_error(error) from error
