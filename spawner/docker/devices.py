"""How an engine is asked for the devices of a lease, and what its refusal means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NVIDIA = re.compile(r"/dev/nvidia\d+")
NO_DRIVER = "could not select device driver"
NO_GPUS = (
    "The Docker engine can not give GPUs to containers: the NVIDIA Container Toolkit is not installed where it runs,"
    " or the engine was not restarted since."
)
VISIBLE = "NVIDIA_VISIBLE_DEVICES"


def device_arguments(devices: tuple[str, ...], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the part of a HostConfig that gives exactly these device files.

    NVIDIA's are asked for by what NVIDIA calls them, as `names` says (/dev/nvidia0 → GPU-…): the number of the file need not be the
    number the driver counts by. Others, such as /dev/accel0 or /dev/vfio/0 of a TPU, are plain device files.
    """
    wanted = [names.get(d, d.removeprefix("/dev/nvidia")) for d in devices if NVIDIA.fullmatch(d)]
    plain = [
        d for d in devices if not d.startswith("/dev/nvidia")
    ]  # the toolkit brings what else of NVIDIA's is needed
    request = {"Driver": "", "DeviceIDs": wanted, "Capabilities": [["gpu"]], "Count": 0}
    return {
        "DeviceRequests": [request] if wanted else [],
        "Devices": [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rw"} for path in plain
        ],
    }


def device_environment(devices: tuple[str, ...]) -> list[str]:
    """Return what keeps the devices of others away: images of NVIDIA's ask for all, and an engine may be set to obey them."""
    return [] if any(NVIDIA.fullmatch(d) for d in devices) else [f"{VISIBLE}=void"]


def told_refusal(why: str) -> str | None:
    """Return what the engine's refusal means when this machine has not what was asked for."""
    if found := re.search(r"there are only (\d+) CPUs available", why):
        return f"The machine of the Docker engine has {found[1]} CPUs, and the runtime is to have more."
    if NO_DRIVER in why:
        return NO_GPUS
    if found := re.search(r'error gathering device information.*?"(/dev/[^"]+)"', why):
        return f"The device {found[1]} is not on the machine of the Docker engine."
    if found := re.search(r"device error: ([^:\s]+): unknown device", why):
        return f"The driver of this machine's GPUs does not know {found[1]}."
    return None
