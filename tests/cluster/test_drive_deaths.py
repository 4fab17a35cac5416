"""Whatever dies while a Drive is bound or unbound under a real kubelet, no file is lost and no mount left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.drive_node import ADA, BOB, INSIDE, A, B, DriveNode, drive
from cluster.harness import lifecycle
from cluster.harness.fault_proxy import FaultProxy, Rule, answer, cut, gone, refuse
from support.patience import until

pytestmark = pytest.mark.cluster

# Steps of a pod's life: volume made (3), drive bound (2), bound anew read-only (4), volume taken away (3).
STEPS = 12


def _pods_deleted(node: DriveNode) -> None:
    node.delete_all("--grace-period=1")


def _pods_force_deleted(node: DriveNode) -> None:
    node.delete_all("--force", "--grace-period=0")


def _processes_of_the_pods_killed(node: DriveNode) -> None:
    """SIGKILL to every container of the pods, the sandboxes that hold their namespaces included."""
    assert node.cluster.layout is not None
    ctr = f"ctr -a {node.cluster.layout.containerd} -n k8s.io"
    ours = f'labels."io.kubernetes.pod.namespace"=={node.namespace}'
    kill = f"for c in $({ctr} containers ls -q '{ours}'); do {ctr} tasks kill -s SIGKILL $c; done"
    node.cluster.node_command("sh", "-c", f"({kill}) 2>/dev/null || true")
    phases = ("-n", node.namespace, "get", "pods", "-o", "jsonpath={.items[*].status.phase}")
    until(lambda: "Running" not in node.cluster.kubectl(*phases), "the pods' processes live on")
    node.assert_no_file_lost()
    node.delete_all("--grace-period=1")


def _plugin_killed(node: DriveNode) -> None:
    node.kill()
    node.delete_all("--grace-period=1")


def _kubelet_killed(node: DriveNode) -> None:
    _kill_kubelet(node)
    node.delete_all("--grace-period=1")
    node.assert_no_file_lost()
    _start_kubelet(node)


KILLERS = (
    _pods_deleted,
    _pods_force_deleted,
    _processes_of_the_pods_killed,
    _plugin_killed,
    _kubelet_killed,
)


@pytest.mark.timeout(600)  # thirteen pods at once
@pytest.mark.parametrize("strike", KILLERS, ids=lambda strike: strike.__name__.strip("_"))
def test_at_every_step_of_mount_and_unmount_whatever_strikes_no_file_is_lost_and_no_mount_left(
    shared_node: DriveNode, tmp_path: Path, strike: Callable[[DriveNode], None]
) -> None:
    """The n-th pod stands before its n-th step, one has taken all of them; then it strikes, and the next plugin puts all right."""
    node = shared_node
    node.start(frozen=tmp_path)
    pods = [node.make_pod(drive()) for _ in range(STEPS + 1)]
    node.cluster.apply(*pods)
    try:
        listed = node.cluster.kubectl(
            *("-n", node.namespace, "get", "pods", "-o"),
            'jsonpath={range .items[*]}{.metadata.uid}={.metadata.name}{"\\n"}{end}',
        )
        names = dict(line.split("=") for line in listed.splitlines())

        def frozen() -> dict[int, str]:
            return {int(row): names[uid] for row, uid in (f.name.split() for f in tmp_path.iterdir())}

        def on_their_way(steps: int, bound: int, *, readonly: bool) -> list[str]:
            """Wait until the pods stand before each of the first steps and the others have their drive; return these."""
            until(
                lambda: (
                    len(frozen()) == steps
                    and sum(mount.readonly is readonly for mount in node.bound()) == bound
                ),
                f"not {steps} pods stand before a step, or not {bound} have the drive (the plugin's log: {node.log})",
            )
            return [name for name in names.values() if name not in frozen().values()]

        others = on_their_way(5, STEPS + 1 - 5, readonly=False)
        node.ask_of(others, drive(readonly=True))
        others = on_their_way(9, STEPS + 1 - 9, readonly=True)
        for name in others:
            node.delete(name, "--grace-period=1")
        until(lambda: len(frozen()) == STEPS, "not all pods that were deleted stand before a step")
        assert sorted(frozen()) == list(range(STEPS))
        strike(node)
        node.assert_no_file_lost()
        node.kill()
        node.start()
        node.delete_all("--grace-period=1")
        node.wait_gone()
        node.assert_no_file_lost()
    finally:
        assert node.stop() == 0


@pytest.mark.parametrize(
    "options", [("--grace-period=1",), ("--force", "--grace-period=0")], ids=["", "force"]
)
def test_a_pod_deleted_while_the_plugin_is_dead_goes_when_it_is_back(
    node: DriveNode, options: tuple[str, ...]
) -> None:
    pod = node.pod(drive(), drive(B, BOB, readonly=True))
    node.wait_seen(pod, B, BOB)
    node.kill()
    node.delete(pod, *options)
    until(lambda: not node.succeeds(pod, "true"), "the pod's processes stayed")
    assert len(node.mounts()) == 3, "without the plugin nobody may touch the mounts"
    node.assert_no_file_lost()
    node.start()
    node.wait_gone()


def test_a_pod_force_deleted_under_a_writing_process_loses_nothing(node: DriveNode) -> None:
    pod = node.pod(drive())
    node.wait_seen(pod)
    node.run(pod, f"(cd {INSIDE}/{A}; while :; do date > .now; sync; done) > /dev/null 2>&1 &")
    until((node.root / "drive" / ADA / ".now").exists)
    node.delete(pod, "--force", "--grace-period=0")
    node.wait_gone()


def test_a_plugin_that_starts_again_disturbs_nobody_and_knows_what_was_bound(node: DriveNode) -> None:
    pod = node.pod(drive())
    node.wait_seen(pod)
    node.run(pod, f"(exec 3> {INSIDE}/{A}/held; while :; do echo x >&3; sleep 0.1; done) > /dev/null 2>&1 &")
    held = node.root / "drive" / ADA / "held"
    until(held.exists)
    before = {mount.id for mount in node.mounts()}
    for end in (node.kill, node.stop):
        end()
        node.start()
        other = node.pod(drive(B, BOB))  # the new plugin serves, and has looked at every volume
        node.wait_seen(other, B, BOB)
        assert before <= {mount.id for mount in node.mounts()}
        size = held.stat().st_size
        until(lambda size=size: held.stat().st_size > size, "the pod could not write any more")  # type: ignore[misc]
    node.ask(pod)
    node.wait_empty(pod)


def test_what_changed_while_the_plugin_was_dead_is_made_good(node: DriveNode) -> None:
    revoked, given = node.pod(drive()), node.pod()
    node.wait_seen(revoked)
    node.kill()
    node.ask(revoked)
    node.ask(given, drive(B, BOB))
    node.start()
    node.wait_empty(revoked)
    node.wait_seen(given, B, BOB)


def test_an_api_that_answers_badly_takes_no_drive_away_and_what_it_could_not_tell_is_made_good(
    shared_node: DriveNode,
) -> None:
    node = shared_node
    with FaultProxy(node.kubeconfig) as proxy:
        node.start(kubeconfig=proxy.kubeconfig)
        pod = node.pod(drive())
        node.wait_seen(pod)
        before = {mount.id for mount in node.mounts()}
        for fault in (answer(500), answer(403), answer(429, after=1), refuse(), cut(after=300)):
            proxy.clear()
            proxy.add(Rule(gone(), path="/pods$", watch=True))
            bad = proxy.add(Rule(fault, path="/pods$"))
            proxy.cut_all()
            until(lambda bad=bad: bad.hits > 0, "the plugin did not ask again")  # type: ignore[misc]
            assert {mount.id for mount in node.mounts()} == before
        late = node.pod()  # volumes are made all the same
        node.ask(pod)
        node.ask(late, drive(B, BOB))
        assert node.sees(pod, A, ADA)
        proxy.clear()
        node.wait_empty(pod)
        node.wait_seen(late, B, BOB)
        for name in (pod, late):
            node.delete(name, "--grace-period=1")
        node.wait_gone()
        node.assert_no_file_lost()
        assert node.stop() == 0


def test_a_kubelet_killed_with_drives_bound_goes_on_and_the_pods_with_it(node: DriveNode) -> None:
    pod, gone = node.pod(drive()), node.pod(drive(B, BOB))
    node.wait_seen(pod)
    node.wait_seen(gone, B, BOB)
    _kill_kubelet(node)
    node.delete(gone, "--force", "--grace-period=0")
    node.assert_no_file_lost()
    _start_kubelet(node)
    until(lambda: len(node.mounts()) == 2, f"what is left: {node.mounts()}")
    assert node.sees(pod, A, ADA)
    node.ask(pod)
    node.wait_empty(pod)
    node.wait_seen(node.pod(drive()))


def test_kubelet_and_plugin_killed_while_a_pod_is_deleted_lose_nothing(node: DriveNode) -> None:
    pod = node.pod(drive(), drive(B, BOB, readonly=True))
    node.wait_seen(pod, B, BOB)
    node.delete(pod, "--grace-period=1")
    _kill_kubelet(node)
    node.kill()
    node.assert_no_file_lost()
    _start_kubelet(node)
    node.start()
    node.wait_gone()


def _kill_kubelet(node: DriveNode) -> None:
    assert node.cluster.layout is not None
    pid = lifecycle.processes_of(node.cluster.layout).pid("kubelet")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: lifecycle.processes_of(node.cluster.layout).pid("kubelet") is None)  # type: ignore[arg-type]


def _start_kubelet(node: DriveNode) -> None:
    assert node.cluster.layout is not None
    lifecycle.up(node.cluster.layout.state)
