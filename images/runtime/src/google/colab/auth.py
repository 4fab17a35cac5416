"""Google identities. minicolab itself needs none; this finds credentials that are already in the runtime."""

from __future__ import annotations

import os
from pathlib import Path

from google.colab import errors


def authenticate_user(clear_output: bool = True, project_id: str | None = None) -> None:
    """Make sure that Google's libraries find credentials, and set the project when one is given.

    Raises AuthorizationError when the runtime holds no credentials, saying how to bring them.
    """
    if project_id is not None:
        os.environ["GOOGLE_CLOUD_PROJECT"] = project_id
    if _credentials() is None:
        raise errors.AuthorizationError(
            "There are no Google credentials in this runtime, and minicolab does not sign you in to Google. Upload a service "
            "account key and set GOOGLE_APPLICATION_CREDENTIALS to its path, or run 'gcloud auth application-default login'. "
            "For files in your Drive use drive.mount(), which needs no Google account."
        )


def authenticate_service_account(clear_output: bool = True) -> None:
    """Make sure that a service account key is in place. Raises AuthorizationError otherwise."""
    authenticate_user(clear_output=clear_output)


def _credentials() -> Path | None:
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    candidates = [Path(named)] if named else []
    config = os.environ.get("CLOUDSDK_CONFIG", str(Path.home() / ".config" / "gcloud"))
    candidates.append(Path(config) / "application_default_credentials.json")
    return next((path for path in candidates if path.is_file()), None)
