"""A cluster as its users see it: one that is there, or one that is made here and taken away without a trace."""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.harness import programs
from cluster.harness.errors import ClusterError, Unavailable
from cluster.harness.images import import_archive
from cluster.harness.kubeconfig import Access, read
from cluster.harness.layout import Layout
from cluster.harness.machine import command

LONGEST = 120.0
POD_SECURITY = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers. `layout` is None when it is not one of ours, and `load` a command that gives it an image archive."""

    kubeconfig: Path
    layout: Layout | None = None
    load: str = ""

    @property
    def access(self) -> Access:
        return read(self.kubeconfig)

    @property
    def machine_address(self) -> str:
        """This machine's address as the cluster's pods see it: the one that speaks to the API server."""
        access = self.access
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((access.host, access.port))
            address: str = probe.getsockname()[0]
            return address

    def kubectl(self, *arguments: str, text: str = "", check: bool = True) -> str:
        """Run kubectl and return what it prints. Raise ClusterError with what it said when it fails and `check`."""
        program = str(programs.get("kubectl"))
        return command(
            program, "--kubeconfig", str(self.kubeconfig), *arguments, text=text, check=check
        ).stdout

    def helm(self, *arguments: str) -> str:
        """Run helm and return what it prints. Raise ClusterError when it fails."""
        return command(str(programs.get("helm")), "--kubeconfig", str(self.kubeconfig), *arguments).stdout

    def apply(self, *objects: Mapping[str, object]) -> None:
        """Create or change objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "-f", "-", text=text)

    @contextmanager
    def namespace(self, prefix: str = "test", *, restricted: bool = True) -> Iterator[str]:
        """Make a namespace, under Pod Security `restricted` unless told otherwise; delete it afterwards."""
        name = f"{prefix}-{secrets.token_hex(3)}"
        level = "restricted" if restricted else "privileged"
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": {POD_SECURITY: level}},
            }
        )
        # The controllers make the account that pods run as; before it is there, pods are refused.
        wait_for(
            lambda: self.kubectl("-n", name, "get", "serviceaccount", "default", "-o", "name", check=False),
            f"namespace {name} got no service account",
        )
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", check=False)
            self.kubectl(
                "-n", name, "delete", "pods", "--all", "--grace-period=1", "--wait=true", check=False
            )

    def wait(self, namespace: str, what: str, condition: str, *, seconds: float = LONGEST) -> None:
        """Wait until an object (`pod/x`) has a condition (`condition=Ready`, `delete`, `jsonpath=…`)."""
        arguments = ("wait", what, f"--for={condition}", f"--timeout={seconds:.0f}s")
        try:
            self.kubectl("-n", namespace, *arguments)
        except ClusterError as error:
            state = self.kubectl("-n", namespace, "describe", what, check=False)
            raise ClusterError(f"{error}\n{state}") from None

    def import_image(self, archive: Path) -> None:
        """Give the cluster an image that `docker save` has written."""
        if self.layout is not None:
            import_archive(self.enter, self.layout.containerd, archive)
        elif self.load:
            command(*shlex.split(self.load), str(archive.resolve()))
        else:
            raise Unavailable(
                "MINICOLAB_CLUSTER_LOAD names no command that gives this cluster an image archive "
                "(for kind: 'kind load image-archive')"
            )

    def node_command(
        self, *arguments: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespaces of the node; paths are absolute."""
        return command(*self.enter, *arguments, text=text, check=check)

    @property
    def enter(self) -> tuple[str, ...]:
        if self.layout is None:
            raise Unavailable("the node of a cluster that is not ours cannot be entered")
        return (
            "nsenter",
            f"--net={self.layout.network_namespace}",
            f"--mount={self.layout.mount_namespace}",
            "--",
        )


def wait_for(condition: Callable[[], object], what: str, *, check: Callable[[], None] = lambda: None) -> None:
    """Wait until something is true; `check` raises when it can never become so."""
    deadline = time.monotonic() + LONGEST
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        check()
        if time.monotonic() > deadline:
            raise ClusterError(what)
        time.sleep(0.1)
