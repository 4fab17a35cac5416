"""Who may reach whom by NetworkPolicies: a pure evaluation. tests/cluster/enforce.py makes rules of a packet filter of the same.

As the API defines it: a pod that a policy selects for a direction may only do what some policy of that direction lists; one that
none selects may do everything. A connection needs both ends. Blocks of addresses are taken to match pods by their addresses too,
which is the least that a policy may rely on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod when it has a namespace, else an address outside."""

    name: str
    address: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def namespace_labels(self) -> Mapping[str, str]:
        return {"kubernetes.io/metadata.name": self.namespace or ""}


def may_reach(policies: Sequence[Policy], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Return whether the policies let `source` open a connection to a port of `target`."""
    out = _allows(policies, source, target, port, protocol, "Egress")
    return out and _allows(policies, target, source, port, protocol, "Ingress")


def _allows(
    policies: Sequence[Policy], own: End, other: End, port: int, protocol: str, direction: str
) -> bool:
    if own.namespace is None:
        return True
    selecting = [p["spec"] for p in policies if selects(p, own, direction)]
    if not selecting:
        return True
    peers = "to" if direction == "Egress" else "from"
    return any(
        _port(rule.get("ports"), port, protocol) and _peer(rule.get(peers), other, own)
        for spec in selecting
        for rule in spec.get(direction.lower()) or ()
    )


def selects(policy: Policy, pod: End, direction: str) -> bool:
    """Return whether a policy is about what a pod sends (`Egress`) or is sent (`Ingress`)."""
    spec = policy["spec"]
    return (
        policy["metadata"]["namespace"] == pod.namespace
        and direction in spec["policyTypes"]
        and _matches(spec["podSelector"], pod.labels)
    )


def _port(ports: Sequence[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for one in ports:
        assert set(one) <= {"protocol", "port"}, f"not evaluated: {one}"
        if one.get("protocol", "TCP") == protocol and one.get("port", port) == port:
            return True
    return False


def _peer(peers: Sequence[Mapping[str, Any]] | None, other: End, own: End) -> bool:
    return not peers or any(is_peer(peer, other, own) for peer in peers)


def is_peer(peer: Mapping[str, Any], other: End, own: End) -> bool:
    """Return whether `other` is one of those that a rule of a policy about `own` names."""
    block = peer.get("ipBlock")
    if block is not None:
        return _inside(other.address, block["cidr"]) and not any(
            _inside(other.address, cidr) for cidr in block.get("except", ())
        )
    if other.namespace is None:
        return False
    spaces = peer.get("namespaceSelector")
    if spaces is None:
        if other.namespace != own.namespace:
            return False
    elif not _matches(spaces, other.namespace_labels):
        return False
    return _matches(peer.get("podSelector") or {}, other.labels)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"not evaluated: {selector}"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _inside(address: str, cidr: str) -> bool:
    one, network = ipaddress.ip_address(address), ipaddress.ip_network(cidr)
    return one.version == network.version and one in network
