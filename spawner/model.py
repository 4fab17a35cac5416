"""The values a runtime is described with. Pure: no I/O, no clock.

runtime     one user's machine for one notebook
shape       its size
phase       how far its start has come
rung        how well the local backend isolates it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

# What apt and pip need of root's power, inside the user namespace only.
KEPT_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
    "NET_BIND_SERVICE",
)


class Phase(StrEnum):
    """How far the start of a runtime has come, in order."""

    QUEUED = "queued"
    PREPARING = "preparing"
    SANDBOX = "sandbox"
    SERVER = "server"
    READY = "ready"


PHASE_SENTENCES: Mapping[Phase, str] = {
    Phase.QUEUED: "Waiting for a machine",
    Phase.PREPARING: "Preparing the runtime environment",
    Phase.SANDBOX: "Making a private machine",
    Phase.SERVER: "Starting Python",
    Phase.READY: "Connected",
}


@dataclass(frozen=True)
class Shape:
    """The size of a runtime. `memory_bytes`, `cpus` (cores), `processes` (processes and threads) are limits."""

    name: str
    memory_bytes: int
    cpus: float
    processes: int


@dataclass(frozen=True)
class EndReason:
    """Why a runtime ended: a stable code and a sentence; `boottime`: when (CLOCK_BOOTTIME, seconds), None when nobody knows."""

    code: str
    message: str
    boottime: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Budget:
    """A budget that is used up `seconds` after ready; `reason` is what is told then."""

    seconds: float
    reason: EndReason


@dataclass(frozen=True)
class LeftBehind:
    """What a runtime left when it ended: its executions, and /content packed, or why it was not."""

    executions: tuple[Mapping[str, Any], ...]
    snapshot: Path | None
    snapshot_note: str = ""


@dataclass(frozen=True)
class DriveAtStart:
    """A drive that its user has agreed to before the runtime starts, for machines that none can be brought into later."""

    id: str
    readonly: bool


@dataclass(frozen=True)
class RuntimeSpec:
    """Everything a backend needs to start a runtime.

    `id` is `r-` and 12 lower-case base32 characters; `base_url` such as `/user/ada/r-…/`; `allow_origin` the one web origin whose
    pages may call it; `control_url` where code inside reaches control, `public_control_url` where a person's browser does;
    lifetimes are in seconds, counted from ready.
    """

    id: str
    user: str
    file_id: str
    base_url: str
    shape: Shape
    accelerator: str
    devices: tuple[str, ...]
    max_lifetime_seconds: float
    idle_limit_seconds: float
    ticket_key: bytes
    allow_origin: str
    control_url: str
    public_control_url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    budget: Budget | None = None
    snapshot_bytes: int = 0
    drive: DriveAtStart | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where a runtime's server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class Observed:
    """A runtime as it really is. `ready_boottime` is in seconds of CLOCK_BOOTTIME, None until it is ready."""

    id: str
    user: str
    file_id: str
    state: str
    endpoint: Endpoint | None
    ready_boottime: float | None


@dataclass(frozen=True)
class Resources:
    """What a runtime uses. Sizes in bytes; `memory_limit` None means unlimited.

    `disk_used` is what it wrote, drives not counted; `oom_kills` how often a process was killed for want of memory.
    """

    memory_used: int
    memory_limit: int | None
    disk_used: int
    disk_free: int
    processes: int
    oom_kills: int = 0


@dataclass(frozen=True)
class Activity:
    """`seconds_ago`: since the last use by a person or a running cell. `busy`: a cell runs now."""

    busy: bool
    seconds_ago: float


@dataclass(frozen=True)
class MountPoint:
    """A drive inside a runtime."""

    target: str
    readonly: bool


@dataclass(frozen=True)
class IsolationReport:
    """What a backend keeps apart on this machine, and what it does not; each a short phrase."""

    rung: str
    isolates: tuple[str, ...]
    does_not: tuple[str, ...]
