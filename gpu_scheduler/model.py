"""The values of accelerators. Pure.

flavor      a named kind of accelerator that a user picks: NONE, T4, A100 …
offer       a flavor as a user sees it: whether it can be had now, and why not
device      a physical accelerator
inventory   the devices a machine or cluster has, and why it has none
slot        the smallest part of an accelerator that is granted
claim       a request for slots; a granted one holds a lease of each
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

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
class Offer:
    """A flavor as a user sees it: `available` when it may be picked. `reason` says why it can not be had at once; None when it can."""

    name: str
    title: str
    available: bool
    reason: str | None


# -- clusters -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flavor:
    """A flavor as the settings of a cluster describe it: `count` of a resource, all on one node that has these labels.

    `pool`: how many runtimes may have it at once where the cluster adds nodes by itself; 0: as many as the nodes there are allow.
    """

    name: str
    title: str
    resource: str
    count: int
    node_selector: Mapping[str, str] = field(default_factory=dict)
    pool: int = 0


@dataclass(frozen=True)
class Node:
    """A node of a cluster. `usable`: it is ready and takes new work; `has` is how much of each resource it offers."""

    name: str
    labels: Mapping[str, str]
    has: Mapping[str, int]
    usable: bool


@dataclass(frozen=True)
class Nodes:
    """The nodes there are. `reason` says why they are not known; None when they are."""

    nodes: tuple[Node, ...]
    reason: str | None = None


class ClaimState(StrEnum):
    """A claim waits, is granted, and ends when its runtime is provably gone."""

    WAITING = "waiting"
    GRANTED = "granted"
    ENDED = "ended"


@dataclass(frozen=True)
class Claim:
    """A request for the slots of one flavor. `id` is its runtime's; `number` its place in the order of arrival.

    `slots` are those it holds, as `node/resource/number`; `epoch` grows with every grant, so that an old one can be told.
    """

    id: str
    user: str
    teams: frozenset[str]
    flavor: str
    number: int = 0
    state: ClaimState = ClaimState.WAITING
    slots: tuple[str, ...] = ()
    epoch: int = 0


@dataclass(frozen=True)
class ClaimLimits:
    """How many claims may be granted at once; None: as many as there are slots."""

    per_user: int | None = None
    per_team: int | None = None


@dataclass(frozen=True)
class Waiting:
    """Where a claim stands: `position` 1 is next of `of`; `reason` is what it waits for, as one sentence."""

    position: int
    of: int
    code: str
    reason: str
