"""The environment a runtime's server is started with, read once into frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minicolab_runtime.ticket import KEY_BYTES


class SettingsError(Exception):
    """The environment does not say what the server needs; the message names the variable and what to put there."""


@dataclass(frozen=True)
class RuntimeSettings:
    """What a runtime's server was told when it was started.

    `base_url` is such as `/user/ada/r-…/`; `port` 0 asks for any free one; `allow_origin` is the one web origin whose pages may
    call this server (empty: none); `memory_bytes` is the limit to show where no cgroup says it.
    """

    runtime_id: str
    user: str
    file_id: str
    base_url: str
    host: str
    port: int
    ticket_key: bytes
    allow_origin: str
    root: Path
    runtime_dir: Path
    ready_file: Path | None
    prestart: bool
    memory_bytes: int | None


def read_settings(environment: Mapping[str, str]) -> RuntimeSettings:
    """Return the settings in `environment`, or raise SettingsError."""
    runtime_dir = Path(_required(environment, "MINICOLAB_RUNTIME_DIR"))
    root = Path(environment.get("MINICOLAB_ROOT", "/content"))
    if not root.is_dir():
        raise SettingsError(
            f"MINICOLAB_ROOT is {root}, which is not a folder; name the runtime's working folder."
        )
    ready_file = environment.get("MINICOLAB_READY_FILE", "")
    return RuntimeSettings(
        runtime_id=_required(environment, "MINICOLAB_RUNTIME_ID"),
        user=_required(environment, "MINICOLAB_USER"),
        file_id=environment.get("MINICOLAB_FILE_ID", ""),
        base_url=_base_url(_required(environment, "MINICOLAB_BASE_URL")),
        host=environment.get("MINICOLAB_HOST", "127.0.0.1"),
        port=_integer(environment, "MINICOLAB_PORT", 0, 65535) or 0,
        ticket_key=_key(Path(_required(environment, "MINICOLAB_TICKET_KEY_FILE"))),
        allow_origin=environment.get("MINICOLAB_ALLOW_ORIGIN", "").rstrip("/").lower(),
        root=root,
        runtime_dir=runtime_dir,
        ready_file=Path(ready_file) if ready_file else None,
        prestart=environment.get("MINICOLAB_PRESTART", "") == "1",
        memory_bytes=_integer(environment, "MINICOLAB_MEMORY_BYTES", 0, 1 << 62),
    )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set; minicolab's supervisor sets it when it starts a runtime.")
    return value


def _base_url(text: str) -> str:
    if not text.startswith("/"):
        raise SettingsError(
            f"MINICOLAB_BASE_URL is {text!r}; it must start with '/', such as /user/ada/r-abc/."
        )
    return text if text.endswith("/") else text + "/"


def _integer(environment: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise SettingsError(f"{name} is {text!r}; it must be an integer from {low} to {high}.")
    return int(text)


def _key(path: Path) -> bytes:
    """Return the runtime's key: 32 raw bytes, or the same as 64 hexadecimal digits."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"MINICOLAB_TICKET_KEY_FILE {path} cannot be read: {error.strerror}.") from None
    if len(raw) == KEY_BYTES:
        return raw
    try:
        key = bytes.fromhex(raw.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(f"MINICOLAB_TICKET_KEY_FILE {path} does not hold a key of {KEY_BYTES} bytes.")
    return key
