"""The user's secrets, which each notebook must be allowed to read."""

from __future__ import annotations

import threading

from google.colab import errors
from minicolab_runtime import page

_TIMEOUT = 10.0  # seconds
_lock = threading.Lock()


class SecretNotFoundError(errors.Error):
    """There is no secret of this name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Secret {key} does not exist.")


class NotebookAccessError(Exception):
    """This notebook was not given access to the secret."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Notebook does not have access to secret {key}")


class TimeoutException(errors.Error):
    """The page did not answer in time."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"Requesting secret {key} timed out. Secrets can only be fetched when running from the page."
        )


def get(key: str) -> str:
    """Return the secret named `key`.

    Raises SecretNotFoundError, NotebookAccessError, TimeoutException, or MessageError where no page can be asked.
    """
    if not key or any(character.isspace() for character in key):
        raise ValueError(f"Key must be non-empty and must not contain white space: {key!r}")
    page.require("GetSecret", "userdata.get()")
    with _lock:
        reply = page.ask("GetSecret", {"key": key}, timeout_sec=_TIMEOUT)
    if reply is None:
        raise TimeoutException(key)
    if not reply.get("exists", False):
        raise SecretNotFoundError(key)
    if not reply.get("access", False):
        raise NotebookAccessError(key)
    return str(reply.get("payload", ""))
