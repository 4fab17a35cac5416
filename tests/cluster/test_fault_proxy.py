"""The fault proxy: what passes unchanged, and what each fault looks like to a client."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.harness import fault_proxy
from cluster.harness.cluster import Cluster
from cluster.harness.fault_proxy import FaultProxy, Rule
from cluster.harness.kubeconfig import Access, read
from cluster.harness.pods import restricted_pod
from support.patience import until

pytestmark = pytest.mark.cluster

CUT = 700  # bytes: behind the head of a watch's reply, in its first event
SHORT = 2.0  # a client's patience with a server that says nothing


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace("faults") as name:
        yield name


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    with FaultProxy(cluster.kubeconfig) as proxy:
        yield proxy


@pytest.fixture
def access(proxy: FaultProxy) -> Access:
    return read(proxy.kubeconfig)


def post(access: Access, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        access.server + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30, context=access.tls) as reply:
        answer: dict[str, Any] = json.load(reply)
        return answer


def settings_object(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


def names(cluster: Cluster, namespace: str) -> set[str]:
    said = cluster.kubectl("-n", namespace, "get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}")
    return set(said.split()) - {"kube-root-ca.crt"}


def test_everything_passes_that_no_rule_matches(cluster: Cluster, proxy: FaultProxy, namespace: str) -> None:
    through = Cluster(proxy.kubeconfig)
    through.apply(restricted_pod("pod", namespace, ["sleep", "3600"]))
    through.wait(namespace, "pod/pod", "condition=Ready")  # a watch
    said = through.kubectl("-n", namespace, "exec", "-i", "pod", "--", "cat", text="upgraded and back\n")
    assert said == "upgraded and back\n"
    assert any(method == "GET" and "watch=true" in target for method, target in proxy.requests)


def test_an_answered_request_never_reaches_the_server(
    cluster: Cluster, proxy: FaultProxy, access: Access, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    rule = proxy.add(Rule(fault_proxy.answer(429, after=1), method="POST", path="/configmaps$", times=1))
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(access, path, settings_object("one"))
    assert refused.value.code == 429
    assert refused.value.headers["Retry-After"] == "1"
    assert json.load(refused.value)["reason"] == "TooManyRequests"
    assert names(cluster, namespace) == set()

    assert post(access, path, settings_object("one"))["metadata"]["name"] == "one"
    assert rule.hits == 1
    assert names(cluster, namespace) == {"one"}


def test_a_dropped_reply_is_of_something_that_was_done(
    cluster: Cluster, proxy: FaultProxy, access: Access, namespace: str
) -> None:
    proxy.add(Rule(fault_proxy.drop_reply(), method="POST", path="/configmaps$", times=1))
    with pytest.raises(OSError):
        post(access, f"/api/v1/namespaces/{namespace}/configmaps", settings_object("done"))
    assert names(cluster, namespace) == {"done"}


def test_a_refused_and_a_hanging_request_are_not_done(
    cluster: Cluster, proxy: FaultProxy, access: Access, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    refused = proxy.add(Rule(fault_proxy.refuse(), path=path, times=1))
    with pytest.raises(OSError):
        access.get(path)
    proxy.remove(refused)
    hanging = proxy.add(Rule(fault_proxy.hang(), path=path, times=1))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        access.get(path, seconds=SHORT)
    assert time.monotonic() - began >= SHORT
    assert hanging.hits == 1
    assert access.get_json(path)["kind"] == "ConfigMapList"
    assert names(cluster, namespace) == set()


def test_a_stale_list_lags_behind(proxy: FaultProxy, access: Access, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    rule = proxy.add(Rule(fault_proxy.stale(), method="GET", path="/configmaps$", watch=False))

    def listed() -> set[str]:
        return {item["metadata"]["name"] for item in access.get_json(path)["items"]} - {"kube-root-ca.crt"}

    assert listed() == set()
    post(access, path, settings_object("new"))
    assert listed() == set()
    proxy.remove(rule)
    assert listed() == {"new"}


def test_a_watch_is_told_that_its_version_is_gone_then_goes_silent_then_is_cut(
    proxy: FaultProxy, access: Access, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps?watch=true"
    proxy.add(Rule(fault_proxy.gone(), watch=True, times=1))
    proxy.add(Rule(fault_proxy.silent(), watch=True, times=1))
    proxy.add(Rule(fault_proxy.cut(after=CUT), watch=True, times=1))

    event = access.get_json(path)
    assert event["type"] == "ERROR"
    assert event["object"]["code"] == 410

    with urllib.request.urlopen(access.server + path, timeout=SHORT, context=access.tls) as reply:
        assert reply.status == 200
        with pytest.raises(TimeoutError):
            reply.readline()

    with pytest.raises((OSError, http.client.HTTPException)):
        access.get(path)


def test_a_watch_that_was_to_be_cut_does_not_outlive_its_client(
    proxy: FaultProxy, access: Access, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/secrets?watch=true"  # where nothing happens
    proxy.add(Rule(fault_proxy.cut(after=1 << 20), watch=True))
    with urllib.request.urlopen(access.server + path, timeout=30, context=access.tls) as reply:
        assert reply.status == 200
        assert proxy.open == [f"GET {path}"]
    until(lambda: not proxy.open, "the connection is held for nobody")


def test_every_connection_can_be_cut_at_once(proxy: FaultProxy, access: Access, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps?watch=true"
    with urllib.request.urlopen(access.server + path, timeout=30, context=access.tls) as reply:
        assert json.loads(reply.readline())["type"] == "ADDED"  # the certificate that every namespace gets
        proxy.cut_all()
        with pytest.raises((OSError, http.client.HTTPException)):
            while reply.readline():
                pass
            raise ConnectionError("the end of a reply that has none")
