"""Sign-in through a small real OpenID Connect provider that this test runs."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from oidc_provider_mock import User, run_server_in_thread

from hub.auth.oidc import discover
from hub.settings import SettingsError
from support.patience import PATIENCE
from support.service import Running, run_command, running

CONFIG = """
runtimes: {{environment: minimal}}
auth:
  kind: oidc
  oidc:
    issuer: {issuer}
    client_id: minicolab
    client_secret_file: {secret}
    username_claim: preferred_username
    allow_all: true
    admin_users: [grace]
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    users = [
        User(sub="1", claims={"preferred_username": "grace", "email": "grace@example.org"}),
        User(sub="2", claims={"preferred_username": "henry"}),
    ]
    with run_server_in_thread(user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def service(issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("oidc")
    secret = folder / "secret"
    secret.write_text("the client's secret\n")
    with running(folder / "state", CONFIG.format(issuer=issuer, secret=secret)) as service:
        yield service


def sign_in(service: Running, sub: str) -> requests.Session:
    """Walk the redirects a browser would, and press the provider's button as the person `sub`."""
    browser = requests.Session()
    page = browser.get(service.app + "/drive", timeout=PATIENCE)
    link = re.search(r"""href=["']([^"']*oauth_login[^"']*)["']""", page.text)
    if link is not None:
        page = browser.get(service.app + link[1].replace("&amp;", "&"), timeout=PATIENCE)
    assert "/oauth2/authorize" in page.url, page.url
    browser.post(page.url, data={"sub": sub}, timeout=PATIENCE)
    return browser


def test_a_person_of_the_provider_reaches_her_drive(service: Running) -> None:
    assert service.ready == service.app + "/"
    browser = sign_in(service, "1")
    me = browser.get(service.app + "/services/documents/api/v1/me", timeout=PATIENCE)
    assert me.status_code == 200, me.text
    assert (me.json()["name"], me.json()["admin"]) == ("grace", True)


def test_another_person_is_another_user_and_no_administrator(service: Running) -> None:
    me = sign_in(service, "2").get(service.app + "/services/documents/api/v1/me", timeout=PATIENCE).json()
    assert (me["name"], me["admin"]) == ("henry", False)


def test_a_provider_that_can_not_be_found_is_named_before_anything_starts(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    config = tmp_path / "minicolab.yaml"
    config.write_text(CONFIG.format(issuer="http://127.0.0.1:9", secret=secret))
    done = run_command("up", "--state", str(tmp_path / "state"), "--config", str(config), check=False)
    assert done.returncode == 78
    assert "auth.oidc.issuer: no discovery document at http://127.0.0.1:9/.well-known" in done.stderr


class _Impostor(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"issuer": "http://somebody.example"}).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_provider_that_names_another_issuer_is_refused() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Impostor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(SettingsError, match="names another issuer"):
            discover(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
