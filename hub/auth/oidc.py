"""OpenID Connect sign-in through oauthenticator, configured from the provider's discovery document."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from hub.settings import OidcSettings, SettingsError

DISCOVERY_TIMEOUT_SECONDS = 10


def discover(issuer: str) -> dict[str, Any]:
    """Return the provider's discovery document. Raise SettingsError when it can not be had or is not its own."""
    if urlsplit(issuer).scheme not in ("http", "https"):
        raise SettingsError(f"auth.oidc.issuer: '{issuer}' is not an http(s) URL")
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        with urllib.request.urlopen(url, timeout=DISCOVERY_TIMEOUT_SECONDS) as reply:
            document: dict[str, Any] = json.load(reply)
    except (urllib.error.URLError, ValueError, TimeoutError) as error:
        raise SettingsError(f"auth.oidc.issuer: no discovery document at {url}: {error}") from error
    if document.get("issuer", "").rstrip("/") != issuer.rstrip("/"):
        raise SettingsError(f"auth.oidc.issuer: {url} names another issuer, '{document.get('issuer')}'")
    missing = [
        k for k in ("authorization_endpoint", "token_endpoint", "userinfo_endpoint") if k not in document
    ]
    if missing:
        raise SettingsError(f"auth.oidc.issuer: {url} lacks {', '.join(missing)}")
    return document


def authenticator_config(settings: OidcSettings, callback_url: str) -> dict[str, Any]:
    """Return the traits of oauthenticator's GenericOAuthenticator for these settings."""
    document = discover(settings.issuer)
    try:
        secret = settings.client_secret_file.read_text("utf-8").strip()
    except OSError as error:
        raise SettingsError(
            f"auth.oidc.client_secret_file: {settings.client_secret_file}: {error.strerror}"
        ) from error
    return {
        "client_id": settings.client_id,
        "client_secret": secret,
        "authorize_url": document["authorization_endpoint"],
        "token_url": document["token_endpoint"],
        "userdata_url": document["userinfo_endpoint"],
        "oauth_callback_url": callback_url,
        "username_claim": settings.username_claim,
        "scope": list(settings.scopes),
        "login_service": settings.login_label,
        "allowed_users": set(settings.allowed_users),
        "admin_users": set(settings.admin_users),
        "allow_all": settings.allow_all,
        "enable_pkce": True,
    }
