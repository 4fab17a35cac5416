"""The drive plugin under a real kubelet: what a pod sees, and whose files. What happens when something dies: test_drive_deaths."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.drive_node import ADA, BOB, INSIDE, NODE, REPOSITORY, A, B, DriveNode, drive
from cluster.harness.cluster import Cluster
from cluster.harness.errors import ClusterError
from cluster.harness.images import BUSYBOX
from hub.setup.system import install_packages
from spawner.kubernetes.volumes import drive_volume, name_at_start
from spawner.model import DriveAtStart
from support.patience import until

pytestmark = pytest.mark.cluster


def test_nothing_is_seen_before_consent_and_the_drive_at_once_after_it_until_it_is_revoked(
    node: DriveNode,
) -> None:
    pod = node.pod()
    assert node.run(pod, f"ls -A {INSIDE}") == ""
    assert ADA not in node.run(pod, "cat /proc/self/mountinfo")
    with pytest.raises(ClusterError, match=r"Read-only|Permission"):
        node.run(pod, f"mkdir {INSIDE}/own")

    node.ask(pod, drive())
    node.wait_seen(pod)
    node.run(pod, f"echo from the pod > {INSIDE}/{A}/new")
    written = node.root / "drive" / ADA / "new"
    assert written.read_text() == "from the pod\n"
    assert written.stat().st_uid == 1000
    written.write_text("from the page")
    assert node.run(pod, f"cat {INSIDE}/{A}/new; rm {INSIDE}/{A}/new") == "from the page"
    assert not written.exists()
    assert node.run(pod, f"ls {INSIDE}").split() == [A], "another's drive is seen"

    node.ask(pod)
    node.wait_empty(pod)
    assert ADA not in node.run(pod, "cat /proc/self/mountinfo")


def test_a_read_only_drive_can_not_be_written_even_by_who_has_the_rights_and_may_become_writable(
    node: DriveNode,
) -> None:
    pod = node.pod(drive(readonly=True), drive(B, BOB))
    node.wait_seen(pod)
    node.wait_seen(pod, B, BOB)
    for script in (
        f"echo x > {INSIDE}/{A}/deep/er/file",
        f"rm {INSIDE}/{A}/deep/er/file",
        f"touch {INSIDE}/{A}/x",
    ):
        with pytest.raises(ClusterError, match="Read-only file system"):
            node.run(pod, script)
    with pytest.raises(ClusterError, match=r"permission denied|must be superuser|Operation not permitted"):
        node.run(pod, f"mount -o remount,rw {INSIDE}/{A}")
    node.run(pod, f"echo x > {INSIDE}/{B}/x; rm {INSIDE}/{B}/x")

    node.ask(pod, drive(), drive(B, BOB))
    until(lambda: node.succeeds(pod, f"touch {INSIDE}/{A}/x && rm {INSIDE}/{A}/x"), "it stayed read-only")


def test_a_drive_that_a_pod_asks_for_from_its_start_is_there(node: DriveNode) -> None:
    node.wait_seen(node.pod(drive()))


def test_two_pods_of_one_user_share_the_drive_and_one_goes_without_the_other(node: DriveNode) -> None:
    first, second = node.pod(drive()), node.pod(drive())
    for pod in (first, second):
        node.wait_seen(pod)
    node.delete(first, "--grace-period=1")
    until(lambda: len(node.mounts()) == 2, "the first pod's mounts stayed")
    assert node.sees(second, A, ADA)


@pytest.mark.parametrize(
    ("label", "value"),
    [("app.kubernetes.io/managed-by", "helm"), ("minicolab.dev/installation", "another")],
)
def test_a_pod_that_is_not_ours_sees_nothing_whatever_it_asks_for(
    node: DriveNode, label: str, value: str
) -> None:
    stranger = node.pod(drive(), labels={label: value})
    ours = node.pod(drive())
    node.wait_seen(ours)
    assert node.run(stranger, f"ls -A {INSIDE}") == ""


def test_a_drive_that_is_a_way_out_of_the_drives_is_not_bound(node: DriveNode) -> None:
    (node.root / "drive" / "link").symlink_to("/etc")
    (node.root / "drive" / "up").symlink_to(BOB)
    pod = node.pod(
        drive("1" * 12, "link"), drive("2" * 12, "up"), drive("3" * 12, f"../drive/{BOB}"), drive()
    )
    node.wait_seen(pod)
    assert node.run(pod, f"ls {INSIDE}").split() == [A]


def test_a_file_system_works_inside_as_outside(node: DriveNode) -> None:
    """Rename, fsync, links, a large file and a thousand small ones, by the pod's own user."""
    pod = node.pod(drive())
    node.wait_seen(pod)
    here, there = f"{INSIDE}/{A}", node.root / "drive" / ADA
    script = f"""
        cd {here}; mkdir posix; cd posix
        echo one > a; echo two > b; mv b a; [ "$(cat a)" = two ]; [ ! -e b ]
        mkdir full; echo x > full/x; ! mv -T a full 2>/dev/null; mv full moved; [ -f moved/x ]
        dd if=a of=synced conv=fsync 2>/dev/null; [ "$(cat synced)" = two ]; sync
        echo more >> a; [ "$(wc -l < a)" = 2 ]; truncate -s 3 a; [ "$(wc -c < a)" = 3 ]
        ln a hard; [ "$(stat -c %h a)" = 2 ]; ln -s a soft; [ "$(cat soft)" = "$(cat a)" ]
        chmod 640 a; [ "$(stat -c %a a)" = 640 ]; [ "$(stat -c %u a)" = 1000 ]
        mkfifo pipe; (echo through > pipe &); [ "$(cat pipe)" = through ]
        dd if=/dev/urandom of=large bs=1M count=128 conv=fsync 2>/dev/null; sha256sum large | cut -d' ' -f1
    """
    digest = node.run(pod, script).strip()
    with (there / "posix" / "large").open("rb") as large:
        assert hashlib.file_digest(large, "sha256").hexdigest() == digest
    small = f"mkdir {here}/posix/small; cd {here}/posix/small; for i in $(seq 1000); do echo $i > f$i; done"
    node.run(pod, small)
    assert {f.name: f.read_text() for f in (there / "posix" / "small").iterdir()} == {
        f"f{i}": f"{i}\n" for i in range(1, 1001)
    }
    (there / "posix" / "small" / "f1").rename(there / "posix" / "small" / "g1")
    assert node.run(pod, f"cd {here}/posix/small; ls | wc -l; cat g1; rm -r {here}/posix") == "1000\n1\n"
    assert not (there / "posix").exists()


def test_nothing_inside_leads_out_of_the_drive_to_anothers(node: DriveNode) -> None:
    """By guessing, by `..`, by links that the user makes in their own drive, which are resolved inside the pod."""
    pod = node.pod(drive())
    node.wait_seen(pod)
    here = f"{INSIDE}/{A}"
    assert node.run(pod, f"ls {here}/..").split() == [A]
    links = (
        f"../{BOB}",
        f"../../drive/{BOB}",
        f"/proc/1/root{node.root}/drive/{BOB}",
        str(node.root / "drive" / BOB),
    )
    for number, where in enumerate(links):
        node.run(pod, f"ln -sn {where} {here}/peek{number}")
        with pytest.raises(ClusterError, match="No such file"):
            node.run(pod, f"cat {here}/peek{number}/deep/er/file")
    with pytest.raises(ClusterError, match=r"Operation not permitted|Read-only|Permission denied|busy"):
        node.run(pod, f"mv {here} {here}-away || ln -s {here} {INSIDE}/{B}")
    with pytest.raises(ClusterError, match=r"Operation not permitted|Permission denied"):
        node.run(pod, f"mknod {here}/disk b 254 0")
    node.run(pod, f"rm {here}/peek*")


def test_a_drive_that_is_revoked_under_an_open_file_is_gone_for_every_path_and_the_file_is_whole(
    node: DriveNode,
) -> None:
    pod = node.pod(drive())
    node.wait_seen(pod)
    node.run(pod, f"(exec 3> {INSIDE}/{A}/open; while :; do echo x >&3; sleep 0.1; done) > /dev/null 2>&1 &")
    held = node.root / "drive" / ADA / "open"
    until(held.exists)
    node.ask(pod)
    node.wait_empty(pod)
    assert node.bound() == []
    with pytest.raises(ClusterError, match="No such file"):
        node.run(pod, f"cat {INSIDE}/{A}/deep/er/file")
    size = held.stat().st_size
    until(lambda: held.stat().st_size > size, "what is open stays so until it is closed")
    node.delete(pod, "--grace-period=1")
    node.wait_gone()
    assert set(held.read_text()) == {"x", "\n"}
    held.unlink()


@pytest.fixture
def other_volume(cluster: Cluster, tmp_path: Path) -> Iterator[DriveNode]:
    """A node whose drives lie on a file system of their own, mounted there by the test."""
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    with cluster.namespace("drive") as namespace:
        node = DriveNode(cluster, namespace, tmp_path)
        try:
            yield node
        finally:
            node.delete_all("--grace-period=1")
            node.wait_gone()
            node.remove()
            cluster.node_command("umount", "--lazy", str(node.root), check=False)


def test_a_volume_that_is_full_or_read_only_says_so_inside_and_loses_nothing(other_volume: DriveNode) -> None:
    node, enter = other_volume, other_volume.cluster.node_command
    image, filled = node.folder / "disk", node.folder / "filled"
    filled.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    enter("mkfs.ext4", "-q", str(image))
    enter("mount", "-o", "loop", str(image), str(filled))
    enter("cp", "-a", f"{node.root}/.", str(filled))
    enter("umount", str(filled))
    enter("mount", "-o", "loop", str(image), str(node.root))
    node.start()
    pod = node.pod(drive())
    node.wait_seen(pod)
    here = f"{INSIDE}/{A}"
    with pytest.raises(ClusterError, match="No space left on device"):
        node.run(pod, f"dd if=/dev/zero of={here}/much bs=1M count=64")
    with pytest.raises(ClusterError, match="No space left on device"):
        node.run(pod, f"dd if=/dev/zero of={here}/more bs=1M count=1 conv=fsync")
    assert node.sees(pod, A, ADA)
    node.run(pod, f"rm {here}/much {here}/more; echo again > {here}/again; sync")
    enter("mount", "-o", "remount,ro", str(node.root))
    with pytest.raises(ClusterError, match="Read-only file system"):
        node.run(pod, f"echo x > {here}/again")
    second = node.pod(drive())  # mounts need nothing to be written there
    node.wait_seen(second)
    node.delete_all("--grace-period=1")
    node.wait_gone()
    assert enter("cat", str(node.root / "drive" / ADA / "again")).stdout == "again\n"
    assert enter("cat", str(node.root / "drive" / BOB / "deep" / "er" / "file")).stdout == f"of {BOB}"


def test_a_fuse_volume_works_and_when_its_process_dies_pods_go_all_the_same(other_volume: DriveNode) -> None:
    install_packages({"bindfs": "bindfs"}, required=False)
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs, a FUSE file system, is not installed")
    node = other_volume
    disk = node.folder / "disk"
    node.root.rename(disk)
    node.root.mkdir()
    served = subprocess.Popen(
        [*node.cluster.enter, "bindfs", "-f", "-o", "allow_other", str(disk), str(node.root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    mounts = node.cluster.node_command
    try:
        until(
            lambda: str(node.root) in mounts("cat", "/proc/self/mountinfo").stdout, "bindfs mounted nothing"
        )
        node.start()
        pod = node.pod(drive())
        node.wait_seen(pod)
        node.run(pod, f"cd {INSIDE}/{A}; echo new > a; mv a b; sync b; [ $(stat -c %u b) = 1000 ]; rm b")
        served.kill()
        served.wait()
        with pytest.raises(ClusterError, match=r"not connected|Socket not connected"):
            node.run(pod, f"cat {INSIDE}/{A}/deep/er/file")
        node.delete(pod, "--grace-period=1")
        node.wait_gone()
    finally:
        served.kill()
        served.wait()
    assert (disk / "drive" / ADA / "deep" / "er" / "file").read_text() == f"of {ADA}"


def test_a_sub_path_needs_no_plugin_shows_one_drive_and_loses_nothing(shared_node: DriveNode) -> None:
    node = shared_node
    name = name_at_start(readonly=True)
    volume = drive_volume("subpath", claim=node.claim(), drive=DriveAtStart(ADA, readonly=True))
    for options in (("--grace-period=1",), ("--force", "--grace-period=0")):
        pod = node.pod(volume=volume)
        assert node.sees(pod, name, ADA)
        assert node.run(pod, f"ls {INSIDE}").split() == [name], "another's drive is seen"
        with pytest.raises(ClusterError, match="Read-only file system"):
            node.run(pod, f"touch {INSIDE}/{name}/x")
        node.delete(pod, *options)
        node.wait_gone()
        node.assert_no_file_lost()


def test_the_plugin_as_a_daemon_set_with_the_rights_its_chart_gives(cluster: Cluster, tmp_path: Path) -> None:
    """Privileged, with both ways of propagation: its mounts live on when its pod is deleted."""
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    with cluster.namespace("plugin", restricted=False) as system, cluster.namespace("drive") as namespace:
        node = DriveNode(cluster, namespace, tmp_path)
        try:
            cluster.apply(_daemon_set(node, system))
            pod = node.pod(drive())
            node.wait_seen(pod)
            cluster.kubectl("-n", system, "delete", "pods", "--all", "--grace-period=1")
            assert node.sees(pod, A, ADA)
            node.ask(pod, drive(B, BOB, readonly=True))
            node.wait_seen(pod, B, BOB)
            assert node.run(pod, f"ls {INSIDE}").split() == [B]
            node.delete(pod, "--grace-period=1")
            node.wait_gone()
            node.assert_no_file_lost()
        finally:
            cluster.kubectl("-n", namespace, "delete", "pods", "--all", "--grace-period=1")
            node.remove()


def _daemon_set(node: DriveNode, system: str) -> dict[str, object]:
    """Return the plugin as a DaemonSet; its image is the machine itself, which has Python and this repository."""
    command = [
        *("chroot", "/machine", "env", f"PYTHONPATH={REPOSITORY}"),
        *(sys.executable, "-m", "storage_mount.plugin", *node.arguments()),
    ]
    labels = {"app": "drive-plugin"}
    container = {
        "name": "plugin",
        "image": BUSYBOX,
        "command": command,
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "machine", "mountPath": "/machine", "mountPropagation": "Bidirectional"}],
    }
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": NODE},
        "containers": [container],
        "volumes": [{"name": "machine", "hostPath": {"path": "/"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "drive-plugin", "namespace": system},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
