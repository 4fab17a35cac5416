"""The configuration files of the cluster's programs, with what machines like ours need in them.

containerd and kubelet may not raise a score for the kernel's out-of-memory choice (no CAP_SYS_RESOURCE), control groups may be of
version 1, and kube-proxy may not set limits of connection tracking.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from cluster.harness.certificates import Authority, Pair
from cluster.harness.images import PAUSE
from cluster.harness.layout import Addresses, Layout

CNI_PROGRAMS = Path("/usr/lib/cni")
NODE_NAME = "node1"
DOMAIN = "cluster.local"
MOST_PROCESSES = 2048  # of one pod


def write(
    layout: Layout, addresses: Addresses, authority: Authority, serving: Pair, proxy_access: Path
) -> None:
    """Write every file that is not as it should be."""
    contents = {
        "containerd.toml": containerd(layout),
        "cni/10-pods.conflist": json.dumps(pod_network(layout, addresses)),
        "resolv.conf": f"nameserver {addresses.dns}\n",
        "kubelet.yaml": yaml.safe_dump(kubelet(layout, addresses, authority, serving), sort_keys=False),
        "kube-proxy.yaml": yaml.safe_dump(kube_proxy(addresses, proxy_access), sort_keys=False),
    }
    for name, content in contents.items():
        file = layout.configuration / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # kube-proxy ends when its file is touched.
        if not file.exists() or file.read_text("utf-8") != content:
            file.write_text(content, "utf-8")


def containerd(layout: Layout) -> str:
    """containerd's configuration."""
    return f"""version = 2
root = "{layout.state}/containerd"
state = "{layout.run}/containerd"
oom_score = 0
[grpc]
  address = "{layout.containerd}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{layout.configuration}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def pod_network(layout: Layout, addresses: Addresses) -> dict[str, Any]:
    """How a pod is joined to the node's network."""
    addressing = {
        "type": "host-local",
        "ranges": [[{"subnet": addresses.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{layout.run}/addresses",
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {**bridge, "ipam": addressing},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet(layout: Layout, addresses: Addresses, authority: Authority, serving: Pair) -> dict[str, Any]:
    """kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": addresses.node,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.pair.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{layout.containerd}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "protectKernelDefaults": False,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "podPidsLimit": MOST_PROCESSES,
        "clusterDNS": [addresses.dns],
        "clusterDomain": DOMAIN,
        "resolvConf": str(layout.configuration / "resolv.conf"),
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "volumePluginDir": f"{layout.state}/kubelet/volumeplugins",
        "seccompDefault": True,
    }


def kube_proxy(addresses: Addresses, access: Path) -> dict[str, Any]:
    """kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": addresses.node,
        "hostnameOverride": NODE_NAME,
        "clusterCIDR": addresses.pods,
        "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": str(access)},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
