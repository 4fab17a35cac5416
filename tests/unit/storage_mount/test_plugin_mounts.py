"""The drive plugin on real mounts, in a mount namespace of the test's own, with a process that sees them as a pod does."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from storage_mount.plugin import binds
from storage_mount.plugin.attendant import Attendant
from storage_mount.plugin.csi import Identity, Node
from storage_mount.plugin.reconcile import Drive
from storage_mount.plugin.registration import Registration
from storage_mount.plugin.serving import serve
from storage_mount.plugin.volumes import EPHEMERAL, OWNER, POD_NAMESPACE, POD_UID, Layout, Refused, Volumes
from storage_mount.plugin.wire import csi_node_pb2 as pb
from storage_mount.plugin.wire import registration_pb2
from support.killed import kill_before
from support.mounts import Pod, bind_shared, exchange, in_child, in_private_mounts, squash_root
from support.patience import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

UID = "8d2c5f6e-0000-4000-8000-000000000001"
ADA, BOB = "0f3c", "b0b0"
A, B = "a" * 12, "b" * 12
NAMESPACE = "runtimes"


class Machine:
    """A node with a kubelet folder, a volume of drives with files in it, and the plugin's volumes."""

    def __init__(self, folder: Path, *, shared: bool = True) -> None:
        self.kubelet, self.root = folder / "kubelet", folder / "volume"
        self.kubelet.mkdir()
        if shared:
            bind_shared(self.kubelet)
        for drive in (ADA, BOB):
            (self.root / "drive" / drive / "deep" / "er").mkdir(parents=True)
            (self.root / "drive" / drive / "deep" / "er" / "file").write_text(f"of {drive}")
        self.place = self.place_of(UID)
        self.volumes = self.plugin()
        self.before = self.files()

    def place_of(self, uid: str) -> Path:
        place = self.kubelet / "pods" / uid / "volumes" / "kubernetes.io~csi" / "drives" / "mount"
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def plugin(self) -> Volumes:
        return Volumes(Layout("drive.test", self.kubelet, self.root, NAMESPACE))

    def publish(self, volumes: Volumes | None = None) -> None:
        (volumes or self.volumes).publish(str(self.place), context())

    def files(self) -> dict[str, str]:
        return {str(f): f.read_text() for f in sorted(self.root.rglob("*")) if f.is_file()}

    def assert_nothing_left(self) -> None:
        assert [m for m in binds.mounts_below(self.kubelet) if m.point != str(self.kubelet)] == []
        assert not self.place.exists()
        assert self.files() == self.before


def context(uid: str = UID, namespace: str = NAMESPACE, ephemeral: str = "true") -> dict[str, str]:
    return {POD_UID: uid, POD_NAMESPACE: namespace, EPHEMERAL: ephemeral}


@contextmanager
def pod() -> Iterator[Pod]:
    made = Pod()
    try:
        yield made
    finally:
        made.end()


@in_private_mounts
def test_a_drive_is_seen_in_a_running_pod_after_consent_and_never_before(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.publish()
    with pod() as running:
        inside = running.path(machine.place)
        assert os.listdir(inside) == []
        assert machine.volumes.apply({UID: [Drive(A, ADA, False)]})
        assert os.listdir(inside) == [A]
        assert (inside / A / "deep/er/file").read_text() == f"of {ADA}"
        (inside / A / "new").write_text("from the pod")
        assert (machine.root / "drive" / ADA / "new").read_text() == "from the pod"
        (machine.root / "drive" / ADA / "new").write_text("from the page")
        assert (inside / A / "new").read_text() == "from the page"
        assert machine.volumes.apply({UID: []})
        assert os.listdir(inside) == []
        assert A not in running.mountinfo()
    assert (machine.root / "drive" / ADA / "new").read_text() == "from the page"


@in_private_mounts
def test_drives_appear_even_where_kubelets_folder_is_not_shared(tmp_path: Path) -> None:
    machine = Machine(tmp_path, shared=False)
    machine.publish()
    with pod() as running:
        machine.volumes.apply({UID: [Drive(A, ADA, False)]})
        assert (running.path(machine.place) / A / "deep/er/file").read_text() == f"of {ADA}"
        machine.volumes.unpublish(str(machine.place))
        assert A not in running.mountinfo()
    machine.assert_nothing_left()


@in_private_mounts
def test_read_only_holds_in_the_pod_and_can_be_changed_both_ways(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.publish()
    with pod() as running:
        inside = running.path(machine.place) / A / "deep/er/file"
        for readonly in (True, False, True):
            assert machine.volumes.apply({UID: [Drive(A, ADA, readonly)]})
            if readonly:
                with pytest.raises(OSError, match="Read-only") as refused:
                    inside.write_text("spoilt")
                assert refused.value.errno == errno.EROFS
                with pytest.raises(OSError, match="Read-only"):
                    os.unlink(inside)
            else:
                inside.write_text("better")
        assert inside.read_text() == "better"


@in_private_mounts
def test_a_drive_gives_no_rights_to_its_files(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.publish()
    machine.volumes.apply({UID: [Drive(A, ADA, False)]})
    with pod() as running:
        (line,) = (line for line in running.mountinfo().splitlines() if line.split()[4].endswith(A))
        options = line.split()[5].split(",")
        assert {"nosuid", "nodev"} <= set(options)


@in_private_mounts
def test_what_is_mounted_in_a_drives_folder_later_is_not_shown(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    bind_shared(machine.root)
    machine.publish()
    machine.volumes.apply({UID: [Drive(A, ADA, False)]})
    deep = machine.root / "drive" / ADA / "deep"
    binds.bind(machine.root, f"drive/{BOB}", deep, readonly=False)
    with pod() as running:
        assert (deep / "deep/er/file").read_text() == f"of {BOB}"
        assert (running.path(machine.place) / A / "deep/er/file").read_text() == f"of {ADA}"


@in_private_mounts
def test_a_drive_that_is_a_link_or_lies_on_another_mount_or_is_not_there_is_not_bound(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.root / "drive" / "link").symlink_to(BOB)
    (machine.root / "drive" / "way-out").symlink_to("/etc")
    (machine.root / "drive" / "file").write_text("no folder")
    (machine.root / "drive" / "other").mkdir()
    bind_shared(machine.root / "drive" / "other")
    machine.publish()
    for drive in ("link", "way-out", "file", "other", "not-there"):
        assert not machine.volumes.apply({UID: [Drive(A, drive, False), Drive(B, ADA, False)]}), drive
        assert os.listdir(machine.place) == [B], drive
    assert machine.volumes.apply({UID: [Drive(B, ADA, False)]})


@in_private_mounts
def test_a_drive_that_changes_into_a_link_while_it_is_bound_never_shows_anothers(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    drives, over = machine.root / "drive", threading.Event()
    (drives / "spare").symlink_to(BOB)

    def swap() -> None:
        while not over.is_set():
            exchange(drives / ADA, drives / "spare")

    swapping = threading.Thread(target=swap)
    swapping.start()
    opened = refused = 0

    def tried() -> bool:
        nonlocal opened, refused
        for _ in range(100):
            try:
                with binds.source(machine.root, f"drive/{ADA}") as folder:
                    opened += 1
                    assert Path(f"/proc/self/fd/{folder}/deep/er/file").read_text() == f"of {ADA}"
            except OSError:
                refused += 1
        return min(opened, refused) >= 100

    try:
        until(tried, "the folder was never a link, or always")
    finally:
        over.set()
        swapping.join()


@in_private_mounts
def test_a_drive_whose_folder_is_a_link_above_is_not_bound(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.root / "drive").rename(machine.root / "real")
    (machine.root / "drive").symlink_to("real")
    machine.publish()
    assert not machine.volumes.apply({UID: [Drive(A, ADA, False)]})
    assert os.listdir(machine.place) == []


@in_private_mounts
def test_a_volume_on_which_root_is_nobody_is_reached_as_its_owner(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    owner = OWNER
    for path in (machine.root / "drive", *(machine.root / "drive").iterdir()):
        os.chown(path, owner, owner)
        path.chmod(0o700)
    machine.publish()
    squash_root()
    asked = {UID: [Drive(A, ADA, False)]}
    layout = Layout("drive.test", machine.kubelet, machine.root, NAMESPACE)
    assert not Volumes(replace(layout, owner=0)).apply(asked), "root was not nobody"
    assert Volumes(layout).apply(asked)
    assert (machine.place / A).is_mount()
    assert not os.access(machine.place / A / "deep", os.R_OK), "the owner's rights were kept"


@in_private_mounts
def test_a_volume_goes_while_a_file_in_it_is_open(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.publish()
    machine.volumes.apply({UID: [Drive(A, ADA, False), Drive(B, BOB, True)]})
    with pod() as running:
        inside = running.path(machine.place) / A
        with (inside / "log").open("w") as log:
            log.write("begun")
            machine.volumes.unpublish(str(machine.place))
            assert "drive.test" not in running.mountinfo()
            log.write(", ended")
        assert (machine.root / "drive" / ADA / "log").read_text() == "begun, ended"
        (machine.root / "drive" / ADA / "log").unlink()
    machine.assert_nothing_left()


@in_private_mounts
def test_a_file_system_that_hangs_keeps_no_volume_from_going(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.publish()
    hangs, answers = threading.Event(), threading.Event()
    opened = binds.source

    @contextmanager
    def slow(root: Path, folder: str, *, owner: int | None) -> Iterator[int]:
        hangs.set()
        answers.wait()
        with opened(root, folder, owner=owner) as found:
            yield found

    binds.source = slow
    applied = threading.Thread(target=machine.volumes.apply, args=({UID: [Drive(A, ADA, False)]},))
    applied.start()
    until(hangs.is_set)
    machine.volumes.unpublish(str(machine.place))
    machine.assert_nothing_left()
    machine.place.mkdir()  # the place is there again, and no volume
    answers.set()
    applied.join()
    assert list(machine.place.iterdir()) == []
    machine.place.rmdir()
    machine.assert_nothing_left()


@in_private_mounts
def test_publish_and_unpublish_may_be_asked_for_again_and_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.volumes.unpublish(str(machine.place))
    for _ in range(3):
        machine.publish()
    assert len(binds.mounts_below(machine.place)) == 1
    machine.volumes.apply({UID: [Drive(A, ADA, False)]})
    machine.publish()
    assert len(binds.mounts_below(machine.place)) == 2
    for _ in range(3):
        machine.volumes.unpublish(str(machine.place))
        machine.assert_nothing_left()


@in_private_mounts
def test_only_inline_volumes_of_pods_in_the_namespace_are_made(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    good = str(machine.place)
    wrong = [
        (good, context(namespace="default")),
        (good, context(uid="another")),
        (good, context(ephemeral="false")),
        (good, {}),
        (str(machine.root / "drive" / ADA), context()),
        (f"{machine.kubelet}/pods/{UID}/volumes/kubernetes.io~csi/../../../../etc/mount", context()),
        (f"{machine.kubelet}/pods/../volumes/kubernetes.io~csi/x/mount", context(uid="..")),
        (good + "/", context()),
        (good + "\n", context()),
        (good.removeprefix("/"), context()),
    ]
    for target, said in wrong:
        with pytest.raises(Refused):
            machine.volumes.publish(target, said)
    with pytest.raises(Refused):
        machine.volumes.unpublish(str(machine.root / "drive" / ADA))
    machine.assert_nothing_left()


@in_private_mounts
def test_other_file_systems_in_pods_are_left_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    elsewhere = machine.place_of("another")
    elsewhere.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "other.driver", str(elsewhere)], check=True)
    (elsewhere / "empty").mkdir()
    machine.publish()
    assert machine.volumes.apply({})
    assert [volume.pod for volume in machine.volumes.find()] == [UID]
    assert (elsewhere / "empty").is_dir()
    assert len(binds.mounts_below(elsewhere)) == 1


@in_private_mounts
def test_what_is_not_empty_is_never_removed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.place.mkdir()
    (machine.place / "somebodys").write_text("x")
    machine.publish()
    with pytest.raises(OSError, match="not empty"):
        machine.volumes.unpublish(str(machine.place))
    assert binds.mounts_below(machine.place) == ()
    assert (machine.place / "somebodys").read_text() == "x"


@in_private_mounts
def test_a_plugin_killed_at_any_step_leaves_what_the_next_one_puts_right(tmp_path: Path) -> None:
    """The pod lives on: the next plugin makes everything as wanted, whatever the first had done."""
    steps = _for_every_step(tmp_path, _made_right)
    assert steps == 16, "the plugin was not killed at as many steps as it has"


@in_private_mounts
def test_a_plugin_killed_at_any_step_leaves_what_the_next_one_takes_away(tmp_path: Path) -> None:
    """The pod is deleted: the next plugin takes everything away, whatever the first had done."""
    steps = _for_every_step(tmp_path, _taken_away)
    assert steps == 16, "the plugin was not killed at as many steps as it has"


def _for_every_step(folder: Path, go_on: Callable[[Machine], None]) -> int:
    """Kill a plugin at one step after another of a pod's whole life; return at how many."""
    number = 0
    while True:
        here = folder / str(number)
        here.mkdir()
        machine = Machine(here)

        def life(machine: Machine = machine, number: int = number) -> None:
            kill_before(number)
            plugin = machine.plugin()
            machine.publish(plugin)
            plugin.apply({UID: [Drive(A, ADA, False), Drive(B, BOB, True)]})
            plugin.apply({UID: [Drive(A, ADA, True)]})
            plugin.unpublish(str(machine.place))

        ended = in_child(life)
        assert ended in (None, "SIGKILL"), ended
        go_on(machine)
        machine.assert_nothing_left()
        if ended is None:
            return number
        number += 1


def _made_right(machine: Machine) -> None:
    machine.publish()
    assert machine.volumes.apply({UID: [Drive(A, ADA, False)]})
    with pod() as running:
        inside = running.path(machine.place)
        assert os.listdir(inside) == [A]
        (inside / A / "deep/er/file").write_text(f"of {ADA}")
    machine.volumes.unpublish(str(machine.place))


def _taken_away(machine: Machine) -> None:
    machine.volumes.apply({})
    assert not any((machine.place / name).is_mount() for name in (A, B))
    machine.volumes.unpublish(str(machine.place))


@in_private_mounts
def test_after_a_restart_of_the_machine_nothing_is_mounted_and_all_is_made_or_removed_as_asked(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path)
    for then in (_made_right, _taken_away):
        machine.publish()
        machine.volumes.apply({UID: [Drive(A, ADA, False), Drive(B, BOB, True)]})
        subprocess.run(["umount", "--recursive", str(machine.place)], check=True)  # as a restart does
        machine.volumes = machine.plugin()
        then(machine)
        machine.assert_nothing_left()


@in_private_mounts
def test_kubelet_is_served_on_sockets(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    published = threading.Event()
    socket = tmp_path / "plugins" / "csi.sock"
    server = serve(
        socket,
        Identity("drive.test").handler(),
        Node("node-7", machine.volumes, published.set).handler(),
        Registration("drive.test", socket, published.clear).handler(),
    )
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    with grpc.insecure_channel(f"unix://{socket}") as channel:

        def call(method: str, request: object, answer: type) -> object:
            return channel.unary_unary(method, type(request).SerializeToString, answer.FromString)(request)  # type: ignore[attr-defined]

        info = call("/csi.v1.Identity/GetPluginInfo", pb.GetPluginInfoRequest(), pb.GetPluginInfoResponse)
        assert info.name == "drive.test"  # type: ignore[attr-defined]
        node = call("/csi.v1.Node/NodeGetInfo", pb.NodeGetInfoRequest(), pb.NodeGetInfoResponse)
        assert node.node_id == "node-7"  # type: ignore[attr-defined]
        plugin = call(
            "/pluginregistration.Registration/GetInfo",
            registration_pb2.InfoRequest(),
            registration_pb2.PluginInfo,
        )
        assert (plugin.type, plugin.endpoint) == ("CSIPlugin", str(socket))  # type: ignore[attr-defined]
        request = pb.NodePublishVolumeRequest(
            volume_id="csi-1", target_path=str(machine.place), volume_context=context()
        )
        call("/csi.v1.Node/NodePublishVolume", request, pb.NodePublishVolumeResponse)
        assert published.is_set()
        assert len(binds.mounts_below(machine.place)) == 1
        call(
            "/csi.v1.Node/NodeUnpublishVolume",
            pb.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=str(machine.place)),
            pb.NodeUnpublishVolumeResponse,
        )
        machine.assert_nothing_left()
        with pytest.raises(grpc.RpcError) as refused:
            call(
                "/csi.v1.Node/NodeUnpublishVolume",
                pb.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path="/etc"),
                pb.NodeUnpublishVolumeResponse,
            )
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        status = registration_pb2.RegistrationStatus(plugin_registered=False, error="twice")
        call(
            "/pluginregistration.Registration/NotifyRegistrationStatus",
            status,
            registration_pb2.RegistrationStatusResponse,
        )
        assert not published.is_set()
    server.stop(None).wait()


@in_private_mounts
def test_a_drive_that_comes_later_is_tried_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.publish()
    attendant = Attendant(machine.volumes)
    threading.Thread(target=attendant.run, daemon=True).start()
    attendant.heard({UID: f'[{{"name": "{B}", "drive": "late", "readonly": true}}, {{"name": "{A}"}}]'})
    (machine.root / "drive" / "late").mkdir()
    until(lambda: (machine.place / B).is_mount(), "the drive was not tried again")
    assert os.listdir(machine.place) == [B]


@in_private_mounts
def test_nothing_is_taken_away_before_the_pods_were_heard_of(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.publish()
    machine.volumes.apply({UID: [Drive(A, ADA, False)]})
    applied = threading.Event()

    class Watched(Volumes):
        def apply(self, wanted: Mapping[str, Iterable[Drive]]) -> bool:
            done = super().apply(wanted)
            applied.set()
            return done

    attendant = Attendant(Watched(Layout("drive.test", machine.kubelet, machine.root, NAMESPACE)))
    threading.Thread(target=attendant.run, daemon=True).start()
    attendant.wake()  # the plugin was started again, and the cluster's API has not answered yet
    assert not applied.wait(0.3)
    assert (machine.place / A).is_mount()
    attendant.heard({})
    until(applied.is_set)
    assert not (machine.place / A).exists()
