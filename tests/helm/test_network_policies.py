"""Who may reach whom: the table, and nothing besides."""

from __future__ import annotations

import ipaddress
from itertools import product

import pytest

from support.chart import EVERYTHING, Helm, Object
from support.network_policies import End, may_reach
from tests.cluster.enforce import translate, without

PORTS = (
    (53, "UDP"),
    *((port, "TCP") for port in (22, 53, 80, 443, 5432, 6443, 8000, 8001, 8080, 8081, 8082, 8083, 8888, 8889, 9090, 10250)),
)  # fmt: skip


def ours(component: str, number: int, release: str = "minicolab") -> End:
    labels = {
        "app.kubernetes.io/name": "lab",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
    }
    return End(component, f"10.244.1.{number}", "minicolab", labels)


def runtime(name: str, number: int, **more: str) -> End:
    labels = {"app.kubernetes.io/name": "minicolab-runtime", "minicolab.dev/installation": "lab"}
    return End(
        name,
        f"10.244.2.{number}",
        "lab-runtimes",
        labels | {k.replace("_", "."): v for k, v in more.items()},
    )


COMPONENTS = [
    ours(component, number)
    for number, component in enumerate(
        (
            "proxy",
            "hub",
            "documents",
            "control",
            "drive-plugin",
            "secrets",
            "end-runtimes",
            "pre-pull",
            "placeholder",
            "test",
        ),
        1,
    )
]
ENDS = [
    *COMPONENTS,
    End(
        "another-release",
        "10.244.1.40",
        "minicolab",
        {
            "app.kubernetes.io/name": "lab",
            "app.kubernetes.io/instance": "b",
            "app.kubernetes.io/component": "proxy",
        },
    ),
    runtime("runtime", 1),
    runtime("runtime-of-another", 2),
    End("stranger-among-runtimes", "10.244.2.9", "lab-runtimes", {"app": "x"}),
    End("dns", "10.244.0.2", "kube-system", {"k8s-app": "kube-dns"}),
    End("kube-system", "10.244.0.3", "kube-system", {"app": "metrics-server"}),
    End("prometheus", "10.244.3.1", "monitoring", {"app": "prometheus"}),
    End("ingress", "10.244.3.2", "ingress", {"app": "nginx"}),
    End("elsewhere", "10.244.3.3", "shop", {"app.kubernetes.io/name": "lab"}),
    End("api-server", "10.96.0.1"),
    End("database", "192.0.2.7"),
    End("mirror", "10.9.8.7"),
    End("node", "10.0.0.5"),
    End("campus", "192.168.7.7"),
    End("carrier", "100.64.1.1"),
    End("metadata", "169.254.169.254"),
    End("metadata-v6", "fd00:ec2::254"),
    End("link-local-v6", "fe80::1"),
    End("private-v6", "fd12::1"),
    End("translated-v6", "64:ff9b::a9fe:a9fe"),
    End("own-public", "203.0.113.5"),
    End("own-public-v6", "2001:db8::5"),
    End("internet", "198.51.100.9"),
    End("internet-v6", "2a00:1450::1"),
]
BY_NAME = {end.name: end for end in ENDS}
# Pods, of whose ends we know both; an address outside has its own rules.
INSIDE = [end for end in ENDS if end.namespace == "minicolab" and end.name != "another-release"] + [
    end for end in ENDS if end.namespace == "lab-runtimes"
]
RUNTIMES = ("runtime", "runtime-of-another")
DNS = {(component, "dns", 53, protocol) for component in ("proxy", "hub", "documents", "control", "drive-plugin", "secrets", "end-runtimes", "test", *RUNTIMES) for protocol in ("UDP", "TCP")}  # fmt: skip
TABLE = {
    ("proxy", "hub", 8081),
    ("proxy", "documents", 8082),
    ("proxy", "control", 8083),
    *(("proxy", r, 8888) for r in RUNTIMES),
    ("hub", "hub", 8081),
    ("hub", "proxy", 8001),
    ("hub", "control", 8083),
    *(("hub", r, port) for r in RUNTIMES for port in (8888, 8889)),
    ("hub", "api-server", 443),
    ("hub", "database", 5432),
    ("documents", "hub", 8081),
    ("documents", "database", 5432),
    ("control", "hub", 8081),
    ("control", "documents", 8082),
    ("control", "control", 8083),
    *(("control", r, port) for r in RUNTIMES for port in (8888, 8889)),
    ("control", "api-server", 443),
    ("control", "database", 5432),
    ("drive-plugin", "api-server", 443),
    ("secrets", "api-server", 443),
    ("end-runtimes", "api-server", 443),
    *(("end-runtimes", r, 8889) for r in RUNTIMES),
    ("test", "proxy", 8000),
    *((r, "control", 8083) for r in RUNTIMES),
    *((r, "mirror", 443) for r in RUNTIMES),
    ("ingress", "proxy", 8000),
    ("prometheus", "hub", 8081),
    ("prometheus", "control", 8083),
}
# Sign-in asks the provider, wherever it is.
PROVIDER = {
    ("hub", end.name, 443, "TCP")
    for end in ENDS
    if end.namespace not in ("minicolab", "lab-runtimes") or end.name == "another-release"
}
INTERNET = {
    (r, target, port, protocol)
    for r in RUNTIMES
    for target in ("internet", "internet-v6")
    for port, protocol in PORTS
}


@pytest.fixture(scope="module")
def policies(helm: Helm) -> list[Object]:
    return [o for o in helm.render(EVERYTHING) if o["kind"] == "NetworkPolicy"]


def test_exactly_what_the_table_lists_is_allowed(policies: list[Object]) -> None:
    expected = {(a, b, port, "TCP") for a, b, port in TABLE} | DNS | INTERNET | PROVIDER
    found = {
        (source.name, target.name, port, protocol)
        for source, target in product(ENDS, ENDS)
        if source in INSIDE or target in INSIDE
        for port, protocol in PORTS
        if may_reach(policies, source, target, port, protocol)
    }
    # Several pods of one kind: to another one of itself, as to itself.
    assert found - expected == set()
    assert expected - found == set()


def test_without_the_internet_only_what_is_listed_remains(helm: Helm) -> None:
    closed = [
        o
        for o in helm.render(EVERYTHING, sets=("networkPolicy.runtimes.internet=false",))
        if o["kind"] == "NetworkPolicy"
    ]
    for target, (port, protocol) in product(("internet", "internet-v6"), PORTS):
        assert not may_reach(closed, BY_NAME["runtime"], BY_NAME[target], port, protocol)
    assert may_reach(closed, BY_NAME["runtime"], BY_NAME["mirror"], 443)
    assert may_reach(closed, BY_NAME["runtime"], BY_NAME["dns"], 53, "UDP")


def test_by_default_everyone_may_open_the_service_and_only_that(helm: Helm) -> None:
    policies = [
        o
        for o in helm.render(sets=('nameOverride="lab"', 'config.runtimes.kubernetes.namespace="lab-runtimes"', 'config.runtimes.kubernetes.installation="lab"'))
        if o["kind"] == "NetworkPolicy"
    ]  # fmt: skip
    for end in (BY_NAME["internet"], BY_NAME["elsewhere"], BY_NAME["node"]):
        open_ports = [p for p, protocol in PORTS if may_reach(policies, end, BY_NAME["proxy"], p, protocol)]
        assert open_ports == [8000]
        for component in COMPONENTS[1:]:
            assert not any(may_reach(policies, end, component, p, protocol) for p, protocol in PORTS)
    for target in ("metadata", "metadata-v6", "node", "campus", "carrier", "private-v6", "translated-v6", "api-server", "elsewhere"):  # fmt: skip
        assert not any(may_reach(policies, BY_NAME["runtime"], BY_NAME[target], p, x) for p, x in PORTS), (
            target
        )


def test_the_evaluation_sees_what_is_missing_and_what_is_too_much(policies: list[Object]) -> None:
    """The table would fail: with the default denial away, with one rule more, with one less."""
    without = [p for p in policies if not p["metadata"]["name"].endswith("default-deny")]
    stranger, internet = BY_NAME["stranger-among-runtimes"], BY_NAME["internet"]
    assert may_reach(without, stranger, internet, 443)
    assert not may_reach(policies, stranger, internet, 443)
    more = {
        "metadata": {"namespace": "lab-runtimes"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    assert may_reach([*policies, more], BY_NAME["runtime"], BY_NAME["metadata"], 80)
    less = [p for p in policies if not p["metadata"]["name"].endswith("-proxy")]
    assert may_reach(less, BY_NAME["elsewhere"], BY_NAME["proxy"], 8001)


def test_what_is_left_of_a_network_is_exactly_what_was_not_taken_out() -> None:
    """The rules of the test node's packet filter know no exceptions, so these are cut out of the networks."""
    left = [
        ipaddress.ip_network(text)
        for text in without("0.0.0.0/0", ("10.0.0.0/8", "10.1.0.0/16", "169.254.169.254/32"))
    ]
    assert sum(network.num_addresses for network in left) == 2**32 - 2**24 - 1
    for gone in ("10.0.0.0", "10.255.255.255", "169.254.169.254"):
        assert not any(ipaddress.ip_address(gone) in network for network in left)
    assert without("10.1.0.0/16", ("10.0.0.0/8",)) == []
    assert without("192.0.2.0/24", ("10.0.0.0/8",)) == ["192.0.2.0/24"]


def test_the_rules_of_a_packet_filter_say_what_the_policies_say(policies: list[Object]) -> None:
    lines = translate(
        policies, [pod for pod in ENDS if pod.namespace and ":" not in pod.address]
    ).splitlines()
    number = [pod for pod in ENDS if pod.namespace].index(BY_NAME["runtime"])
    out = [line for line in lines if line.startswith(f"-A MC-E-{number} ")]
    assert out[-1] == f"-A MC-E-{number} -j REJECT"
    control = BY_NAME["control"].address
    assert f"-A MC-E-{number} -d {control} -p tcp --dport 8083 -j RETURN" in out
    assert not [line for line in out if BY_NAME["hub"].address in line]
    assert not [line for line in lines if f" {BY_NAME['elsewhere'].address} -j MC-" in line], (
        "no policy selects it"
    )
