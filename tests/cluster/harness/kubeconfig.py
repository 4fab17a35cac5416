"""Kubeconfig files: written for the cluster's programs, and read to know where an API server is and how to speak to it."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cluster.harness.certificates import Pair
from cluster.harness.errors import ClusterError


def write(file: Path, server: str, authority: Path, user: Pair | str) -> Path:
    """Write a kubeconfig with certificates (or the user's token) inside, so that it can be carried elsewhere; return it."""
    if isinstance(user, str):
        credentials = {"token": user}
    else:
        credentials = {
            "client-certificate-data": _text(user.certificate.read_bytes()),
            "client-key-data": _text(user.key.read_bytes()),
        }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "cluster",
                "cluster": {"server": server, "certificate-authority-data": _text(authority.read_bytes())},
            }
        ],
        "users": [{"name": "user", "user": credentials}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
        "current-context": "context",
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return file


@dataclass(frozen=True)
class Access:
    """An API server and who we are to it."""

    server: str
    tls: ssl.SSLContext
    token: str

    @property
    def host(self) -> str:
        return urlsplit(self.server).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.server).port or 443

    def get(self, path: str, *, seconds: float = 10) -> bytes:
        """Return what the API server answers. Raise OSError when it does not, or refuses."""
        return self._ask(urllib.request.Request(self.server + path), seconds)

    def patch(self, path: str, change: object) -> None:
        """Have the API server merge a change into an object. Raise OSError when it does not answer, or refuses."""
        kind = {"Content-Type": "application/merge-patch+json"}
        url, content = self.server + path, json.dumps(change).encode()
        self._ask(urllib.request.Request(url, content, kind, method="PATCH"), 10)

    def _ask(self, request: urllib.request.Request, seconds: float) -> bytes:
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=seconds, context=self.tls) as reply:
            body: bytes = reply.read()
            return body

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path))


def read(file: Path) -> Access:
    """Read the current context of a kubeconfig. Raise ClusterError when it lacks something or names a program to run."""
    content = yaml.safe_load(file.read_text("utf-8"))

    def named(kind: str, name: str) -> dict[str, Any]:
        for entry in content.get(f"{kind}s") or []:
            if entry["name"] == name:
                found: dict[str, Any] = entry[kind] or {}
                return found
        raise ClusterError(f"{file} names no {kind} {name!r}")

    context = named("context", content["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    if "exec" in user:
        raise ClusterError(f"{file}: a user with 'exec' is not understood here; use a certificate or a token")
    tls = ssl.create_default_context()
    authority = _bytes(cluster, "certificate-authority", file)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    elif authority:
        tls.load_verify_locations(cadata=authority.decode())
    certificate, key = _bytes(user, "client-certificate", file), _bytes(user, "client-key", file)
    if certificate and key:
        with tempfile.NamedTemporaryFile() as both:  # the ssl module reads a client's key from a file only
            both.write(certificate + b"\n" + key)
            both.flush()
            tls.load_cert_chain(both.name)
    return Access(cluster["server"].rstrip("/"), tls, user.get("token", ""))


def _bytes(entry: dict[str, Any], name: str, file: Path) -> bytes:
    if f"{name}-data" in entry:
        return base64.b64decode(entry[f"{name}-data"])
    return (file.parent / entry[name]).read_bytes() if name in entry else b""


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
