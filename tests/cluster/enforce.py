"""NetworkPolicies enforced on the test cluster's node, whose own network ignores them: translated to rules of its packet filter.

Rules are made from what the API server lists, anew whenever a pod gets its address, and apply to whatever a pod sends or is sent. As
in real networks they see packets after a service's address became a pod's or a node's, traffic from the node itself (kubelet's
probes) always passes, and for a moment a new pod is unknown. IPv4 only: the cluster has no other.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from cluster.harness.cluster import Cluster
from support.network_policies import End, Policy, is_peer, selects

log = logging.getLogger(__name__)

CHAIN = "MC-POLICY"
ENTRANCES = ("FORWARD", "INPUT")  # to other pods and outside; to the node, and the API server on it
LISTEN_SECONDS = 5
DIRECTIONS = {"Egress": ("E", "to", "-s", "-d"), "Ingress": ("I", "from", "-d", "-s")}


def translate(policies: Sequence[Policy], pods: Sequence[End]) -> str:
    """Return the rules as iptables-restore reads them: what is not refused goes on through the node's other rules."""
    chains, entrance = (
        [f":{CHAIN} - [0:0]"],
        [f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"],
    )
    rules: list[str] = []
    for number, pod in enumerate(pods):
        for direction, (letter, peers, own, other) in DIRECTIONS.items():
            selecting = [p["spec"] for p in policies if selects(p, pod, direction)]
            if not selecting:
                continue
            chain = f"MC-{letter}-{number}"
            chains.append(f":{chain} - [0:0]")
            entrance.append(f"-A {CHAIN} {own} {pod.address} -j {chain}")
            for rule in (r for spec in selecting for r in spec.get(direction.lower()) or ()):
                for address in _addresses(rule.get(peers), pod, pods):
                    rules += [
                        f"-A {chain} {other} {address}{port} -j RETURN" for port in _ports(rule.get("ports"))
                    ]
            rules.append(f"-A {chain} -j REJECT")
    return "\n".join(["*filter", *chains, *entrance, *rules, "COMMIT", ""])


def _ports(ports: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if not ports:
        return [""]
    return [f" -p {p.get('protocol', 'TCP').lower()} --dport {p['port']}" for p in ports]


def _addresses(peers: Sequence[Mapping[str, Any]] | None, own: End, pods: Sequence[End]) -> list[str]:
    if not peers:
        return ["0.0.0.0/0"]
    found: list[str] = []
    for peer in peers:
        block = peer.get("ipBlock")
        if block is None:
            found += [pod.address for pod in pods if is_peer(peer, pod, own)]
        elif ":" not in block["cidr"]:
            found += without(block["cidr"], block.get("except", ()))
    return found


def without(cidr: str, excepted: Sequence[str]) -> list[str]:
    """Return the networks that are what is left of one."""
    left = [ipaddress.IPv4Network(cidr)]
    for text in excepted:
        hole = ipaddress.IPv4Network(text)
        left = [
            part
            for network in left
            if not network.subnet_of(hole)
            for part in (network.address_exclude(hole) if hole.subnet_of(network) else (network,))
        ]
    return [str(network) for network in ipaddress.collapse_addresses(left)]


class Enforcer:
    """Keeps the node's rules as the policies and pods are. `ends` are the pods, by name, that they know."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        api = config.new_client_from_config(str(cluster.kubeconfig))
        self._core, self._network = client.CoreV1Api(api), client.NetworkingV1Api(api)
        self._seen: object = None
        self._stop = threading.Event()
        self.ends: dict[str, End] = {}

    def sync(self) -> None:
        """Make the rules what they must be now."""
        policies = [
            client.ApiClient().sanitize_for_serialization(item)
            for item in self._network.list_network_policy_for_all_namespaces().items
        ]
        pods = [
            End(item.metadata.name, item.status.pod_ip, item.metadata.namespace, item.metadata.labels or {})
            for item in self._core.list_pod_for_all_namespaces().items
            if item.status.pod_ip
            and not item.spec.host_network
            and item.status.phase in ("Pending", "Running")
        ]
        text = translate(policies, pods)
        if text != self._seen:
            self._cluster.node_command("iptables-restore", "--noflush", text=text)
            self._seen = text
        self.ends = {pod.name: pod for pod in pods}

    def follow(self) -> None:
        """Sync whenever a pod changes, until told to stop."""
        while not self._stop.is_set():
            try:
                self.sync()
                events = watch.Watch().stream(
                    self._core.list_pod_for_all_namespaces, timeout_seconds=LISTEN_SECONDS
                )
                for _ in events:
                    self.sync()
                    if self._stop.is_set():
                        return
            except (ApiException, HTTPError) as error:
                log.warning("the policies are looked at again: %s", error)

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def enforced(cluster: Cluster) -> Iterator[Enforcer]:
    """Enforce the cluster's policies while this lasts."""
    enforcer = Enforcer(cluster)
    enforcer.sync()
    for entrance in ENTRANCES:
        cluster.node_command("iptables", "-I", entrance, "1", "-j", CHAIN)
    thread = threading.Thread(target=enforcer.follow, daemon=True)
    thread.start()
    try:
        yield enforcer
    finally:
        enforcer.stop()
        thread.join()
        for entrance in ENTRANCES:
            cluster.node_command("iptables", "-D", entrance, "-j", CHAIN)
        listed = cluster.node_command("iptables-save", "-t", "filter").stdout.splitlines()
        chains = [line[1:].split()[0] for line in listed if line.startswith(":MC-")]
        for flag in ("-F", "-X"):
            for chain in sorted(chains, key=lambda name: name != CHAIN):
                cluster.node_command("iptables", flag, chain)
