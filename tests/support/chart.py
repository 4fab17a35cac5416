"""The Helm chart as a cluster would get it: rendered by the real helm."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "minicolab"
EXAMPLES = sorted((ROOT / "helm" / "examples").glob("*.yaml"))
EVERYTHING = ROOT / "tests" / "helm" / "everything.yaml"
# Without a cluster, helm takes the version it was built with for the cluster's, and ours was built without one.
VERSION = "1.34.0"

Object = dict[str, Any]


class Refused(Exception):
    """helm refused the values; the text is what it said."""


@dataclass(frozen=True)
class Helm:
    """The program."""

    program: Path

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.program), *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise Refused(done.stderr + done.stdout)
        return done.stdout

    def template(self, *values: Path, sets: tuple[str, ...] = (), release: str = "minicolab") -> str:
        """Return the rendered chart as text. Raise Refused."""
        more = [word for path in values for word in ("--values", str(path))]
        more += [word for text in sets for word in ("--set-json", text)]
        where = ("--namespace", "minicolab", "--kube-version", VERSION)
        return self.run("template", release, str(CHART), *where, *more)

    def render(self, *values: Path, sets: tuple[str, ...] = (), release: str = "minicolab") -> list[Object]:
        """Return the rendered objects. Raise Refused."""
        return [
            o for o in yaml.safe_load_all(self.template(*values, sets=sets, release=release)) if o is not None
        ]


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """Return the objects of a kind, by name."""
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def pod_specs(objects: list[Object]) -> dict[str, Object]:
    """Return the pod spec of everything that makes pods, by `Kind/name`."""
    found = {}
    for o in objects:
        if o["kind"] == "Pod":
            found[f"Pod/{o['metadata']['name']}"] = o["spec"]
        elif "template" in o.get("spec", {}):
            found[f"{o['kind']}/{o['metadata']['name']}"] = o["spec"]["template"]["spec"]
    return found
