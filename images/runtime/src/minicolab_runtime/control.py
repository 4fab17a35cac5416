"""The kernel's side of control's HTTP interface: sign-in by pasted code (OAuth 2, PKCE S256), and mounts.

Standard library only: this runs inside the user's kernel.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REDIRECT_URI = "urn:ietf:wg:oauth:2.0:oob"
SCOPE = "drive.mount"
TIMEOUT = 30.0  # seconds for one request


class ControlError(Exception):
    """Control refused or could not be reached; the text is a sentence for the user. `code` is its stable code."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Control:
    """Where control is for this kernel (`url`) and for a person's browser (`public_url`), and which runtime this is."""

    url: str
    public_url: str
    runtime_id: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Control:
        """Return what the supervisor set, or raise ControlError."""
        env = os.environ if environment is None else environment
        url, runtime_id = env.get("MINICOLAB_CONTROL_URL", ""), env.get("MINICOLAB_RUNTIME_ID", "")
        if not url or not runtime_id:
            raise ControlError(
                "This kernel does not run in a minicolab runtime, so there is no Drive to reach from it."
            )
        public = env.get("MINICOLAB_PUBLIC_URL", "") or url
        if "/services/control" not in public:
            public = public.rstrip("/") + "/services/control/"
        return cls(url.rstrip("/") + "/", public.rstrip("/") + "/", runtime_id)

    # -- sign-in by pasted code ---------------------------------------------------------------------------------

    def sign_in(self, ask: Callable[[str], str], timeout: float = TIMEOUT) -> str:
        """Let the user open a link and paste the code shown there; return an access token. Raise ControlError.

        `ask(url)` shows the link and returns what the user typed.
        """
        verifier = secrets.token_urlsafe(48)
        state = secrets.token_urlsafe(16)
        code = ask(self.authorize_url(verifier, state)).strip()
        if not code:
            raise ControlError("No authorization code was entered.", "no_code")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": self.runtime_id,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": verifier,
        }
        reply = self._send("POST", "oauth/token", form=form, timeout=timeout)
        token = reply.get("access_token")
        if not isinstance(token, str) or not token:
            raise ControlError("Control answered the sign-in without an access token.", "no_token")
        return token

    def authorize_url(self, verifier: str, state: str) -> str:
        """Return the link at which the user consents and is shown a code."""
        query = {
            "response_type": "code",
            "client_id": self.runtime_id,
            "redirect_uri": REDIRECT_URI,
            "scope": SCOPE,
            "state": state,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
        }
        return f"{self.public_url}oauth/authorize?{urllib.parse.urlencode(query)}"

    # -- mounts -------------------------------------------------------------------------------------------------

    def mount(self, token: str, path: str, *, readonly: bool, timeout: float = TIMEOUT) -> None:
        """Make the user's Drive appear at `path` in this runtime."""
        body = {"path": path, "readonly": readonly}
        self._send("POST", self._mounts(), body=body, token=token, timeout=timeout)

    def unmount(self, token: str, path: str, timeout: float = TIMEOUT) -> None:
        """Take the Drive at `path` away again."""
        query = urllib.parse.urlencode({"path": path})
        self._send("DELETE", f"{self._mounts()}?{query}", token=token, timeout=timeout)

    def _mounts(self) -> str:
        return f"api/v1/runtimes/{urllib.parse.quote(self.runtime_id)}/mounts"

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        form: dict[str, str] | None = None,
        token: str | None = None,
        timeout: float,
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        elif form is not None:
            data = urllib.parse.urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        # A proxy that the user set for the outside world is not the way to our own control service.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as reply:
                return _object(reply.read())
        except urllib.error.HTTPError as error:
            raise _refusal(error.code, _object(error.read())) from None
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise ControlError(
                f"The control service cannot be reached ({reason}). Try again in a moment."
            ) from None


def challenge(verifier: str) -> str:
    """Return the PKCE S256 challenge of `verifier`."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).decode().rstrip("=")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refusal(status: int, body: dict[str, Any]) -> ControlError:
    code = str(body.get("error") or body.get("code") or "")
    said = body.get("error_description") or body.get("message")
    known = {
        "invalid_grant": "The authorization code is not valid, was used before, or has expired. Run the cell again.",
        "access_denied": "Access to Drive was refused.",
    }
    text = str(said) if said else known.get(code, f"The control service answered with status {status}.")
    return ControlError(text, code)
