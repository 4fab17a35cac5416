"""Which flavors are on offer, and which devices a request gets. Pure: the inventory and what is held are arguments."""

from __future__ import annotations

import re
from collections.abc import Collection

from gpu_scheduler.model import NONE, Device, Inventory, Offer

FAMILIES = ("RTX", "GTX", "TITAN")
CPU = Offer(NONE, "CPU", True, None)


def flavor_name(product: str) -> str:
    """Return the flavor's name of a product such as `NVIDIA A100-SXM4-80GB`: `A100`.

    Source: the product names NVML reports (nvidia-ml-py, nvmlDeviceGetName).
    """
    words = re.sub(r"^((NVIDIA|Tesla|GeForce|Quadro)\b\s*)+", "", product.strip())
    parts = [part for part in re.split(r"[-\s]", words) if part]
    # A family's name says too little: a 3090 and a 4090 are two flavors.
    name = "".join(parts[:2]) if parts[:1] and parts[0].upper() in FAMILIES else "".join(parts[:1])
    return re.sub(r"[^A-Za-z0-9]", "", name).upper() or "GPU"


def offer(inventory: Inventory, held: Collection[str]) -> tuple[Offer, ...]:
    """Return the flavors a user can see, NONE first, then by name. `held` are ids of devices somebody has."""
    out = [CPU]
    for name in sorted({d.flavor for d in inventory.devices}):
        of_flavor = [d for d in inventory.devices if d.flavor == name]
        healthy = [d for d in of_flavor if d.healthy]
        free = [d for d in healthy if d.id not in held]
        reason = None
        if not healthy:
            reason = f"{len(of_flavor)} of {len(of_flavor)} devices are unhealthy."
        elif not free:
            reason = f"{len(healthy)} of {len(healthy)} devices are in use."
        out.append(Offer(name, of_flavor[0].title, reason is None, reason))
    return tuple(out)


def pick(inventory: Inventory, flavor: str, held: Collection[str]) -> Device | None:
    """Return the free, healthy device of the flavor with the smallest id, None when there is none."""
    free = [d for d in inventory.devices if d.flavor == flavor and d.healthy and d.id not in held]
    return min(free, key=lambda d: d.id, default=None)
