"""An administrator's shell: the commands of docs/kubernetes.md, run as they are written."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.harness import programs
from cluster.harness.cluster import Cluster
from support.chart import ROOT
from support.pages import KUBERNETES, shell_lines

WRITTEN = "--namespace minicolab"  # the page's namespace
LONGEST = 600.0


def documented(beginning: str) -> str:
    """Return the one command of the page that begins like this."""
    (line,) = {line for line in shell_lines(KUBERNETES) if line.startswith(beginning)}
    return line


@dataclass(frozen=True)
class AdminShell:
    """A shell with kubectl and helm for a cluster, in which the page's namespace is another one."""

    cluster: Cluster
    namespace: str
    folder: Path = ROOT

    def run(self, *lines: str) -> str:
        """Run lines of a script; return what they print. Fail with what they said when one of them fails."""
        done = subprocess.run(
            ["bash", "-ec", self._own(*lines)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert done.returncode == 0, f"{lines}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, line: str) -> subprocess.Popen[bytes]:
        """Start a command that does not end by itself."""
        return subprocess.Popen(
            ["bash", "-c", f"exec {self._own(line)}"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _own(self, *lines: str) -> str:
        return "\n".join(line.replace(WRITTEN, f"--namespace {self.namespace}") for line in lines)

    @property
    def _environment(self) -> dict[str, str]:
        paths = [str(programs.get(name).parent) for name in ("kubectl", "helm")]
        return {
            **os.environ,
            "PATH": ":".join([*paths, os.environ["PATH"]]),
            "KUBECONFIG": str(self.cluster.kubeconfig),
        }
