"""`minicolab secrets create`: keys and tokens of an installation in a cluster, made once, never replaced.

Run by a job of the chart. What a secret already holds stays as it is; only what is missing is added, so it may be run at every
install and upgrade, and rendering the chart twice gives the same objects.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.cli.common import DENIED, TRY_LATER, fail
from hub.cli.serve import KEYS, TOKENS
from hub.settings import SECRET_BYTES

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TRIES = 10
RETRY_SECONDS = 2.0
MERGE_PATCH = "application/merge-patch+json"


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    group = commands.add_parser("secrets", help="the secrets of an installation in a cluster")
    create = group.add_subparsers(dest="action", required=True).add_parser(
        "create", help="make what is missing of a secret; never replace what is there"
    )
    create.add_argument("--namespace", required=True)
    create.add_argument("--name", required=True, help="name of the secret")
    create.add_argument("--api", default="https://kubernetes.default.svc", help="the cluster's API server")
    create.add_argument(
        "--account", type=Path, default=ACCOUNT, metavar="DIR", help="folder with token and ca.crt"
    )
    create.set_defaults(run=_create)


def _create(arguments: argparse.Namespace) -> int:
    api = _Api(arguments.api, arguments.account)
    collection = f"/api/v1/namespaces/{arguments.namespace}/secrets"
    tries = TRIES
    while True:
        try:
            print(ensure(api, collection, arguments.name))
            return 0
        except _Refused as error:
            fail(DENIED, f"The cluster refused: {error}")
        except OSError as error:
            tries -= 1
            if not tries:
                fail(TRY_LATER, f"The cluster does not answer: {error}")
            print(f"The cluster does not answer yet: {error}", flush=True)
            time.sleep(RETRY_SECONDS)


def new_secrets() -> dict[str, str]:
    """Return a value for every secret of an installation, in base64."""
    keys = {name for names in KEYS.values() for name in names}
    tokens = {name for names in TOKENS.values() for name in names}
    made = {f"{name}.key": secrets.token_bytes(SECRET_BYTES) for name in sorted(keys)}
    made |= {f"{name}.token": secrets.token_hex(SECRET_BYTES).encode() for name in sorted(tokens)}
    return {name: base64.b64encode(value).decode() for name, value in made.items()}


def ensure(api: _Api, collection: str, name: str) -> str:
    """Make the secret, or what it lacks; return what was done. Raise _Refused, OSError."""
    labels = {"app.kubernetes.io/part-of": "minicolab"}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels},
        "data": new_secrets(),
    }
    status, _ = api.call("POST", collection, body, allowed=(409,))
    if status != 409:
        return f"The secret {name} was made."
    _, found = api.call("GET", f"{collection}/{name}")
    missing = {key: value for key, value in new_secrets().items() if key not in (found.get("data") or {})}
    if not missing:
        return f"The secret {name} is whole; nothing was changed."
    # With the version that was read: another job's keys are not replaced by ours.
    version = {"resourceVersion": found["metadata"]["resourceVersion"]}
    api.call("PATCH", f"{collection}/{name}", {"metadata": version, "data": missing}, kind=MERGE_PATCH)
    return f"To the secret {name} was added: {', '.join(missing)}."


class _Refused(Exception):
    """The API server said no."""


@dataclass(frozen=True)
class _Api:
    """The API server, as this pod's service account."""

    url: str
    account: Path

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        allowed: tuple[int, ...] = (),
        kind: str = "application/json",
    ) -> tuple[int, dict[str, Any]]:
        """Return (status, object). Raise _Refused; OSError when it may be tried again."""
        token = (self.account / "token").read_text("ascii").strip()
        authority = self.account / "ca.crt"
        context = ssl.create_default_context(cafile=authority) if self.url.startswith("https") else None
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {token}", "Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            if error.code in allowed:
                return error.code, {}
            if error.code in (409, 429) or error.code >= 500:
                raise OSError(f"status {error.code}") from None
            try:
                message = str(json.loads(text)["message"])
            except (ValueError, KeyError, TypeError):
                message = f"status {error.code}"
            raise _Refused(message) from None
