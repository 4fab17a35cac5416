"""Who gets which slots of a cluster, and why others wait. Pure: nodes, claims and what is leased are arguments.

First come, first served: a claim that does not fit keeps those behind it from the nodes it waits for, so a large one is never
starved by small ones. One that may not be granted, because its user or team has as many as they may, holds up nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from gpu_scheduler.model import Claim, ClaimLimits, Flavor, Node, Nodes, Offer, Waiting
from gpu_scheduler.policy import CPU

POOL = "autoscaled-"  # begins the name of a node that stands for all an autoscaler may add


def nodes_for(flavor: Flavor, nodes: Sequence[Node]) -> Sequence[Node]:
    """Return the nodes a flavor may be on; one that stands for all where the cluster makes them as they are needed."""
    if flavor.pool == 0:
        return nodes
    return (
        Node(
            f"{POOL}{flavor.name}", flavor.node_selector, {flavor.resource: flavor.pool * flavor.count}, True
        ),
    )


def slots_of(flavor: Flavor, node: Node) -> tuple[str, ...]:
    """Return the slots a node has for a flavor; none when it is not such a node or takes no work."""
    if not node.usable or any(node.labels.get(k) != v for k, v in flavor.node_selector.items()):
        return ()
    return tuple(f"{node.name}/{flavor.resource}/{n}" for n in range(node.has.get(flavor.resource, 0)))


def place(
    flavor: Flavor, nodes: Sequence[Node], leased: Collection[str], barred: Collection[str] = ()
) -> tuple[str, ...] | None:
    """Return free slots on one node, of the node that is left with the fewest; None when no node has enough."""
    fits: list[tuple[int, str, tuple[str, ...]]] = []
    for node in nodes_for(flavor, nodes):
        if f"{node.name}/{flavor.resource}" in barred:
            continue
        free = [slot for slot in slots_of(flavor, node) if slot not in leased]
        if len(free) >= flavor.count:
            fits.append((len(free), node.name, tuple(free[: flavor.count])))
    return min(fits)[2] if fits else None


def admit(
    waiting: Sequence[Claim],
    granted: Sequence[Claim],
    flavors: Mapping[str, Flavor],
    nodes: Sequence[Node],
    limits: ClaimLimits,
) -> dict[str, tuple[str, ...]]:
    """Return which of the waiting claims are granted now, and the slots of each. `waiting` is in order of arrival."""
    held = list(granted)
    leased = {slot for claim in granted for slot in claim.slots}
    barred: set[str] = set()
    grants: dict[str, tuple[str, ...]] = {}
    for claim in waiting:
        flavor = flavors.get(claim.flavor)
        if flavor is None or over_limit(claim, held, limits) is not None:
            continue
        slots = place(flavor, nodes, leased, barred)
        if slots is None:
            barred |= {
                f"{node.name}/{flavor.resource}"
                for node in nodes_for(flavor, nodes)
                if len(slots_of(flavor, node)) >= flavor.count
            }
            continue
        grants[claim.id] = slots
        leased.update(slots)
        held.append(claim)
    return grants


def over_limit(claim: Claim, held: Sequence[Claim], limits: ClaimLimits) -> str | None:
    """Return the sentence that says which limit a claim would break, None when none."""
    if limits.per_user is not None and sum(c.user == claim.user for c in held) >= limits.per_user:
        return f"You have {_many(limits.per_user)} already, as many as one person may."
    if limits.per_team is not None:
        used = Counter(team for c in held for team in c.teams)
        for team in sorted(claim.teams):
            if used[team] >= limits.per_team:
                return f"The team {team} has {_many(limits.per_team)} already, as many as a team may."
    return None


def explain(
    claim: Claim,
    waiting: Sequence[Claim],
    granted: Sequence[Claim],
    flavors: Mapping[str, Flavor],
    found: Nodes,
    limits: ClaimLimits,
) -> Waiting:
    """Return where a waiting claim stands and what would let it go on."""
    rivals = [c for c in waiting if c.flavor == claim.flavor]
    ids = [c.id for c in rivals]
    position = ids.index(claim.id) + 1 if claim.id in ids else len(rivals) + 1
    of = max(position, len(rivals))

    def answer(code: str, reason: str) -> Waiting:
        return Waiting(position, of, code, reason)

    flavor = flavors.get(claim.flavor)
    if flavor is None:
        return answer("unknown_flavor", f"The accelerator {claim.flavor} is not offered any more.")
    if found.reason is not None and flavor.pool == 0:
        return answer("inventory_unknown", found.reason)
    limit = over_limit(claim, granted, limits)
    if limit is not None:
        return answer("over_limit", limit)
    large = [n for n in nodes_for(flavor, found.nodes) if len(slots_of(flavor, n)) >= flavor.count]
    if not large:
        return answer("no_such_node", f"No node of the cluster has {_of(flavor)} just now.")
    leased = {slot for c in granted for slot in c.slots}
    total = sum(len(slots_of(flavor, n)) for n in large)
    used = sum(slot in leased for n in large for slot in slots_of(flavor, n))
    if place(flavor, found.nodes, leased) is not None:
        return answer("behind_others", "Others came first and wait for the same nodes.")
    if used >= total:
        return answer("in_use", f"All {total} are in use." if total > 1 else "The only one is in use.")
    free = max(sum(s not in leased for s in slots_of(flavor, n)) for n in large)
    return answer(
        "too_few_together", f"{flavor.count} are needed on one node; at most {free} are free on one."
    )


def offer(
    flavors: Mapping[str, Flavor], found: Nodes, waiting: Sequence[Claim], granted: Sequence[Claim]
) -> tuple[Offer, ...]:
    """Return the flavors a user can see, NONE first, then by name. One that is in use is available: it can be waited for."""
    out = [CPU]
    leased = {slot for claim in granted for slot in claim.slots}
    for name in sorted(flavors):
        flavor = flavors[name]
        fits = any(len(slots_of(flavor, node)) >= flavor.count for node in nodes_for(flavor, found.nodes))
        reason = None
        if not fits:
            reason = found.reason or f"No node of the cluster has {_of(flavor)}."
        else:
            before = sum(claim.flavor == name for claim in waiting)
            if before or place(flavor, found.nodes, leased) is None:
                reason = f"In use now: {f'{before} wait before you' if before else 'you would be next'}."
        out.append(Offer(name, flavor.title, fits, reason))
    return tuple(out)


def _of(flavor: Flavor) -> str:
    return f"{flavor.count} of {flavor.resource}" if flavor.count > 1 else flavor.title


def _many(count: int) -> str:
    return "one accelerator" if count == 1 else f"{count} accelerators"
