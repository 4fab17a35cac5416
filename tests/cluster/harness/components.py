"""The command lines of the cluster's programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.harness import kubeconfig, programs
from cluster.harness.certificates import Authority, Pair
from cluster.harness.configuration import DOMAIN, NODE_NAME
from cluster.harness.layout import Addresses, Layout

ETCD = "http://127.0.0.1:2379"
ETCD_PEERS = "http://127.0.0.1:2380"
PRETENDED_GPUS = 2
LEASE_OF_PRETENDED_NODES = 40
API = "https://127.0.0.1:6443"

# In this order they are started; the controllers' default limits for clients make every start slower.
ORDER = (
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "fakedp",
    "kwok",
)


@dataclass(frozen=True)
class Keys:
    """Every certificate and kubeconfig the programs need."""

    authority: Authority
    api_serving: Pair
    api_to_kubelet: Pair
    kubelet_serving: Pair
    accounts: Pair
    access: dict[str, Path]

    @staticmethod
    def make(layout: Layout, addresses: Addresses) -> Keys:
        authority = Authority(layout.keys)
        service = "kubernetes.default.svc"
        api_names = [
            *("127.0.0.1", "localhost", addresses.node, addresses.api_service),
            *("kubernetes", "kubernetes.default", service, f"{service}.{DOMAIN}"),
        ]
        users = {
            "admin": authority.client("admin", "admin", "system:masters"),
            "controllers": authority.client("controllers", "system:kube-controller-manager"),
            "scheduler": authority.client("scheduler", "system:kube-scheduler"),
            "node": authority.client("node", f"system:node:{NODE_NAME}", "system:nodes"),
            "proxy": authority.client("proxy", "system:kube-proxy"),
        }
        certificate = authority.pair.certificate
        kubeconfig.write(layout.kubeconfig, addresses.api_url, certificate, users["admin"])
        return Keys(
            authority=authority,
            api_serving=authority.server("apiserver", "kube-apiserver", api_names),
            api_to_kubelet=authority.client("apiserver-kubelet", "kube-apiserver", "system:masters"),
            kubelet_serving=authority.server(
                "kubelet", f"system:node:{NODE_NAME}", [addresses.node, "127.0.0.1", NODE_NAME]
            ),
            accounts=authority.signing_key(),
            access={
                name: kubeconfig.write(layout.keys / f"{name}.kubeconfig", API, certificate, user)
                for name, user in users.items()
            },
        )


def command_lines(layout: Layout, addresses: Addresses, keys: Keys) -> dict[str, Sequence[str]]:
    """Return each program's command line, in ORDER."""
    lines: dict[str, Sequence[str]] = {
        "containerd": ["containerd", "-c", f"{layout.configuration}/containerd.toml"],
        "etcd": _etcd(layout),
        "kube-apiserver": _api_server(addresses, keys),
        "kube-controller-manager": _controllers(keys),
        "kube-scheduler": [
            *_program("kube-scheduler", keys.access["scheduler"]),
            *("--kube-api-qps=500", "--kube-api-burst=1000"),
        ],
        "kubelet": [
            str(programs.get("kubelet")),
            f"--config={layout.configuration}/kubelet.yaml",
            f"--kubeconfig={keys.access['node']}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={addresses.node}",
        ],
        "kube-proxy": [str(programs.get("kube-proxy")), f"--config={layout.configuration}/kube-proxy.yaml"],
        "fakedp": [str(programs.get("fakedp")), "-resource", "nvidia.com/gpu", "-count", str(PRETENDED_GPUS)],
        "kwok": kwok(keys.access["admin"], addresses, "fake", addresses.pretended_pods),
    }
    return {name: lines[name] for name in ORDER}


def kwok(access: Path, addresses: Addresses, name: str, pods: str) -> list[str]:
    """Return the command line of a KWOK that keeps the pretended nodes of a name, whose pods have addresses in `pods`."""
    return [
        str(programs.get("kwok")),
        *("--kubeconfig", str(access)),
        *("--config", str(programs.get(programs.KWOK_STAGES))),
        *("--manage-nodes-with-annotation-selector", f"kwok.x-k8s.io/node={name}"),
        *("--node-lease-duration-seconds", str(LEASE_OF_PRETENDED_NODES)),
        *("--cidr", pods),
        *("--node-ip", addresses.node),
    ]


def _etcd(layout: Layout) -> list[str]:
    return [
        str(programs.get("etcd")),
        *("--data-dir", f"{layout.state}/etcd", "--unsafe-no-fsync", "--log-level", "warn"),
        *("--listen-client-urls", ETCD, "--advertise-client-urls", ETCD),
        *("--listen-peer-urls", ETCD_PEERS, "--initial-advertise-peer-urls", ETCD_PEERS),
        *("--initial-cluster", f"default={ETCD_PEERS}"),
    ]


def _api_server(addresses: Addresses, keys: Keys) -> list[str]:
    return [
        str(programs.get("kube-apiserver")),
        f"--etcd-servers={ETCD}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={addresses.node}",
        "--secure-port=6443",
        f"--tls-cert-file={keys.api_serving.certificate}",
        f"--tls-private-key-file={keys.api_serving.key}",
        f"--client-ca-file={keys.authority.pair.certificate}",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={keys.accounts.certificate}",
        f"--service-account-signing-key-file={keys.accounts.key}",
        f"--service-cluster-ip-range={addresses.services}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={keys.api_to_kubelet.certificate}",
        f"--kubelet-client-key={keys.api_to_kubelet.key}",
        f"--kubelet-certificate-authority={keys.authority.pair.certificate}",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def _controllers(keys: Keys) -> list[str]:
    return [
        *_program("kube-controller-manager", keys.access["controllers"]),
        f"--service-account-private-key-file={keys.accounts.key}",
        f"--root-ca-file={keys.authority.pair.certificate}",
        "--use-service-account-credentials=true",
        f"--cluster-signing-cert-file={keys.authority.pair.certificate}",
        f"--cluster-signing-key-file={keys.authority.pair.key}",
        *("--kube-api-qps=200", "--kube-api-burst=400"),
    ]


def _program(name: str, access: Path) -> list[str]:
    """The part that controller manager and scheduler have in common."""
    return [
        str(programs.get(name)),
        f"--kubeconfig={access}",
        f"--authentication-kubeconfig={access}",
        f"--authorization-kubeconfig={access}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]
