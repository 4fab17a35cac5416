"""What a container of a runtime is made with. Pure: a RuntimeSpec and settings in, the engine's arguments out.

Labels say whose a container is; only those of our own installation are ever touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from spawner.container.spec import DRIVES, VARIABLE
from spawner.docker.devices import device_environment
from spawner.model import KEPT_CAPABILITIES, RuntimeSpec

MANAGED_BY, INSTALLATION = "app.kubernetes.io/managed-by", "minicolab.dev/installation"
RUNTIME, USER, FILE = "minicolab.dev/runtime", "minicolab.dev/user", "minicolab.dev/file"
DEADLINE, SNAPSHOT = "minicolab.dev/deadline", "minicolab.dev/snapshot-bytes"
# When the whole machine is short of memory, a runtime goes before the services do.
OOM_SCORE_ADJUSTMENT = 300
LOG_BYTES = "1m"
START_ALLOWANCE = timedelta(minutes=5)
OUTSIDE = "host.docker.internal"
ROOT_USER, PLAIN_USER = 0, 1000


@dataclass(frozen=True)
class ContainerSettings:
    """How containers of one installation are made.

    `root`: code inside is root of its container, so that apt-get works, with the few capabilities that needs; `disk_bytes` limits
    /content, and as much again beside it.
    """

    installation: str
    image: str
    network: str
    root: bool = True
    disk_bytes: int | None = None

    @property
    def user(self) -> int:
        return ROOT_USER if self.root else PLAIN_USER


def container_name(installation: str, runtime_id: str) -> str:
    """Return the name of a runtime's container."""
    return f"minicolab-{installation}-{runtime_id}"


def own_labels(installation: str) -> dict[str, str]:
    """Return the labels that all our containers and networks have, and nobody else's."""
    return {MANAGED_BY: "minicolab", INSTALLATION: installation}


def labels_of(spec: RuntimeSpec, installation: str, now: datetime) -> dict[str, str]:
    """Return what is written on a container. The deadline is for people: the supervisor carries the one that counts."""
    deadline = now + START_ALLOWANCE + timedelta(seconds=spec.max_lifetime_seconds)
    return {
        **own_labels(installation),
        RUNTIME: spec.id,
        USER: spec.user,
        FILE: spec.file_id,
        DEADLINE: deadline.isoformat(timespec="seconds"),
        SNAPSHOT: str(spec.snapshot_bytes),
    }


def container_arguments(
    spec: RuntimeSpec,
    settings: ContainerSettings,
    told: str,
    content: Mapping[str, Any],
    devices: Mapping[str, Any],
    now: datetime,
) -> dict[str, Any]:
    """Return the body of the engine's create call. `content` is mounted as /content; `devices`: of the lease (device_arguments)."""
    home, user = ("/root", "root") if settings.root else ("/home/runtime", "runtime")
    labels = labels_of(spec, settings.installation, now)
    mount = {**content, "Target": "/content"}
    if "VolumeOptions" in mount:
        mount["VolumeOptions"] = {**mount["VolumeOptions"], "Labels": own_labels(settings.installation)}
    host: dict[str, Any] = {
        "Mounts": [mount],
        # Ours, and empty: a drive appears below it after consent, so it must not be the user's to move away.
        "Tmpfs": {DRIVES: "rw,nosuid,nodev,noexec,size=64k,mode=0755"},
        "Memory": spec.shape.memory_bytes,
        "MemorySwap": spec.shape.memory_bytes,
        "NanoCpus": int(spec.shape.cpus * 1e9),
        "PidsLimit": spec.shape.processes,
        "ShmSize": spec.shape.memory_bytes // 2,
        "CapDrop": ["ALL"],
        "CapAdd": list(KEPT_CAPABILITIES) if settings.root else [],
        "SecurityOpt": ["no-new-privileges"],
        "OomScoreAdj": OOM_SCORE_ADJUSTMENT,
        "NetworkMode": settings.network,
        "ExtraHosts": [f"{OUTSIDE}:host-gateway"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_BYTES, "max-file": "1"}},
        "RestartPolicy": {"Name": "no"},
        **devices,
    }
    return {
        "Image": settings.image,
        "Hostname": spec.id,
        "User": f"{settings.user}:{settings.user}",
        "Env": [f"{VARIABLE}={told}", f"HOME={home}", f"USER={user}", *device_environment(spec.devices)],
        "WorkingDir": "/content",
        "Labels": labels,
        "HostConfig": host,
    }


def network_arguments(settings: ContainerSettings) -> dict[str, Any]:
    """Return what the installation's own network is made with: runtimes reach the world, but not each other."""
    return {
        "driver": "bridge",
        "labels": own_labels(settings.installation),
        "options": {"com.docker.network.bridge.enable_icc": "false"},
        "check_duplicate": True,
    }


def is_ours(labels: Mapping[str, str] | None, installation: str) -> bool:
    """Return whether something with these labels belongs to this installation."""
    return labels is not None and own_labels(installation).items() <= dict(labels).items()
