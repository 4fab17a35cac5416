"""What disk and database say, in the Drive's words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from sqlalchemy.exc import OperationalError

from storage_mount import errors
from storage_mount.beneath import NotRegular
from storage_mount.rows import GONE

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def file_errors() -> Iterator[None]:
    """Turn what the file system says into the Drive's words."""
    try:
        yield
    except NotRegular as error:
        raise errors.BadRequest("Not a regular file.", code="not_regular") from error
    except FileExistsError as error:
        raise errors.NameTaken("") from error
    except IsADirectoryError as error:
        raise errors.BadRequest("This is a folder.", code="is_a_folder") from error
    except OSError as error:
        if error.errno in FULL:
            raise errors.DiskFull from error
        if error.errno in GONE:
            raise errors.NotFound from error
        if error.errno == errno.ENAMETOOLONG:
            raise errors.BadRequest("The path is too long.", code="path_too_long") from error
        code = "read_only" if error.errno == errno.EROFS else "storage_error"
        raise errors.Unavailable(
            f"The Drive's disk does not do its work ({error.strerror}). Nothing was changed.", code=code
        ) from error


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Turn what the database says into the Drive's words."""
    try:
        yield
    except OperationalError as error:
        said = str(error.orig)
        if "is full" in said or "No space left" in said:
            raise errors.DiskFull from error
        if "readonly" in said or "read-only" in said:
            raise errors.Unavailable(
                "The Drive's database can not be written now. Nothing was changed.", code="read_only"
            ) from error
        raise errors.Unavailable(
            "The Drive's database does not answer. Try again in a moment.", code="db_busy"
        ) from error
