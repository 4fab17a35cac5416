"""The values of accelerators. Pure.

flavor      a named kind a user picks: NONE, T4, A100 …
device      a physical accelerator
inventory   the devices a machine or cluster has, and why it has none
"""

from __future__ import annotations

from dataclasses import dataclass

NONE = "NONE"


@dataclass(frozen=True)
class Device:
    """One accelerator. `id` is its UUID, `node` the path of its device file, `memory_bytes` its own memory."""

    id: str
    flavor: str
    title: str
    node: str
    memory_bytes: int
    healthy: bool


@dataclass(frozen=True)
class Inventory:
    """What there is. `reason` says why there is nothing when `devices` is empty."""

    devices: tuple[Device, ...]
    reason: str


@dataclass(frozen=True)
class Flavor:
    """What a user may pick. `reason` says why it is not available; None when it is."""

    name: str
    title: str
    available: bool
    reason: str | None
