"""Where one cluster keeps its things, and the addresses it uses: all of it follows from its state folder."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.harness.errors import ClusterError
from cluster.harness.machine import output

FIRST, LAST = 64, 223  # the second byte of a cluster's network


@dataclass(frozen=True)
class Addresses:
    """The networks of a cluster: 10.`number`.0.0/16 in parts."""

    number: int

    def _at(self, rest: str) -> str:
        return f"10.{self.number}.{rest}"

    @property
    def network(self) -> str:
        return self._at("0.0/16")

    @property
    def machine(self) -> str:
        """This machine, as the cluster's pods see it."""
        return self._at("0.1")

    @property
    def uplink(self) -> str:
        return self._at("0.2")

    @property
    def node(self) -> str:
        return self._at("1.1")

    @property
    def pods(self) -> str:
        return self._at("2.0/23")

    @property
    def services(self) -> str:
        return self._at("16.0/20")

    @property
    def api_service(self) -> str:
        return self._at("16.1")

    @property
    def dns(self) -> str:
        return self._at("16.10")

    @property
    def pretended_pods(self) -> str:
        return self._at("64.0/18")

    @property
    def silent_pods(self) -> str:
        """Pretended pods at whose addresses nobody ever answers."""
        return self._at("128.0/18")

    @property
    def api_url(self) -> str:
        return f"https://{self.node}:6443"


@dataclass(frozen=True)
class Layout:
    """The places of a cluster."""

    state: Path

    @property
    def id(self) -> str:
        return hashlib.sha256(str(self.state).encode()).hexdigest()[:8]

    @property
    def run(self) -> Path:
        """Sockets and namespaces: a short path, and gone after a restart of the machine."""
        return Path("/run") / f"minicolab-{self.id}"

    @property
    def network_namespace(self) -> Path:
        return self.run / "namespaces" / "net"

    @property
    def mount_namespace(self) -> Path:
        return self.run / "namespaces" / "mnt"

    @property
    def containerd(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def link(self) -> str:
        """The name of the machine's end of the cable to the node."""
        return f"mc-{self.id}"

    @property
    def cgroup(self) -> str:
        return f"minicolab-{self.id}"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def configuration(self) -> Path:
        return self.state / "configuration"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's, to be used from the machine."""
        return self.state / "kubeconfig"

    @property
    def record(self) -> Path:
        return self.state / "cluster.json"

    def addresses(self) -> Addresses | None:
        """Return the addresses of the cluster that was made here, if one was."""
        try:
            return Addresses(**json.loads(self.record.read_text("utf-8")))
        except FileNotFoundError:
            return None

    def allot(self) -> Addresses:
        """Return the addresses to use, and remember them: those from before, else a network that no route leads to."""
        known = self.addresses()
        if known is not None:
            return known
        chosen = free_network(int(self.id, 16))
        self.state.mkdir(parents=True, exist_ok=True)
        self.record.write_text(json.dumps(asdict(chosen)), "utf-8")
        return chosen


def free_network(wish: int) -> Addresses:
    """Return addresses that overlap with no route of this machine. Raise ClusterError when there are none."""
    taken = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in json.loads(output("ip", "-j", "-4", "route", "show", "table", "all") or "[]")
        if route["dst"] != "default"
    ]
    span = LAST - FIRST + 1
    for step in range(span):
        addresses = Addresses(FIRST + (wish + step) % span)
        if not any(ipaddress.ip_network(addresses.network).overlaps(other) for other in taken):
            return addresses
    raise ClusterError("every network from 10.64.0.0 to 10.223.0.0 is in use on this machine")
