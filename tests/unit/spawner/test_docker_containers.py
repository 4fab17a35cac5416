"""What a container is made with, how far a pull is said to be, and what a bill of materials lists."""

from __future__ import annotations

import dataclasses
import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from spawner.docker.containers import (
    ContainerSettings,
    container_arguments,
    container_name,
    is_ours,
    network_arguments,
)
from spawner.docker.devices import device_arguments
from spawner.docker.layers import may_have_quotas
from spawner.docker.pull import PullFailed, PullMeter
from spawner.model import RuntimeSpec, Shape

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = RuntimeSpec(
    id="r-abc",
    user="ada",
    file_id="f-1",
    base_url="/user/ada/r-abc/",
    shape=Shape("STANDARD", 4 << 30, 1.5, 500),
    accelerator="NONE",
    devices=(),
    max_lifetime_seconds=3600.0,
    idle_limit_seconds=60.0,
    ticket_key=b"k" * 32,
    allow_origin="http://localhost",
    control_url="http://x/",
    public_control_url="http://y/",
)
NAMES = {"/dev/nvidia1": "GPU-one"}
SETTINGS = ContainerSettings("one", "image:1", "net")


def made(spec: RuntimeSpec = SPEC, **changes: object) -> dict[str, Any]:
    settings = dataclasses.replace(SETTINGS, **changes)  # type: ignore[arg-type]
    content = {"Type": "bind", "Source": "/state/runtimes/r-abc/content"}
    return container_arguments(spec, settings, "told", content, device_arguments(spec.devices, NAMES), NOW)


def test_a_container_has_the_limits_of_its_shape_and_no_swap_besides() -> None:
    host = made()["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (4 << 30, 4 << 30)
    assert (host["NanoCpus"], host["PidsLimit"]) == (1_500_000_000, 500)
    assert host["ShmSize"] == 2 << 30
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/state/runtimes/r-abc/content", "Target": "/content"}
    ]


def test_root_keeps_what_apt_needs_and_a_plain_user_keeps_nothing() -> None:
    root, plain = made(), made(root=False)
    assert (root["User"], plain["User"]) == ("0:0", "1000:1000")
    assert plain["HostConfig"]["CapAdd"] == []
    assert not {"SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "MKNOD"} & set(
        root["HostConfig"]["CapAdd"]
    )
    for one in (root, plain):
        assert one["HostConfig"]["CapDrop"] == ["ALL"]
        assert one["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
        assert "Privileged" not in one["HostConfig"]
    assert "HOME=/root" in root["Env"] and "HOME=/home/runtime" in plain["Env"]


def test_labels_say_whose_it_is_and_until_when() -> None:
    labels = made()["Labels"]
    assert (labels["minicolab.dev/runtime"], labels["minicolab.dev/user"]) == ("r-abc", "ada")
    assert labels["minicolab.dev/deadline"] == "2026-01-01T01:05:00+00:00"
    assert is_ours(labels, "one")
    assert not is_ours(labels, "another")
    assert not is_ours({"minicolab.dev/installation": "one"}, "one")
    assert not is_ours(None, "one")
    assert container_name("one", "r-abc") != container_name("two", "r-abc")


def test_only_the_devices_that_were_granted_are_asked_for_by_their_drivers_names() -> None:
    none = made()
    assert none["HostConfig"]["DeviceRequests"] == none["HostConfig"]["Devices"] == []
    assert "NVIDIA_VISIBLE_DEVICES=void" in none["Env"]
    granted = made(dataclasses.replace(SPEC, devices=("/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia3")))
    [request] = granted["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == ["GPU-one", "3"]
    assert granted["HostConfig"]["Devices"] == []
    assert not any(line.startswith("NVIDIA_VISIBLE_DEVICES") for line in granted["Env"])


def test_devices_of_others_than_nvidia_are_plain_files() -> None:
    host = made(dataclasses.replace(SPEC, devices=("/dev/accel0", "/dev/vfio/3")))["HostConfig"]
    assert [d["PathOnHost"] for d in host["Devices"]] == ["/dev/accel0", "/dev/vfio/3"]
    assert {d["CgroupPermissions"] for d in host["Devices"]} == {"rw"}
    assert host["DeviceRequests"] == []


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "xfs"]]}, True),
        ({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]}, False),
        ({"Driver": "btrfs", "DriverStatus": [["Build Version", "6"]]}, True),
        ({"Driver": "vfs", "DriverStatus": None}, False),
        # It takes a limit, and does not hold it.
        ({"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}, False),
        ({"Driver": "btrfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}, False),
    ],
)
def test_which_storage_may_have_quotas(info: dict[str, Any], expected: bool) -> None:
    assert may_have_quotas(info) is expected


def test_runtimes_of_one_network_do_not_reach_each_other() -> None:
    assert network_arguments(SETTINGS)["options"]["com.docker.network.bridge.enable_icc"] == "false"


def test_a_pull_tells_its_share_and_never_goes_back() -> None:
    meter = PullMeter("image:1")

    def down(layer: str, current: int, total: int) -> dict[str, Any]:
        return {"id": layer, "status": "Downloading", "progressDetail": {"current": current, "total": total}}

    assert meter.hear({"status": "Pulling from image", "id": "1"}) is None
    assert meter.hear(down("a", 50, 100)) == "Pulling the image image:1 (50 %)"
    assert meter.hear(down("b", 0, 300)) is None
    assert meter.hear({"id": "a", "status": "Download complete"}) is None
    assert meter.hear(down("b", 150, 300)) == "Pulling the image image:1 (62 %)"
    assert (
        meter.hear({"id": "b", "status": "Pull complete", "progressDetail": {}})
        == "Pulling the image image:1 (100 %)"
    )
    with pytest.raises(PullFailed, match="unknown"):
        meter.hear({"error": "manifest unknown"})


def test_a_bill_of_materials_lists_each_package_once_and_is_the_same_for_the_same_packages() -> None:
    path = Path(__file__).parents[3] / "images" / "common" / "sbom.py"
    located = importlib.util.spec_from_file_location("sbom", path)
    assert located is not None and located.loader is not None
    sbom = importlib.util.module_from_spec(located)
    located.loader.exec_module(sbom)
    packages = sbom.python_packages()
    one, other = sbom.document(packages), sbom.document(list(reversed(packages + packages)))
    assert one == other
    assert (one["bomFormat"], one["specVersion"]) == ("CycloneDX", "1.5")
    references = [component["bom-ref"] for component in one["components"]]
    assert references == sorted(set(references))
    assert any(reference.startswith("pkg:pypi/pytest@") for reference in references)
    assert sbom.document(packages[1:])["serialNumber"] != one["serialNumber"]
