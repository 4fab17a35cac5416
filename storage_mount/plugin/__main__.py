"""`python -m storage_mount.plugin --node NAME --drive-root DIR --namespace NAME`: the drive plugin of one node.

Runs as root where kubelet's folder is mounted with both ways of propagation. It may be killed and started at any time: what is
bound stays so for the running pods, and the next one goes on from what it finds.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage_mount.plugin.attendant import Attendant
from storage_mount.plugin.csi import Identity, Node
from storage_mount.plugin.pods import KubernetesApi, Pods
from storage_mount.plugin.registration import Registration
from storage_mount.plugin.serving import serve
from storage_mount.plugin.volumes import OWNER, Layout, Volumes

log = logging.getLogger(__name__)

FAILED = 1
GRACE_SECONDS = 5.0
TURN_SECONDS = 0.2


def main() -> int:
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    end = threading.Event()
    outcome = [0]

    def fail() -> None:
        outcome[0] = FAILED
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    layout = Layout(
        arguments.driver,
        arguments.kubelet_root,
        arguments.drive_root.resolve(),
        arguments.namespace,
        arguments.owner,
    )
    own = layout.kubelet_root / "plugins" / layout.driver
    own.mkdir(mode=0o750, parents=True, exist_ok=True)
    turn = _alone(own / "lock", end)
    if turn is None:
        return 0
    volumes = Volumes(layout)
    attendant = Attendant(volumes)
    api = KubernetesApi(
        _client(arguments.kubeconfig),
        namespace=arguments.namespace,
        node=arguments.node,
        installation=arguments.installation,
    )
    socket = own / "csi.sock"
    registrations = layout.kubelet_root / "plugins_registry" / f"{layout.driver}-reg.sock"
    servers = [
        serve(
            socket,
            Identity(layout.driver).handler(),
            Node(arguments.node, volumes, attendant.wake).handler(),
        ),
        serve(registrations, Registration(layout.driver, socket, fail).handler()),
    ]
    for name, work in (("attendant", attendant.run), ("pods", Pods(api, attendant.heard).run)):
        threading.Thread(target=_work, args=(work, fail), name=name, daemon=True).start()
    log.info("serving the driver %s on node %s", layout.driver, arguments.node)
    end.wait()
    for stopped in [server.stop(GRACE_SECONDS) for server in servers]:
        stopped.wait()
    os.close(turn)
    return outcome[0]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m storage_mount.plugin",
        description="Makes drives appear in running runtime pods of this node after consent.",
    )
    parser.add_argument("--node", required=True, help="the node's name in the cluster")
    parser.add_argument("--drive-root", required=True, type=Path, help="where the drive volume is mounted")
    parser.add_argument("--namespace", required=True, help="the namespace of runtimes")
    parser.add_argument("--installation", default="minicolab", help="only pods of this installation")
    parser.add_argument("--driver", default="drive.minicolab.dev", help="the name of the CSI driver")
    parser.add_argument("--owner", default=OWNER, type=int, help="the uid that all files on the volume have")
    parser.add_argument("--kubelet-root", default=Path("/var/lib/kubelet"), type=Path)
    parser.add_argument("--kubeconfig", type=Path, help="without it: the service account of the pod")
    return parser.parse_args()


def _alone(path: Path, end: threading.Event) -> int | None:
    """Wait until no other plugin of this driver runs on the node; return what keeps it so, None when it is to end before."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while not end.is_set():
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            end.wait(TURN_SECONDS)
        else:
            return fd
    os.close(fd)
    return None


def _client(kubeconfig: Path | None) -> Any:
    from kubernetes import client, config

    if kubeconfig is None:
        config.load_incluster_config()
    else:
        config.load_kube_config(str(kubeconfig))
    return client.CoreV1Api()


def _work(work: Callable[[], None], fail: Callable[[], None]) -> None:
    """Do a thread's work; when it ends, which it never should, so does the process, to be started again."""
    try:
        work()
    except Exception:
        log.exception("a part of the plugin has failed")
    fail()


if __name__ == "__main__":
    raise SystemExit(main())
