"""The chart's objects: the same every time, safe by default, with everything on and with every example."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.cli import serve
from hub.settings import Settings, load_settings
from support.chart import (
    CHART,
    EVERYTHING,
    EXAMPLES,
    ROOT,
    VERSION,
    Helm,
    Object,
    Refused,
    of_kind,
    pod_specs,
)

POSTGRESQL = tuple(f'config.{name}.database="postgresql+psycopg://u@db/{name}"' for name in ("hub", "documents", "control"))  # fmt: skip


def ids(path: Path) -> str:
    return path.stem


def mutable(image: str) -> bool:
    """Return whether an image's name may mean another image tomorrow."""
    name = image.rsplit("/", 1)[-1]
    return image.endswith(":latest") or not (":" in name or "@sha256:" in name)


def permissions(objects: list[Object], account: str) -> set[tuple[str, str, str]]:
    """Return (namespace or *, resource, verb) of all that bindings give to a service account."""
    rules = {(o["kind"], o["metadata"]["name"]): o["rules"] for o in objects if o["kind"] in ("Role", "ClusterRole")}  # fmt: skip
    found = set()
    for o in objects:
        if o["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        if any(s["name"] == account for s in o["subjects"]):
            where = o["metadata"].get("namespace", "*")
            for rule in rules[(o["roleRef"]["kind"], o["roleRef"]["name"])]:
                names = rule.get("resourceNames", [""])
                found |= {
                    (where, f"{resource}{'/' + name if name else ''}", verb)
                    for resource in rule["resources"]
                    for verb in rule["verbs"]
                    for name in names
                }
    return found


def test_lint_has_nothing_to_say(helm: Helm) -> None:
    for values in ((), ("--values", str(EVERYTHING)), *(("--values", str(path)) for path in EXAMPLES)):
        helm.run("lint", "--strict", "--quiet", "--kube-version", VERSION, str(CHART), *values)


@pytest.mark.parametrize("values", [EVERYTHING, *EXAMPLES], ids=ids)
def test_rendered_twice_it_is_the_same(helm: Helm, values: Path) -> None:
    assert helm.template(values) == helm.template(values)


@pytest.mark.parametrize("values", [EVERYTHING, *EXAMPLES], ids=ids)
def test_no_image_floats(helm: Helm, values: Path) -> None:
    images = {
        container["image"]
        for spec in pod_specs(helm.render(values)).values()
        for container in [*spec["containers"], *spec.get("initContainers", [])]
    }
    assert images
    assert [image for image in images if mutable(image)] == []


@pytest.mark.parametrize("values", [EVERYTHING, *EXAMPLES], ids=ids)
def test_the_settings_of_the_config_map_are_good_settings(helm: Helm, values: Path, tmp_path: Path) -> None:
    data = of_kind(helm.render(values), "ConfigMap")["minicolab-settings"] if values != EVERYTHING else None
    data = data or next(iter(of_kind(helm.render(values), "ConfigMap").values()))
    path = tmp_path / "minicolab.yaml"
    path.write_text(data["data"]["minicolab.yaml"])
    assert load_settings(path).runtimes.backend == "kubernetes"


def test_only_the_drive_plugin_is_privileged(helm: Helm) -> None:
    for name, spec in pod_specs(helm.render(EVERYTHING)).items():
        if name.endswith("drive-plugin"):
            continue
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
        assert not [v for v in spec.get("volumes", []) if "hostPath" in v], name


@pytest.mark.parametrize("drives", ["none", "subpath"])
def test_without_drives_by_the_plugin_nothing_is_privileged(helm: Helm, drives: str) -> None:
    kubernetes = {"drives": drives, **({"drive_claim": "drive"} if drives == "subpath" else {})}
    sets = tuple(f"config.runtimes.kubernetes.{key}={json.dumps(value)}" for key, value in kubernetes.items())
    objects = helm.render(EVERYTHING, sets=sets)
    assert not [name for name in pod_specs(objects) if name.endswith("drive-plugin")]
    assert of_kind(objects, "CSIDriver") == {}
    for name, spec in pod_specs(objects).items():
        assert not any(c["securityContext"].get("privileged") for c in spec["containers"]), name
    settings = of_kind(objects, "ConfigMap")
    (text,) = (o["data"]["minicolab.yaml"] for o in settings.values() if "minicolab.yaml" in o["data"])
    assert yaml.safe_load(text)["runtimes"]["kubernetes"]["drives"] == drives


def test_drives_by_sub_path_need_the_claim_they_are_a_part_of(helm: Helm) -> None:
    for setting in ('drives="subpath"', 'drive_claim="drive"'):
        with pytest.raises(Refused, match="drives: subpath and drive_claim need each other"):
            helm.render(sets=(f"config.runtimes.kubernetes.{setting}",))


def test_each_account_may_do_what_its_work_needs_and_no_more(helm: Helm) -> None:
    objects = helm.render(EVERYTHING, release="r")
    look = {("lab-runtimes", "pods", verb) for verb in ("get", "list", "watch")}
    events = {("lab-runtimes", "events", verb) for verb in ("get", "list", "watch")}
    nodes = {("*", "nodes", verb) for verb in ("get", "list", "watch")}
    logs = {("lab-runtimes", "pods/log", "get")}
    change = {("lab-runtimes", "pods", verb) for verb in ("patch", "delete")}
    assert permissions(objects, "r-lab-hub") == look | events | nodes | logs | change | {
        ("lab-runtimes", "pods", "create"),
        ("lab-runtimes", "secrets", "get"),
        ("lab-runtimes", "secrets", "create"),
    }
    assert permissions(objects, "r-lab-control") == look | events | nodes | logs | change
    assert permissions(objects, "r-lab-drive-plugin") == look
    assert permissions(objects, "r-lab-secrets") == {
        ("minicolab", "secrets", "create"),
        ("minicolab", "secrets/r-lab-secrets", "get"),
        ("minicolab", "secrets/r-lab-secrets", "patch"),
    }
    for account in ("r-lab-documents", "r-lab-proxy", "runtime", "default"):
        assert permissions(objects, account) == set()


def test_only_who_speaks_to_the_api_server_has_a_token_for_it(helm: Helm) -> None:
    with_token = {
        name for name, spec in pod_specs(helm.render(EVERYTHING, release="r")).items()
        if spec["automountServiceAccountToken"]
    }  # fmt: skip
    assert with_token == {
        "Deployment/r-lab-hub", "Deployment/r-lab-control", "DaemonSet/r-lab-drive-plugin", "Job/r-lab-secrets", "Job/r-lab-end-runtimes",
    }  # fmt: skip


@pytest.mark.parametrize("process", sorted(serve.KEYS))
def test_a_pod_is_shown_its_own_secrets_only(helm: Helm, process: str) -> None:
    spec = pod_specs(helm.render(EVERYTHING, release="r"))[f"Deployment/r-lab-{process}"]
    volume = next(v for v in spec["volumes"] if v["name"] == "secrets")
    shown = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
    expected = {f"{key}.key" for key in serve.KEYS[process]} | {f"{t}.token" for t in serve.TOKENS[process]}
    assert shown == expected | ({"pgpass"} if process != "proxy" else set()) | (
        {"oidc-client-secret"} if process == "hub" else set()
    )


def test_the_processes_are_told_addresses_that_services_have(helm: Helm) -> None:
    objects = helm.render(EVERYTHING, release="r")
    services = of_kind(objects, "Service")
    for name, spec in pod_specs(objects).items():
        for argument in spec["containers"][0].get("args", []):
            if match := re.fullmatch(r"--at=\w+=([\w-]+)\.minicolab\.svc:(\d+)", str(argument)):
                (port,) = services[match[1]]["spec"]["ports"]
                assert port["port"] == int(match[2]), name
                target = services[match[1]]["spec"]["selector"]
                (deployment,) = [
                    o for o in objects if o["kind"] == "Deployment" and target.items() <= o["spec"]["template"]["metadata"]["labels"].items()
                ]  # fmt: skip
                ports = {p["name"]: p["containerPort"] for p in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}  # fmt: skip
                assert ports[port["targetPort"]] == int(match[2])


def test_the_arguments_are_ones_that_serve_knows(helm: Helm, tmp_path: Path) -> None:
    from hub.__main__ import parser

    for name, spec in pod_specs(helm.render(EVERYTHING)).items():
        container = spec["containers"][0]
        if container.get("command") == ["minicolab"]:
            arguments = parser().parse_args([str(a) for a in container["args"]])
            assert arguments.command in ("serve", "secrets", "end-runtimes"), name


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("hbu={}", "'hbu' not allowed"),
        ("hub.replicas=2", "'replicas' not allowed"),
        ('config.quota.idle_limt="5m"', "'idle_limt' not allowed"),
        ("config.quota.idle_limit=90", "/config/quota/idle_limit"),
        ('config.runtimes.shapes={"STANDARD":{"memory":"12 GB","cpus":1}}', "/memory"),
        ('images.hub.tag="latest"', "/images/hub/tag"),
        ('prePull={"cpu":{"images":["runtime"]}}', "/prePull/cpu/images"),
        ('proxy.service.type="Loadbalancer"', "/proxy/service/type"),
        ('networkPolicy.runtimes.exceptV4=["10.0.0.0"]', "exceptV4"),
    ],
)
def test_what_the_schema_does_not_know_is_refused_by_name(helm: Helm, values: str, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        helm.template(sets=(values,))


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("control.replicas=2",), "several control pods can not share SQLite files"),
        (('config.runtimes.kubernetes.namespace="minicolab"',), "runtimes need one of their own"),
        (("ingress.enabled=true", 'config.service.runtime_host="runtimes.example.org"'), "one wildcard covers every user"),
        (("ingress.enabled=true",), "app_host is localhost"),
        (('placeholders={"cpu":{"replicas":1,"resources":{"cpu":1}}}',), "placeholders need priorityClasses.enabled"),
        (("httpRoute.enabled=true", 'config.service.app_host="a.example.org"'), "names no gateway"),
    ],
)  # fmt: skip
def test_what_can_not_work_is_refused_with_a_sentence(helm: Helm, sets: tuple[str, ...], said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        helm.template(sets=sets)


def test_the_schema_is_made_from_the_settings_own(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "helm/make_schema.py", "--check"], cwd=ROOT, check=True, timeout=120)
    schema = json.loads((CHART / "values.schema.json").read_text())
    settings = Settings.model_json_schema()
    assert names(schema["properties"]["config"], schema) == names(settings, settings)


def test_every_object_of_the_schema_is_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    free = {"global", "affinity", "podSelector", "namespaceSelector", "ipBlock", "valueFrom", "items"}

    def look(node: Any, name: str) -> None:
        if isinstance(node, list):
            for item in node:
                look(item, name)
        elif isinstance(node, dict):
            if node.get("type") == "object" and name not in free:
                assert "additionalProperties" in node or "propertyNames" in node, name
            for key, value in node.items():
                if key in ("properties", "$defs"):
                    for inner, item in value.items():
                        look(item, inner)
                else:
                    look(value, key if key == "items" else name)

    look(schema, "values")


def names(node: Any, root: dict[str, Any]) -> Any:
    """Return the names that a schema allows, nested."""
    if "$ref" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    inner = [option for option in node.get("anyOf", [node]) if "$ref" in option or "properties" in option]
    return {
        key: names(value, root)
        for option in inner
        for key, value in (
            root["$defs"][option["$ref"].rsplit("/", 1)[1]] if "$ref" in option else option
        ).get("properties", {}).items()
    }  # fmt: skip


def test_with_postgresql_a_second_control_stands_by(helm: Helm) -> None:
    control = of_kind(helm.render(sets=POSTGRESQL), "Deployment")["minicolab-control"]["spec"]
    assert control["replicas"] == 2
    assert control["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "--standby" in control["template"]["spec"]["containers"][0]["args"]
    assert "minicolab-control" in of_kind(helm.render(sets=POSTGRESQL), "PodDisruptionBudget")


def test_with_sqlite_control_is_one_beside_the_files_of_documents(helm: Helm) -> None:
    objects = helm.render()
    spec = of_kind(objects, "Deployment")["minicolab-control"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    assert {"name": "databases", "persistentVolumeClaim": {"claimName": "minicolab-documents"}} in pod[
        "volumes"
    ]
    (term,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "documents"
    assert not of_kind(objects, "PodDisruptionBudget")


def test_what_people_made_outlives_an_uninstall(helm: Helm) -> None:
    claims = of_kind(helm.render(), "PersistentVolumeClaim")
    assert set(claims) == {"minicolab-hub", "minicolab-documents", "minicolab-drive"}
    for claim in claims.values():
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    existing = tuple(
        f'{name}.persistence.existingClaim="own-{name}"' for name in ("hub", "documents", "drive")
    )
    objects = helm.render(sets=existing)
    assert not of_kind(objects, "PersistentVolumeClaim")
    mounted = {
        v["persistentVolumeClaim"]["claimName"]
        for s in pod_specs(objects).values()
        for v in s.get("volumes", [])
        if "persistentVolumeClaim" in v
    }
    assert mounted == {"own-hub", "own-documents", "own-drive"}


def test_no_template_makes_a_secret(helm: Helm) -> None:
    assert not of_kind(helm.render(EVERYTHING), "Secret")
    own = helm.render(sets=('secrets.existingSecret="mine"',))
    assert set(of_kind(own, "Job")) == {"minicolab-end-runtimes"}
    assert "mine" in yaml.safe_dump(of_kind(own, "Deployment")["minicolab-proxy"])


def test_a_change_of_limits_leaves_connections_alone(helm: Helm) -> None:
    """Open pages and running cells go through the proxy: it must not be replaced for a setting it does not use."""
    before = of_kind(helm.render(), "Deployment")
    after = of_kind(helm.render(sets=('config.quota.idle_limit="5m"',)), "Deployment")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"minicolab-hub", "minicolab-control"}


def test_routes_lead_every_host_to_the_proxy(helm: Helm) -> None:
    objects = helm.render(EVERYTHING, release="r")
    hosts = ["lab.example.org", "*.run.example.org", "api.example.org"]
    ingress = of_kind(objects, "Ingress")["r-lab"]["spec"]
    assert [rule["host"] for rule in ingress["rules"]] == hosts
    assert ingress["tls"] == [{"secretName": "lab-tls", "hosts": hosts}]
    assert of_kind(objects, "HTTPRoute")["r-lab"]["spec"]["hostnames"] == hosts
    assert of_kind(objects, "Certificate")["r-lab"]["spec"]["dnsNames"] == hosts
    for rule in ingress["rules"]:
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend == {"name": "r-lab-proxy-public", "port": {"name": "http"}}
