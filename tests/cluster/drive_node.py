"""A node with the drive plugin, and runtime-like pods on it, for tests: the plugin as a process of the test, to be killed at will."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster.harness import storage
from cluster.harness.cluster import Cluster
from cluster.harness.errors import ClusterError
from cluster.harness.pods import restricted_pod
from spawner.container.spec import DRIVES as INSIDE
from spawner.kubernetes.volumes import DriveVolume, drive_volume
from storage_mount.plugin import mountinfo
from storage_mount.plugin.pods import DRIVES_ANNOTATION, INSTALLATION, MANAGED_BY
from support.patience import until

REPOSITORY = Path(__file__).resolve().parents[2]
KUBELET_ROOT = Path("/var/lib/kubelet")
NODE = "node1"
USER = 1000
ADA, BOB = "0f3c0f3c", "b0b0b0b0"
A, B = "a" * 12, "b" * 12


def drive(name: str = A, drive: str = ADA, *, readonly: bool = False) -> dict[str, Any]:
    return {"name": name, "drive": drive, "readonly": readonly}


class DriveNode:
    """The drives, a driver of this test's own, and the plugin that serves it."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        folder: Path,
        *,
        driver: str = "",
        installation: str = "minicolab",
    ) -> None:
        self.cluster, self.namespace, self.folder = cluster, namespace, folder
        self.driver = driver or f"drive-{secrets.token_hex(3)}.minicolab.dev"
        self.installation = installation
        self.root = folder / "volume"
        self.log = folder / "plugin.log"
        self.kubeconfig = self._account()
        for owner in (ADA, BOB):
            files = self.root / "drive" / owner / "deep" / "er"
            files.mkdir(parents=True)
            (files / "file").write_text(f"of {owner}")
            for path in (files / "file", files, files.parent, files.parents[1]):
                os.chown(path, USER, USER)
                path.chmod(0o600 if path.is_file() else 0o700)
        self._plugin: subprocess.Popen[bytes] | None = None
        self._claims: list[str] = []
        self.apply_driver()

    # -- the plugin -------------------------------------------------------------------------------------------

    def start(self, *, frozen: Path | None = None, kubeconfig: Path | None = None) -> None:
        """Start the plugin where the node's mounts are; `frozen`: one that stops at its steps, and says there at which (support.killed)."""
        which = ["storage_mount.plugin"] if frozen is None else ["support.killed", str(frozen)]
        with self.log.open("ab") as log:
            self._plugin = subprocess.Popen(
                [*self._enter, sys.executable, "-m", *which, *self.arguments(kubeconfig)],
                env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
                stdout=log,
                stderr=log,
                cwd="/",
            )

    @property
    def _enter(self) -> tuple[str, ...]:
        assert self.cluster.layout is not None
        return ("nsenter", f"--mount={self.cluster.layout.mount_namespace}", "--")

    def arguments(self, kubeconfig: Path | None = None) -> list[str]:
        return [
            *("--node", NODE, "--namespace", self.namespace, "--driver", self.driver),
            *("--installation", self.installation),
            *("--drive-root", str(self.root), "--kubeconfig", str(kubeconfig or self.kubeconfig)),
        ]

    def kill(self) -> None:
        """Kill the plugin as a power cut would, and only it."""
        assert self._plugin is not None
        self._plugin.kill()
        self._plugin.wait()

    def stop(self) -> int:
        """End the plugin as a cluster does; return its exit status."""
        assert self._plugin is not None
        self._plugin.terminate()
        return self._plugin.wait(60)

    # -- pods -------------------------------------------------------------------------------------------------

    def pod(
        self, *drives: dict[str, Any], volume: DriveVolume | None = None, labels: dict[str, str] | None = None
    ) -> str:
        """Make a pod as a runtime is, restricted, with the plugin's volume or another; return its name once it runs."""
        made = self.make_pod(*drives, volume=volume, labels=labels)
        self.cluster.apply(made)
        name = str(made["metadata"]["name"])
        self.cluster.wait(self.namespace, f"pod/{name}", "condition=Ready")
        return name

    def make_pod(
        self, *drives: dict[str, Any], volume: DriveVolume | None = None, labels: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return such a pod as an object."""
        volume = volume or drive_volume("csi", driver=self.driver)
        made = restricted_pod(
            f"r-{secrets.token_hex(4)}",
            self.namespace,
            ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
            limits={"memory": "256Mi"},
            volumes=[volume.volume],
        )
        made["metadata"]["labels"] |= {
            MANAGED_BY: "minicolab",
            INSTALLATION: self.installation,
            **(labels or {}),
        }
        made["metadata"]["annotations"] = {DRIVES_ANNOTATION: json.dumps(drives)}
        (container,) = made["spec"]["containers"]
        container["resources"]["requests"] = {"cpu": "10m", "memory": "16Mi"}  # many are on one node
        container["volumeMounts"] = list(volume.mounts)
        return made

    def ask(self, pod: str, *drives: dict[str, Any]) -> None:
        """Say which drives a pod may see from now on."""
        self.ask_of((pod,), *drives)

    def ask_of(self, pods: Iterable[str], *drives: dict[str, Any]) -> None:
        """Say which drives some pods may see from now on."""
        text = f"{DRIVES_ANNOTATION}={json.dumps(drives)}"
        self.cluster.kubectl("-n", self.namespace, "annotate", "pod", *pods, "--overwrite", text)

    def run(self, pod: str, script: str) -> str:
        """Run a shell script in a pod; return what it prints. Raise ClusterError when it fails."""
        return self.cluster.kubectl("-n", self.namespace, "exec", pod, "--", "sh", "-ec", script)

    def succeeds(self, pod: str, script: str) -> bool:
        """Whether a script that is run in a pod ends well."""
        try:
            self.run(pod, script)
        except ClusterError:
            return False
        return True

    def sees(self, pod: str, name: str, owner: str) -> bool:
        """Whether the pod can read the owner's file under the name, now."""
        script = f"cat {INSIDE}/{name}/deep/er/file 2>/dev/null || true"
        return self.run(pod, script) == f"of {owner}"

    def wait_seen(self, pod: str, name: str = A, owner: str = ADA) -> None:
        until(lambda: self.sees(pod, name, owner), f"the drive did not appear (the plugin's log: {self.log})")

    def wait_empty(self, pod: str) -> None:
        until(lambda: self.run(pod, f"ls {INSIDE}") == "", "the drives did not disappear")

    def delete(self, pod: str, *options: str) -> None:
        self.cluster.kubectl("-n", self.namespace, "delete", "pod", pod, "--wait=false", *options)

    def delete_all(self, *options: str) -> None:
        self.cluster.kubectl("-n", self.namespace, "delete", "pods", "--all", "--wait=false", *options)

    def wait_gone(self) -> None:
        """Wait until kubelet has let go of every pod of the namespace, volumes and folders included."""
        until(
            lambda: not self.cluster.kubectl("-n", self.namespace, "get", "pods", "-o", "name"), "a pod stays"
        )
        until(lambda: not self.left(), f"left behind: {self.left()}")

    # -- what is there ----------------------------------------------------------------------------------------

    def mounts(self) -> list[mountinfo.Mount]:
        """Return the mounts on the node that are the driver's, or show a folder of the drives."""
        text = self.cluster.node_command("cat", "/proc/self/mountinfo").stdout
        mine = str(self.root / "drive")
        return [
            mount
            for mount in mountinfo.parse(text)
            if mount.source == self.driver or mount.root.startswith(mine)
        ]

    def bound(self) -> list[mountinfo.Mount]:
        """Return the drives that are bound in volumes on the node."""
        return [
            mount
            for mount in self.mounts()
            if mount.source != self.driver and mount.point.startswith(str(KUBELET_ROOT))
        ]

    def left(self) -> list[str]:
        """Return what is left of the driver's volumes on the node: mounts and folders."""
        mounts = [mount.point for mount in self.mounts()]
        find = (
            f"grep -l {self.driver} {KUBELET_ROOT}/pods/*/volumes/kubernetes.io~csi/*/vol_data.json || true"
        )
        return mounts + self.cluster.node_command("sh", "-c", find).stdout.split()

    def files(self) -> dict[str, str]:
        """Return what is in the drives."""
        return {
            str(f.relative_to(self.root)): f.read_text() for f in self.root.rglob("deep/er/*") if f.is_file()
        }

    def assert_no_file_lost(self) -> None:
        assert self.files() == {f"drive/{owner}/deep/er/file": f"of {owner}" for owner in (ADA, BOB)}

    def claim(self, source: dict[str, Any] | None = None) -> str:
        """Make a claim of the volume with the drives, as an administrator does who has one; return its name. `source`: of another."""
        name = f"drives-{len(self._claims)}"
        source = source or {"local": {"path": str(self.root)}}
        self.cluster.apply(*storage.static_claim(self.namespace, name, source))
        self._claims.append(name)
        return name

    # -- setting up -------------------------------------------------------------------------------------------

    def apply_driver(self) -> None:
        label = {"security.kubernetes.io/csi-ephemeral-volume-profile": "restricted"}
        spec = {
            "attachRequired": False,
            "podInfoOnMount": True,
            "volumeLifecycleModes": ["Ephemeral"],
            "fsGroupPolicy": "None",
        }
        self.cluster.apply(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "CSIDriver",
                "metadata": {"name": self.driver, "labels": label},
                "spec": spec,
            }
        )

    def remove(self) -> None:
        if self._plugin is not None and self._plugin.poll() is None:
            self.stop()
        for claim in self._claims:
            self.cluster.kubectl("-n", self.namespace, "delete", "pvc", claim, "--wait=false", check=False)
            self.cluster.kubectl("delete", "pv", f"{self.namespace}-{claim}", "--wait=false", check=False)
        self.cluster.kubectl("delete", "csidriver", self.driver, check=False)

    def _account(self) -> Path:
        """Make the plugin's account, which may only look at the pods of the namespace; return its kubeconfig."""
        meta = {"name": "drive-plugin", "namespace": self.namespace}
        api = "rbac.authorization.k8s.io"
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {
                "apiVersion": f"{api}/v1",
                "kind": "Role",
                "metadata": meta,
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
            },
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": api, "kind": "Role", "name": "drive-plugin"},
                "subjects": [{"kind": "ServiceAccount", **meta}],
            },
        )
        token = self.cluster.kubectl("-n", self.namespace, "create", "token", "drive-plugin").strip()
        view = json.loads(self.cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        view["users"] = [{"name": view["users"][0]["name"], "user": {"token": token}}]
        path = self.folder / "plugin.kubeconfig"
        path.write_text(json.dumps(view))
        path.chmod(0o600)
        return path
