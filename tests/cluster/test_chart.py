"""The chart's objects before a real API server: nothing is made, everything is checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.harness import programs
from cluster.harness.cluster import Cluster
from cluster.harness.errors import ClusterError
from support.chart import EVERYTHING, EXAMPLES, Helm, Object, pod_specs

pytestmark = pytest.mark.cluster

# Kinds that a cluster may lack, as far as the chart uses them: (group, version, kind, plural, spec).
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
LABELS = {"type": "object", "additionalProperties": TEXT}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


KINDS = [
    (
        "monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors",
        closed(
            selector=closed(matchLabels=LABELS),
            endpoints=listed(
                closed(
                    port=TEXT, path=TEXT, interval=TEXT,
                    authorization=closed(type=TEXT, credentials=closed(name=TEXT, key=TEXT)),
                )
            ),
        ),
    ),
    (
        "cert-manager.io", "v1", "Certificate", "certificates",
        closed(secretName=TEXT, dnsNames=listed(TEXT), issuerRef=closed(name=TEXT, kind=TEXT, group=TEXT)),
    ),
    (
        "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes",
        closed(
            parentRefs=listed(closed(name=TEXT, namespace=TEXT, sectionName=TEXT, port=NUMBER, group=TEXT, kind=TEXT)),
            hostnames=listed(TEXT),
            rules=listed(closed(backendRefs=listed(closed(name=TEXT, port=NUMBER)), timeouts=closed(request=TEXT))),
        ),
    ),
]  # fmt: skip


def definition(group: str, version: str, kind: str, plural: str, spec: dict[str, Any]) -> Object:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # The API server asks for this of whoever makes a kind of a group that Kubernetes keeps for itself.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": closed(spec=spec)},
                }
            ],
        },
    }


@pytest.fixture(scope="module")
def helm() -> Helm:
    found = programs.find("helm") or shutil.which("helm")
    if found is None:
        pytest.skip("helm is not built (make test-cluster) nor installed")
    return Helm(Path(found))


@pytest.fixture(scope="module")
def kinds(cluster: Cluster) -> Iterator[None]:
    """Kinds that the cluster lacks; those it has stay as they are."""
    known = cluster.kubectl("get", "customresourcedefinitions", "-o", "name").split()
    made = [
        d
        for d in (definition(*kind) for kind in KINDS)
        if f"customresourcedefinition.apiextensions.k8s.io/{d['metadata']['name']}" not in known
    ]
    if made:
        cluster.apply(*made)
    for d in made:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{d['metadata']['name']}")
    yield
    for d in made:
        cluster.kubectl("delete", "crd", d["metadata"]["name"], "--wait=false")


@pytest.mark.parametrize("values", [EVERYTHING, *EXAMPLES], ids=lambda path: path.stem)
def test_the_api_server_takes_every_object(cluster: Cluster, helm: Helm, kinds: None, values: Path) -> None:
    with (
        cluster.namespace("chart", restricted=False) as own,
        cluster.namespace("chart-runtimes") as runtimes,
    ):
        objects = helm.render(
            values, sets=(f'config.runtimes.kubernetes.namespace="{runtimes}"',), release=own
        )
        for o in objects:
            if o["metadata"].get("namespace") == "minicolab":
                o["metadata"]["namespace"] = own
        said = dry_run(cluster, objects)
        assert len(said) == len(objects), said
        assert all("(server dry run)" in line for line in said)


def dry_run(cluster: Cluster, objects: list[Object]) -> list[str]:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    return cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text
    ).splitlines()


def test_restricted_pod_security_admits_all_pods_but_the_plugin(cluster: Cluster, helm: Helm) -> None:
    specs = pod_specs(helm.render(EVERYTHING))
    with cluster.namespace("chart") as namespace:
        accounts = {spec["serviceAccountName"] for spec in specs.values() if "serviceAccountName" in spec}
        cluster.apply(
            *(
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": {"name": a, "namespace": namespace},
                }
                for a in sorted(accounts)
            )
        )
        refused = []
        for name, spec in specs.items():
            spec.pop("priorityClassName", None)  # its class is the chart's own, and nothing is made here
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p", "namespace": namespace},
                "spec": spec,
            }
            try:
                dry_run(cluster, [pod])
            except ClusterError as error:
                assert "violates PodSecurity" in str(error), f"{name}: {error}"
                refused.append(name)
        assert [name.split("/")[0] for name in refused] == ["DaemonSet"]
        assert refused[0].endswith("drive-plugin")
