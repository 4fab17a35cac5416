"""What a fault of the database or of a backend looks like to a caller: a code, a sentence, and when to try again."""

from __future__ import annotations

import logging

from sqlalchemy.exc import DBAPIError

from hub.web import storage
from hub.web.errors import ApiError
from quota.ports import Fenced
from quota.store import Fault, fault_of
from spawner.ports import BackendError
from storage_mount.errors import StorageError

log = logging.getLogger(__name__)

BACKEND_STATUS = {
    "not_mounted": 404,
    "no_such_runtime": 410,
    "bad_mountpoint": 400,
    "mountpoint_in_use": 409,
    "restart_needed": 409,
    "mountpoint_not_empty": 409,
}


def as_api_error(error: BaseException | None) -> ApiError | None:
    """Return the answer for an error of ours, None when it is not one of those that are expected."""
    if isinstance(error, BackendError):
        status = BACKEND_STATUS.get(error.code, 503)
        return ApiError(status, error.code, str(error), headers=_later(5) if status == 503 else {})
    if isinstance(error, StorageError):
        return storage.as_api_error(error)
    if isinstance(error, Fenced):
        message = "Another control service has taken over. Try again in a moment."
        return ApiError(503, "not_in_charge", message, headers=_later(2))
    if isinstance(error, DBAPIError):
        return _database_error(error)
    return None


def _database_error(error: DBAPIError) -> ApiError | None:
    match fault_of(error):
        case None:
            return None
        case Fault.BUSY:
            return ApiError(503, "db_busy", "The database is busy. Try again in a moment.", headers=_later(2))
        case Fault.FULL:
            return ApiError(507, "disk_full", "The service's disk is full; nothing was changed.")
        case fault:
            log.critical("the database can not be used (%s): %s", fault, error.orig)
            message = "The database of the service can not be used now; nothing was changed."
            return ApiError(503, "db_unavailable", message, headers=_later(30))


def _later(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}
