"""The one road for settings.

`minicolab.yaml` → `load_settings` → frozen `Settings` → `Service` (settings plus what `up` resolved: ports, keys, tokens),
which every process of an installation reads from its state folder. Nothing else reads configuration files or the environment.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from hub.database_settings import ControlSettings, DocumentsSettings, HubSettings
from hub.docker_settings import DockerSettings
from hub.kubernetes_settings import AcceleratorSettings, KubernetesSettings
from hub.quota_settings import QuotaSettings
from hub.setting_types import Section, Size


class SettingsError(Exception):
    """The settings can not be used; one line a fault, each with file and line where known."""


class OidcSettings(Section):
    """Sign-in through an OpenID Connect provider."""

    issuer: str = Field(description="Issuer URL of the provider; its discovery document is read at start.")
    client_id: str = Field(description="Client id registered at the provider.")
    client_secret_file: Path = Field(description="File that holds the client secret, mode 0600.")
    username_claim: str = Field("preferred_username", description="Claim that becomes the user name.")
    scopes: tuple[str, ...] = Field(("openid", "profile", "email"), description="Scopes asked for.")
    allowed_users: tuple[str, ...] = Field(
        (), description="User names that may sign in; empty with allow_all false lets nobody in."
    )
    allow_all: bool = Field(False, description="Whether everyone the provider knows may sign in.")
    admin_users: tuple[str, ...] = Field((), description="User names that administer the service.")
    login_label: str = Field("your organisation", description="Name of the provider on the sign-in button.")


class AuthSettings(Section):
    """Who may sign in."""

    kind: Literal["local", "oidc"] = Field(
        "local", description="local: accounts of this service; oidc: an OpenID Connect provider."
    )
    oidc: OidcSettings | None = Field(None, description="Needed when kind is oidc.")

    @model_validator(mode="after")
    def _oidc_is_complete(self) -> AuthSettings:
        if self.kind == "oidc" and self.oidc is None:
            raise ValueError("kind is oidc but the section oidc is missing")
        return self


class ServiceSettings(Section):
    """Where the service listens and what its hosts are called."""

    bind: str = Field("127.0.0.1", description="Address the proxy listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the proxy listens on.")
    app_host: str = Field("localhost", description="Host name of pages, in the browser's address bar.")
    runtime_host: str = Field(
        "{user}.localhost", description="Host name of a user's runtimes; must differ from app_host."
    )
    api_host: str = Field(
        "127.0.0.1",
        description="Host name that API clients can resolve; may equal app_host with a real domain.",
    )
    https: bool = Field(
        False, description="Whether browsers reach the service by https (a TLS proxy stands in front)."
    )
    public_port: int | None = Field(None, description="Port in the browser's address bar; None means `port`.")


class DriveSettings(Section):
    """The Drive."""

    max_upload: Size = Field(4 << 30, description="Largest file that may be uploaded, in bytes.")
    max_notebook: Size = Field(100 << 20, description="Largest notebook that may be saved, in bytes.")


class ShapeSettings(Section):
    """Size of a runtime."""

    memory: Size = Field(description="Memory limit.")
    cpus: float = Field(gt=0, description="CPU limit, in cores.")
    processes: int = Field(4096, gt=15, description="Most processes and threads at once.")


class LocalBackendSettings(Section):
    """Runtimes as sandboxed processes on this machine."""

    isolation: Literal["auto", "namespaces", "bubblewrap", "plain"] = Field(
        "auto", description="Rung of the sandbox ladder; auto takes the best one that works."
    )
    allow_plain_multiuser: bool = Field(
        False, description="Whether several users may share a machine without isolation."
    )


class RuntimeSettings(Section):
    """Machines."""

    backend: Literal["local", "docker", "kubernetes"] = Field("local", description="What runs the runtimes.")
    local: LocalBackendSettings = Field(
        default_factory=LocalBackendSettings, description="Settings of the local backend."
    )
    docker: DockerSettings = Field(
        default_factory=DockerSettings, description="Settings of the Docker backend."
    )
    kubernetes: KubernetesSettings = Field(
        default_factory=KubernetesSettings, description="Settings of the Kubernetes backend."
    )
    environment: str = Field("default", description="Name of the runtime in the catalogue.")
    catalogue: Path | None = Field(
        None,
        description="File of runtimes and their images, such as `minicolab images build --record` writes; None: images/catalogue.yaml of minicolab.",
    )
    torch_index: str | None = Field(
        None, description="Folder or index of PyTorch wheels to prefer, such as CPU builds."
    )
    shapes: dict[str, ShapeSettings] = Field(
        default_factory=lambda: {"STANDARD": ShapeSettings(memory=12 << 30, cpus=2.0, processes=4096)},
        description="Sizes a user may choose; STANDARD must exist.",
    )

    @model_validator(mode="after")
    def _standard_exists(self) -> RuntimeSettings:
        if "STANDARD" not in self.shapes:
            raise ValueError("shapes must contain STANDARD")
        return self

    @model_validator(mode="after")
    def _catalogue_is_found_from_everywhere(self) -> RuntimeSettings:
        if self.catalogue is not None and not self.catalogue.is_absolute():
            raise ValueError("catalogue must be a whole path, such as /etc/minicolab/catalogue.yaml")
        return self

    @model_validator(mode="after")
    def _kubernetes_knows_its_image(self) -> RuntimeSettings:
        if self.backend == "kubernetes" and self.kubernetes.image is None:
            raise ValueError("backend is kubernetes but kubernetes.image is not set")
        return self


class Settings(Section):
    """The whole of minicolab.yaml."""

    service: ServiceSettings = Field(default_factory=ServiceSettings, description="Addresses.")
    auth: AuthSettings = Field(default_factory=AuthSettings, description="Sign-in.")
    drive: DriveSettings = Field(default_factory=DriveSettings, description="The Drive.")
    runtimes: RuntimeSettings = Field(default_factory=RuntimeSettings, description="Machines.")
    accelerators: AcceleratorSettings = Field(
        default_factory=AcceleratorSettings, description="Accelerators of a cluster."
    )
    quota: QuotaSettings = Field(default_factory=QuotaSettings, description="Limits.")
    control: ControlSettings = Field(default_factory=ControlSettings, description="The control service.")
    hub: HubSettings = Field(default_factory=HubSettings, description="The hub.")
    documents: DocumentsSettings = Field(
        default_factory=DocumentsSettings, description="The documents service."
    )


# -- reading ------------------------------------------------------------------------------------------------------


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and aliases."""


def _mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"duplicate key '{key}'", problem_mark=key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_settings(path: Path | None) -> Settings:
    """Return the settings in `path` (None: all defaults). Raise SettingsError with one line a fault."""
    if path is None:
        return Settings()
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not valid UTF-8") from error
    try:
        if any(isinstance(event, yaml.events.AliasEvent) for event in yaml.parse(text)):
            raise SettingsError(f"{path}: YAML aliases are not supported")
        tree = yaml.compose(text, Loader=_UniqueKeyLoader)
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SettingsError(f"{path}:{line}: {error.problem or 'is not valid YAML'}") from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path}:1: must be a mapping of sections")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise SettingsError("\n".join(_fault(path, tree, dict(e)) for e in error.errors())) from error


def _fault(path: Path, tree: yaml.Node | None, error: dict[str, Any]) -> str:
    location = tuple(error["loc"])
    where = f"{path}:{_line_of(tree, location)}"
    dotted = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        known = known_names(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else f" (known: {', '.join(known)})"
        return f"{where}: unknown key '{dotted}'{hint}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {dotted}: {message}"


def known_names(location: tuple[Any, ...]) -> list[str]:
    """Return the setting names allowed below `location`."""
    model: type[BaseModel] | None = Settings
    for part in location:
        field = model.model_fields.get(str(part)) if model is not None else None
        annotation = field.annotation if field is not None else None
        model = None
        for candidate in [annotation, *getattr(annotation, "__args__", ())]:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return sorted(model.model_fields) if model is not None else []


def _line_of(node: yaml.Node | None, location: tuple[Any, ...]) -> int:
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


# -- one running installation -------------------------------------------------------------------------------------


LOOPBACK = "127.0.0.1"
SECRET_BYTES = 32


@dataclass(frozen=True)
class Ports:
    """Ports of the processes, on loopback unless `Addresses` says otherwise."""

    public: int
    proxy_api: int
    hub: int
    documents: int
    control: int


@dataclass(frozen=True)
class Addresses:
    """Where the processes of an installation find each other when they are not on one machine."""

    hosts: dict[str, str] = field(default_factory=dict)  # by process: proxy_api, hub, documents, control
    bind: str = LOOPBACK  # what each of them listens on
    own: str = ""  # host:port at which the others reach this very process, when several do one work


@dataclass(frozen=True)
class Service:
    """Everything a process of one installation needs to know. `state` is the installation's folder."""

    state: Path
    settings: Settings
    ports: Ports
    documents_token: str
    control_token: str
    proxy_token: str
    addresses: Addresses = field(default_factory=Addresses)
    secrets: Path | None = None  # where somebody else keeps the keys; None: DIR/keys, made on first use
    drive: Path | None = None  # the volume of drives and trash; None: DIR

    # Addresses. "public" is what browsers see; "api" is what any client on this machine can resolve.

    @property
    def _public_port(self) -> str:
        service = self.settings.service
        port = service.public_port if service.public_port is not None else self.ports.public
        return "" if port == (443 if service.https else 80) else f":{port}"

    @property
    def _scheme(self) -> str:
        return "https" if self.settings.service.https else "http"

    @property
    def app_origin(self) -> str:
        return f"{self._scheme}://{self.settings.service.app_host}{self._public_port}"

    @property
    def api_origin(self) -> str:
        return f"{self._scheme}://{self.settings.service.api_host}{self._public_port}"

    def runtime_host(self, user: str) -> str:
        """Return the host name of `user`'s runtimes, without port."""
        return self.settings.service.runtime_host.format(user=host_label(user))

    def runtime_origin(self, user: str) -> str:
        """Return the origin under which browsers reach `user`'s runtimes."""
        return f"{self._scheme}://{self.runtime_host(user)}{self._public_port}"

    @property
    def operator_token(self) -> str:
        """Return the token of the command line: an administrator of the hub. No service uses it."""
        return self.key("operator").hex()

    def url_of(self, process: str) -> str:
        """Return where the others reach `proxy_api`, `hub`, `documents` or `control`."""
        host = url_host(self.addresses.hosts.get(process, LOOPBACK))
        return f"http://{host}:{getattr(self.ports, process)}"

    @property
    def hub_api_url(self) -> str:
        return self.url_of("hub") + "/hub/api"

    @property
    def hub_public_url(self) -> str:
        return f"{self.app_origin}/hub"

    @property
    def proxy_api_url(self) -> str:
        return self.url_of("proxy_api")

    @property
    def kernel_control_url(self) -> str:
        """Where code inside a runtime reaches control: through the proxy on one machine, directly in a cluster."""
        runtimes = self.settings.runtimes
        if "control" in self.addresses.hosts:
            return self.url_of("control") + "/services/control/"
        if runtimes.backend == "docker":
            outside = f"http://host.docker.internal:{self.ports.public}/services/control/"
            return runtimes.docker.control_url or outside
        return f"http://{LOOPBACK}:{self.ports.public}/services/control/"

    # Files.

    @property
    def drive_root(self) -> Path:
        return self.drive or self.state

    @property
    def documents_database_url(self) -> str:
        return self.settings.documents.database or f"sqlite:///{self.state}/databases/documents.sqlite"

    @property
    def control_database_url(self) -> str:
        return self.settings.control.database or f"sqlite:///{self.state}/databases/control.sqlite"

    @property
    def hub_database_url(self) -> str:
        return self.settings.hub.database or f"sqlite:///{self.state}/databases/hub.sqlite"

    @property
    def accounts_path(self) -> Path:
        return self.state / "databases" / "accounts.sqlite"

    @property
    def runtimes_folder(self) -> Path:
        return self.state / "runtimes"

    def key(self, name: str) -> bytes:
        """Return the 32 bytes of `keys/<name>.key`, made on first use: `ticket`, `session`, `hub-cookie`, `operator`."""
        if self.secrets is not None:
            return mounted_secret(self.secrets / f"{name}.key")
        return secret_file(self.state / "keys" / f"{name}.key")


def url_host(host: str) -> str:
    """Return a host name or address as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def host_label(user: str) -> str:
    """Return `user` as one DNS label: itself when it already is one, else a stable hash (never two users on one label)."""
    if re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,40}[a-z0-9])?", user) and not user.startswith("x--"):
        return user
    import hashlib

    return "x--" + hashlib.sha256(user.encode()).hexdigest()[:40]


def secret_file(path: Path) -> bytes:
    """Return the content of a 32-byte secret file, made with mode 0600 on first use; safe when two processes race."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    draft.touch(mode=0o600)
    draft.write_bytes(secrets.token_bytes(SECRET_BYTES))
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_bytes()


def mounted_secret(path: Path) -> bytes:
    """Return the content of a secret that somebody else made. Raise SettingsError when it is not there or too short."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: the secret cannot be read: {error.strerror}") from error
    if len(content) < SECRET_BYTES:
        raise SettingsError(f"{path}: the secret has {len(content)} bytes; {SECRET_BYTES} are needed")
    return content


def service_file(state: Path) -> Path:
    """Return where `up` leaves the resolved settings of an installation."""
    return state / "run" / "service.json"


def save_service(service: Service) -> None:
    """Write the resolved settings for the other processes, mode 0600."""
    path = service_file(service.state)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = {
        "settings": service.settings.model_dump(mode="json"),
        "ports": vars(service.ports),
        "tokens": {
            "documents": service.documents_token,
            "control": service.control_token,
            "proxy": service.proxy_token,
        },
        "addresses": asdict(service.addresses),
        "secrets": str(service.secrets) if service.secrets is not None else None,
        "drive": str(service.drive) if service.drive is not None else None,
    }
    draft = path.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(data), "utf-8")
    draft.replace(path)


def load_service(state: Path) -> Service:
    """Return the installation whose state folder is `state`. Raise SettingsError when it was never started."""
    path = service_file(state)
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"{state}: no installation was started here; run 'minicolab up --state {state}' first"
        ) from None
    tokens = data["tokens"]
    return Service(
        state=state,
        settings=Settings.model_validate(data["settings"]),
        ports=Ports(**data["ports"]),
        documents_token=tokens["documents"],
        control_token=tokens["control"],
        proxy_token=tokens["proxy"],
        addresses=Addresses(**data.get("addresses", {})),
        secrets=Path(data["secrets"]) if data.get("secrets") else None,
        drive=Path(data["drive"]) if data.get("drive") else None,
    )


def cache_folder() -> Path:
    """Return where heavy things shared by installations are kept: `$MINICOLAB_CACHE`, else the system's or the user's cache.

    Root's own home is not used: a runtime may not look into it.
    """
    named = os.environ.get("MINICOLAB_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    if os.geteuid() == 0:
        return Path("/var/cache/minicolab")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minicolab"
