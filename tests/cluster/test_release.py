"""The chart installed for a trial, with SQLite: people work in it, and go on working through upgrades and deaths of its pods."""

from __future__ import annotations

import datetime
import json
import os
import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from playwright.sync_api import Browser, Page, expect

from cluster.harness import pretended, storage
from cluster.harness.cluster import Cluster
from cluster.harness.configuration import MOST_PROCESSES
from cluster.harness.pretended import TAINT
from support.browser import new_context
from support.kernel import Kernel
from support.patience import PATIENCE, until
from tests.cluster.admin_shell import documented
from tests.cluster.release_support import CONTROL, FILES, RUNTIMES, LongCell, Release, installed, notebook

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]


# The GPUs that the node's device plugin pretends to have, and nodes that a cloud would add when they are asked for.
NODE_TO_COME = "minicolab-test/node-to-come"
VALUES = {
    "config": {
        "quota": {"max_runtimes": 3},
        "accelerators": {
            "flavors": {
                "T4": {"title": "NVIDIA T4", "resource": "nvidia.com/gpu"},
                "V5E1": {
                    "title": "TPU v5e (1 chip)",
                    "resource": "google.com/tpu",
                    "node_selector": {NODE_TO_COME: "yes"},
                    "tolerations": [{"key": TAINT["key"], "operator": "Exists"}],
                    "autoscaled": 1,
                },
            }
        },
    }
}


@pytest.fixture(scope="module")
def release(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with (
        cluster.namespace("release", restricted=False) as namespace,
        installed(cluster, tmp_path_factory.mktemp("release"), namespace, VALUES, Release.install) as it,
    ):
        it.minicolab("user", "add", "bob", "--link")
        yield it


@pytest.fixture(autouse=True)
def none_left(release: Release) -> Iterator[None]:
    """What a test that failed left running ends with it: tests after it find their slots and processors free."""
    yield
    with suppress(requests.RequestException):  # uninstalled
        for item in release.api("GET", f"{CONTROL}/admin/runtimes").json()["items"]:
            reason = {"reason": "its test is over"}
            release.api("DELETE", f"{CONTROL}/admin/runtimes/{item['id']}", json=reason)


def test_helm_test_finds_every_service(release: Release) -> None:
    said = release.cluster.helm("test", "minicolab", "--namespace", release.namespace)
    assert "Phase:          Succeeded" in said


def test_the_first_administrator_signs_in_by_the_link(release: Release) -> None:
    add = documented("kubectl --namespace minicolab exec deploy/minicolab-hub -- minicolab user add")
    link = release.shell.run(add).split()[-1]
    browser = requests.Session()
    first = browser.get(link, allow_redirects=False, timeout=PATIENCE)
    assert (first.status_code, first.headers["Location"]) == (302, "/drive")
    page = browser.get(link.split("/hub/")[0] + "/drive", timeout=PATIENCE)
    assert page.status_code == 200
    assert "My Drive" in page.text or "minicolab" in page.text


def test_a_cell_runs_in_a_pod_of_the_runtimes_namespace(release: Release) -> None:
    runtime = release.start_runtime()
    assert release.run(runtime, "print(6 * 7)").strip() == "42"
    assert release.pod(runtime)
    release.end(runtime)


def test_a_drive_appears_after_consent_and_what_is_written_is_in_it(release: Release) -> None:
    runtime = release.start_runtime()
    look = "import os; print(os.path.exists('/content/drive/MyDrive'), os.listdir('/drives'))"
    assert release.run(runtime, look).strip() == "False []"
    mounted = release.api("POST", f"{RUNTIMES}/{runtime}/mounts", json={"path": "/content/drive"})
    assert mounted.status_code in (200, 201), mounted.text
    wrote = release.run(runtime, "print(open('/content/drive/MyDrive/from-pod.txt', 'w').write('hello'))")
    assert wrote.strip() == "5"
    names = [f["name"] for f in release.api("GET", FILES + "?parent=root").json()["items"]]
    assert "from-pod.txt" in names
    release.end(runtime)


def test_files_of_a_pod_that_ends_are_kept_in_the_drive_and_given_to_the_next(release: Release) -> None:
    file = release.make_notebook()
    runtime = release.start_runtime(file)
    kept = release.api("PUT", f"{CONTROL}/quota/keep_content", json={"keep": True})
    assert kept.status_code == 200, kept.text
    release.run(
        runtime, "import os; os.mkdir('data'); _ = open('data/result.bin', 'wb').write(os.urandom(5_000_000))"
    )
    release.end(runtime)

    def snapshots() -> list[str]:
        items = release.api("GET", f"{CONTROL}/snapshots").json()["items"]
        return [item["id"] for item in items]

    until(lambda: snapshots() == [runtime], "its files are not in the Drive")
    following = release.start_runtime(file)
    restored = release.api("POST", f"{RUNTIMES}/{following}/restore", json={"snapshot_id": runtime})
    assert (restored.status_code, restored.json()) == (200, {"files": 1}), restored.text
    assert release.run(following, "import os; print(os.path.getsize('data/result.bin'))") == "5000000\n"
    assert release.api("PUT", f"{CONTROL}/quota/keep_content", json={"keep": False}).status_code == 200
    release.end(following)


def test_a_running_cell_survives_upgrade_and_rollback_on_its_connection(release: Release) -> None:
    runtime = release.start_runtime()
    pod, cell = release.pod(runtime), LongCell(release, runtime)
    release.upgrade("--set-json", "config.quota.max_runtimes=4")
    release.wait()
    release.cluster.helm("rollback", "minicolab", "--namespace", release.namespace, "--wait")
    release.wait()
    assert cell.running
    cell.end()
    assert release.pod(runtime) == pod
    assert not cell.dropped.is_set()
    assert "told after" in (cell.heard or "")
    release.end(runtime)


@pytest.mark.parametrize("component", ["hub", "documents", "control", "proxy"])
def test_a_running_cell_does_not_notice_the_death_of_a_service(release: Release, component: str) -> None:
    runtime = release.start_runtime()
    pod, cell = release.pod(runtime), LongCell(release, runtime)
    before = release.pods_of(component)
    assert before
    release.kill(*before)
    until(lambda: not before & release.pods_of(component), "its pod is still there")
    release.kubectl("rollout", "status", f"deployment/minicolab-{component}", "--timeout=300s")
    if component == "proxy":
        release.connect()  # kubectl follows one pod
    release.wait()
    assert release.state(runtime) == "ready"
    assert release.pod(runtime) == pod
    assert cell.running
    cell.end()
    # Whoever watches through the proxy loses the connection with it, and only then.
    assert cell.dropped.is_set() == (component == "proxy")
    release.end(runtime)


def test_a_release_without_a_privileged_part_gives_a_runtime_its_drive_at_the_start(
    own_cluster: Cluster, release: Release
) -> None:
    assert own_cluster.layout is not None
    volume = release.kubectl("get", "pvc", "minicolab-drive", "-o", "jsonpath={.spec.volumeName}")
    folder = own_cluster.layout.state / "volumes" / volume
    again = storage.static_claim(release.runtimes, "minicolab-drive", {"hostPath": {"path": str(folder)}})
    own_cluster.apply(*again)
    settings = {"drives": "subpath", "drive_claim": "minicolab-drive"}
    release.upgrade(*(f"--set=config.runtimes.kubernetes.{name}={value}" for name, value in settings.items()))
    release.wait()
    assert release.kubectl("get", "daemonsets", "-o", "name") == ""
    file = release.make_notebook()
    runtime = release.start_runtime(file)
    refused = release.api("POST", f"{RUNTIMES}/{runtime}/mounts", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "restart_needed")
    release.end(runtime)
    runtime = release.start_runtime(file)
    release.run(runtime, "open('/content/drive/MyDrive/from-the-start.txt', 'w').close()")
    names = [f["name"] for f in release.api("GET", FILES + "?parent=root").json()["items"]]
    assert "from-the-start.txt" in names
    release.end(runtime)
    release.upgrade()
    release.in_runtimes("delete", "pvc", "minicolab-drive", "--wait=false")
    own_cluster.kubectl("delete", "pv", f"{release.runtimes}-minicolab-drive", "--wait=false")


def test_services_that_hang_are_started_again_by_the_node_and_a_running_cell_does_not_notice(
    own_cluster: Cluster, release: Release
) -> None:
    components = ("hub", "documents", "control")
    for component in components:
        release.be_impatient_with(component)
    release.wait()
    runtime = release.start_runtime()
    pod, cell = release.pod(runtime), LongCell(release, runtime)
    for component in components:
        for process in release.processes(component):
            os.kill(process, signal.SIGSTOP)
    assert not release.works()
    until(
        lambda: all(release.restarts(component) for component in components),
        "not every one was started again",
    )
    release.wait()
    assert release.state(runtime) == "ready"
    assert release.pod(runtime) == pod
    assert cell.running
    cell.end()
    assert not cell.dropped.is_set()
    release.end(runtime)
    release.upgrade()  # patient again


# -- a person without an accelerator ---------------------------------------------------------------------------------


@pytest.fixture
def page(browser: Browser, release: Release) -> Iterator[Page]:
    """A page of bob's, signed in by a link as an administrator makes it."""
    context = new_context(browser)
    page = context.new_page()
    page.goto(release.minicolab("user", "link", "bob").strip())
    yield page
    context.close()


def open_notebook(page: Page, release: Release, source: str) -> None:
    reply = page.request.post(
        f"{release.app}{FILES}",
        data=notebook(f"hardware-{secrets.token_hex(3)}.ipynb", source),
        headers={"Origin": release.app},
    )
    assert reply.ok, reply.text()
    page.goto(f"{release.app}/d/{reply.json()['id']}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")


def choose(page: Page, title: str, picture: Path | None = None) -> str:
    """Choose a runtime type by the menu; return all that the dialog says."""
    page.click("#mc-menu .lm-MenuBar-item:has-text('Runtime')")
    page.click(".lm-Menu-itemLabel:text-is('Change runtime type')")
    dialog = page.locator(".jp-Dialog")
    choice = dialog.locator("label", has_text=title)
    choice.locator("input").check()
    said = dialog.inner_text()
    if picture is not None:
        page.screenshot(path=picture)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    return said


def tell(release: Release, pod: dict[str, Any], by: str, reason: str, message: str) -> None:
    """Write an event about a pod."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {name: pod["metadata"][name] for name in ("name", "namespace", "uid")}
    release.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{about['name']}.{reason.lower()}", "namespace": about["namespace"]},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", **about},
            "type": "Normal",
            "reason": reason,
            "message": message,
            "source": {"component": by},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
    )


@contextmanager
def added_node(release: Release) -> Iterator[None]:
    """A node object with a TPU that takes pods, on which nothing happens."""
    name = f"added-{secrets.token_hex(3)}"
    made = pretended.node(name, {"google.com/tpu": "1"}, {NODE_TO_COME: "yes"})
    del made["metadata"]["annotations"]  # KWOK would say at once that its pods run
    release.cluster.apply(made)
    try:
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
        patch = json.dumps({"status": {**made["status"], "conditions": [ready]}})
        release.cluster.kubectl("patch", "node", name, "--subresource=status", "-p", patch)
        yield
    finally:
        release.cluster.kubectl("delete", "node", name, "--wait=false")


@pytest.mark.browser
def test_a_person_who_wants_a_gpu_that_others_have_is_told_the_place_and_the_reason_and_gets_it_in_turn(
    release: Release, page: Page, shots: Path
) -> None:
    others = [release.start_runtime(accelerator="T4") for _ in range(2)]
    open_notebook(page, release, "import os; print('gpu', os.environ['NVIDIA_VISIBLE_DEVICES'])")
    said = choose(page, "NVIDIA T4", shots / "runtime-type.png")
    assert re.search(r"NVIDIA T4\s+In use now: you would be next\.", said)
    page.click(".mc-connect-button")
    waiting = page.locator(".mc-line[data-key=waiting]")
    expect(waiting).to_contain_text("Waiting for an accelerator (T4): you are next. All 2 are in use.")
    page.screenshot(path=shots / "waiting-for-gpu.png")

    waiting.get_by_role("button", name="Cancel").click()
    expect(waiting).to_have_count(0)
    expect(page.locator(".mc-connect-button")).to_have_text("Connect")
    assert page.locator(".jp-Dialog").count() == 0
    later = release.begin_runtime(accelerator="T4")  # ada's third comes first now
    page.reload()  # what was chosen is asked for again
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.click(".mc-connect-button")
    expect(waiting).to_contain_text("position 2 of 2. All 2 are in use.")
    release.end(later)
    expect(waiting).to_contain_text("you are next. All 2 are in use.")

    release.end(others[0])
    expect(page.locator(".mc-meter")).to_be_visible()
    expect(waiting).to_have_count(0)
    page.locator(".jp-CodeCell .jp-InputPrompt").first.click()
    expect(page.locator(".jp-OutputArea-output")).to_contain_text(re.compile(r"gpu \S+"))
    page.screenshot(path=shots / "gpu-in-turn.png")
    page.click(".mc-meter")
    expect(page.locator(".jp-Dialog")).to_contain_text("T4")
    page.locator(".jp-Dialog").get_by_role("button", name="Close").click()
    release.end(others[1])


@pytest.mark.browser
def test_a_node_that_is_being_added_and_an_image_that_is_being_fetched_are_said_in_the_page(
    release: Release, page: Page, shots: Path
) -> None:
    """The events are those that a cluster's autoscaler and a node write; the node they are about is only an object."""
    open_notebook(page, release, "1 + 1")
    choose(page, "TPU v5e (1 chip)")
    page.click(".mc-connect-button")
    line = page.locator(".mc-line[data-key=waiting]")
    expect(line).to_contain_text("Waiting for a machine: the cluster has")
    found = json.loads(release.in_runtimes("get", "pods", "-o", "json"))["items"]
    (pod,) = [pod for pod in found if pod["status"]["phase"] == "Pending"]  # the rest is earlier tests'
    tell(
        release,
        pod,
        "cluster-autoscaler",
        "TriggeredScaleUp",
        "pod triggered scale-up: [{pool 0->1 (max: 1)}]",
    )
    expect(line).to_have_text(re.compile("No machine is free: a new one is being added"))
    page.screenshot(path=shots / "node-being-added.png")
    with added_node(release):
        until(lambda: release.of_pod(pod["metadata"]["name"], "{.spec.nodeName}"), "it was not placed")
        tell(release, pod, "kubelet", "Pulling", f'Pulling image "{pod["spec"]["containers"][0]["image"]}"')
        expect(line).to_contain_text("Fetching the runtime's image")
        page.screenshot(path=shots / "image-being-fetched.png")
        line.get_by_role("button", name="Cancel").click()
        expect(line).to_have_count(0)
        until(
            lambda: release.of_pod(pod["metadata"]["name"], "{.metadata.deletionTimestamp}"),
            "its end was not asked for",
        )
        # The end of a pod is said by its node, and this one has nobody to say it.
        release.in_runtimes("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")


THREADS = """
import threading
end, started = threading.Event(), 0
try:
    while started < 10000:
        threading.Thread(target=end.wait).start()
        started += 1
except RuntimeError:
    pass
print(started)
"""


def test_a_node_holds_the_most_processes_of_a_runtime_and_no_other_feels_it(
    own_cluster: Cluster, release: Release
) -> None:
    greedy, other = release.start_runtime(), release.start_runtime()
    ticket = release.ticket(greedy)
    kernel = Kernel(ticket["url"], ticket["token"])
    assert MOST_PROCESSES / 2 < int(kernel.run(THREADS)) < MOST_PROCESSES
    assert release.run(other, THREADS.replace("10000", "200") + "end.set()").strip() == "200"
    kernel.run("end.set()")
    kernel.close()
    release.end(greedy)
    release.end(other)


def test_the_secrets_stay_the_same_through_upgrades(release: Release) -> None:
    def data() -> str:
        return release.kubectl("get", "secret", "minicolab-secrets", "-o", "jsonpath={.data}")

    before = data()
    release.upgrade()
    assert data() == before
    assert release.kubectl("get", "jobs", "-o", "name") == ""


def test_what_an_administrator_looks_at_and_keeps_is_there(release: Release) -> None:
    assert re.search(r"^node1\s+2\s", release.shell.run(documented("kubectl get nodes")), re.MULTILINE)
    for pod in ("hub", "documents"):
        said = release.shell.run(
            documented(f"kubectl --namespace minicolab exec deploy/minicolab-{pod} -- minicolab db backup")
        )
        for copy in re.findall(r"/\S+", said):
            release.kubectl("exec", f"deploy/minicolab-{pod}", "--", "test", "-s", copy)
        assert "/" in said
    keys = yaml.safe_load(release.shell.run(documented("kubectl --namespace minicolab get secret")))["data"]
    assert {"ticket.key", "session.key", "hub-cookie.key", "control.token"} <= keys.keys()
    values = release.shell.run(documented("helm get values"))
    assert release.runtimes in values


def test_an_uninstall_leaves_what_people_made_and_nothing_else(release: Release) -> None:
    runtime = release.start_runtime()  # with a Drive: its pod can only go while the plugin is there
    assert release.api("POST", f"{RUNTIMES}/{runtime}/mounts", json={}).status_code == 201
    release.disconnect()
    release.cluster.helm("uninstall", "minicolab", "--namespace", release.namespace, "--wait")
    kinds = "deployments,daemonsets,services,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,persistentvolumeclaims"
    left = set(
        release.kubectl("get", kinds, "-l", "app.kubernetes.io/part-of=minicolab", "-o", "name").split()
    )
    assert left == {f"persistentvolumeclaim/minicolab-{name}" for name in ("hub", "documents", "drive")}
    mine = "app.kubernetes.io/instance=minicolab"
    for kind in ("clusterroles", "clusterrolebindings", "csidrivers", "priorityclasses"):
        assert release.cluster.kubectl("get", kind, "-l", mine, "-o", "name") == ""
