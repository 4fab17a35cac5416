"""The node: a network namespace and a mount namespace in which kubelet, containerd and the pods live.

The machine's own mounts and packet rules stay as they are. A cable (veth) joins both sides, and one route leads from the machine to
everything in the cluster. What programs keep at fixed places of the file system (kubelet's folder, logs, CNI's records) is a folder
of the cluster's own there. The namespaces end, with every mount in them, when nothing runs in them and their files are gone.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cluster.harness.layout import Addresses, Layout
from cluster.harness.machine import command
from cluster.harness.mounts import mounted, unmount_all

KUBELET = Path("/var/lib/kubelet")
# Where programs write whatever they are told, and the folder of the state folder that is bound there.
FIXED = {KUBELET: "kubelet", Path("/var/log"): "log", Path("/var/lib/cni"): "cni"}
FIXED_IN_MEMORY = (Path("/run/netns"), Path("/run/containerd"))

BRIDGE = "node0"


class Node:
    """The namespaces of a cluster's one real node."""

    def __init__(self, layout: Layout, addresses: Addresses) -> None:
        self.layout = layout
        self.addresses = addresses

    @property
    def enter(self) -> tuple[str, ...]:
        """What a command line begins with that runs in the node; it takes absolute paths only."""
        return (
            "nsenter",
            f"--net={self.layout.network_namespace}",
            f"--mount={self.layout.mount_namespace}",
            "--",
        )

    @property
    def up(self) -> bool:
        return mounted(self.layout.mount_namespace) and mounted(self.layout.network_namespace)

    def run(self, *arguments: str, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the node."""
        return command(*self.enter, *arguments, text=text, check=check)

    def make(self) -> None:
        """Make the namespaces and join them to the machine, as far as that is not done."""
        if not self.up:
            self._make_namespaces()
            self._make_mounts()
        self._make_network()

    def remove(self) -> None:
        """Remove the namespaces. Nothing may run in them any more."""
        command("ip", "link", "delete", self.layout.link, check=False)
        unmount_all(self.layout.run)

    def identities(self) -> set[int]:
        """Return the kernel's numbers of the namespaces: who runs in one of them has them in /proc."""
        files = (self.layout.network_namespace, self.layout.mount_namespace)
        return {file.stat().st_ino for file in files if mounted(file)}

    def inhabitants(self) -> list[int]:
        """Return the processes that run in the node."""
        ours = self.identities()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    held = {os.stat(process / "ns" / kind).st_ino for kind in ("net", "mnt")}
                except OSError:
                    continue
                if held & ours:
                    found.append(int(process.name))
        return found

    def _make_namespaces(self) -> None:
        folder = self.layout.mount_namespace.parent
        folder.mkdir(parents=True, exist_ok=True)
        if not mounted(folder):
            # A mount namespace can only be kept by a file on a mount that is private to its side.
            command("mount", "--bind", str(folder), str(folder))
            command("mount", "--make-private", str(folder))
        options = []
        for option, file in (
            ("--net", self.layout.network_namespace),
            ("--mount", self.layout.mount_namespace),
        ):
            file.touch()
            unmount_all(file)
            options.append(f"{option}={file}")
        command("unshare", *options, "--propagation", "private", "mount", "--make-rshared", "/")

    def _make_mounts(self) -> None:
        lines = []
        for target, name in FIXED.items():
            source = self.layout.state / name
            source.mkdir(parents=True, exist_ok=True)
            # Private first: a group of peers of its own, or every mount of a pod would appear in the source as well.
            lines += [
                f"mkdir -p {target}",
                f"mount --bind '{source}' {target}",
                f"mount --make-private {target}",
                f"mount --make-rshared {target}",
            ]
        for target in FIXED_IN_MEMORY:
            lines += [f"mkdir -p {target}", f"mount -t tmpfs tmpfs {target}"]
        self.run("sh", "-ec", "\n".join(lines))

    def _make_network(self) -> None:
        here, there = self.addresses, self.layout.link
        if not Path("/sys/class/net", there).exists():
            peer = ["type", "veth", "peer", "name", "uplink", "netns", str(self.layout.network_namespace)]
            command("ip", "link", "add", there, *peer)
        command("ip", "addr", "replace", f"{here.machine}/30", "dev", there)
        command("ip", "link", "set", there, "up")
        command("ip", "route", "replace", here.network, "via", here.uplink, "dev", there)
        # kubelet and the API server want a default route, and the node's own address on something that is always up.
        script = f"""
            ip link set lo up
            ip link show {BRIDGE} >/dev/null 2>&1 || ip link add {BRIDGE} type bridge
            ip addr replace {here.node}/24 dev {BRIDGE}
            ip link set {BRIDGE} up
            ip addr replace {here.uplink}/30 dev uplink
            ip link set uplink up
            ip route replace default via {here.machine} dev uplink
            echo 1 > /proc/sys/net/ipv4/ip_forward
        """
        self.run("sh", "-ec", script)
