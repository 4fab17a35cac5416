"""JupyterHub's configuration, made from the resolved settings. Holds no logic of its own.

`python -m hub.jupyterhub_process --state DIR` starts the hub with it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from traitlets.config import Config

from hub.auth.accounts import Accounts
from hub.auth.local import LocalAuthenticator
from hub.auth.oidc import authenticator_config
from hub.proxy import ELSEWHERE, HostProxy
from hub.settings import Service, url_host
from hub.wiring import make_backend, runtime_spec_builder, spawn_seconds
from quota.clock import SystemClock
from spawner.hub_spawner import RuntimeSpawner

TEMPLATES = Path(__file__).parent / "templates" / "hub"
STATIC = Path(__file__).parent / "static"

# What a signed-in person may do at the hub: be known to our two services and manage own API tokens. Not: start servers.
# Runtimes are started by control alone, after its checks.
USER_SCOPES = [
    "access:services!service=documents",
    "access:services!service=control",
    "read:users!user",
    "tokens!user",
]
CONTROL_SCOPES = ["admin:servers", "servers", "read:users", "list:users", "read:hub", "read:services"]


def configure(service: Service) -> Config:
    """Return the hub's configuration for an installation. Raise SettingsError when sign-in can not be set up."""
    c = Config()
    hub, ports = c.JupyterHub, service.ports
    hub.bind_url = f"http://{service.settings.service.bind}:{ports.public}"
    hub.public_url = service.app_origin
    hub.hub_bind_url = f"http://{url_host(service.addresses.bind)}:{ports.hub}"
    hub.hub_connect_url = service.url_of("hub")
    hub.db_url = service.hub_database_url
    hub.cookie_secret = service.key("hub-cookie")
    hub.template_paths = [str(TEMPLATES)]
    hub.template_vars = {"product": "minicolab"}
    hub.default_url = "/drive"
    hub.logo_file = str(STATIC / "logo.svg")
    hub.allow_named_servers = True
    hub.redirect_to_server = False
    hub.cleanup_servers = False  # runtimes outlive the hub
    hub.cleanup_proxy = False
    hub.concurrent_spawn_limit = 0  # admission is control's
    hub.last_activity_interval = 60  # also how often lost proxy routes are found and added again
    hub.tornado_settings = {"slow_spawn_timeout": 0}
    hub.authenticate_prometheus = True
    hub.log_format = "%(asctime)s %(levelname)s %(name)s: %(message)s"

    hub.proxy_class = HostProxy
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = service.proxy_api_url
    c.ConfigurableHTTPProxy.auth_token = service.proxy_token
    c.HostProxy.service = service
    documents, control = service.url_of("documents"), service.url_of("control")
    c.HostProxy.extra_routes = {
        "/services/documents/": documents,
        "/d/": documents,
        "/drive/": documents,
        "/examples/": documents,
        "/services/control/": control,
        ELSEWHERE: control,
    }

    hub.services = [
        {
            "name": "documents",
            "api_token": service.documents_token,
            "oauth_client_id": "service-documents",
            "oauth_redirect_uri": f"{service.app_origin}/services/documents/oauth_callback",
            "oauth_no_confirm": True,
            "oauth_client_allowed_scopes": USER_SCOPES,
        },
        {"name": "control", "api_token": service.control_token},
        {"name": "operator", "api_token": service.operator_token, "admin": True},
        # Whoever starts a proxy holds its token already; with it, it may ask for the routes that a new proxy lacks.
        {"name": "proxy", "api_token": service.proxy_token},
    ]
    hub.load_roles = [
        {"name": "user", "scopes": USER_SCOPES},
        {"name": "control", "services": ["control"], "scopes": CONTROL_SCOPES},
        {"name": "proxy", "services": ["proxy"], "scopes": ["proxy"]},
        {
            "name": "operator",
            "services": ["control"],
            "scopes": ["admin:users", "admin:groups", "tokens", "proxy", "shutdown"],
        },
    ]
    # A token in a browser's cookie must be able to name its owner and reach both services, and nothing more.
    _sign_in(c, service)

    hub.spawner_class = RuntimeSpawner
    c.RuntimeSpawner.make_backend = functools.cache(lambda: make_backend(service))
    c.RuntimeSpawner.build_spec = runtime_spec_builder(service)
    c.Spawner.start_timeout = spawn_seconds(service.settings)
    c.Spawner.http_timeout = 60
    c.Spawner.poll_interval = 30
    c.Spawner.consecutive_failure_limit = 0
    c.Spawner.options_form = ""
    return c


def _sign_in(c: Config, service: Service) -> None:
    auth = service.settings.auth
    if auth.kind == "oidc" and auth.oidc is not None:
        c.JupyterHub.authenticator_class = "generic-oauth"
        callback = f"{service.hub_public_url}/oauth_callback"
        for name, value in authenticator_config(auth.oidc, callback).items():
            setattr(c.GenericOAuthenticator, name, value)
        return
    c.JupyterHub.authenticator_class = LocalAuthenticator
    # A function, because traitlets copies configuration values deeply, and a database engine can not be copied.
    c.LocalAuthenticator.open_accounts = lambda: Accounts(service.accounts_path, SystemClock())
    c.Authenticator.allow_all = True  # `authenticate` passes our own accounts only
