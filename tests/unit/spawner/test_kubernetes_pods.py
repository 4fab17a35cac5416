"""The pod of a runtime: what it may, what it gets, where it goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spawner.kubernetes.model import DRIVES, Installation, PodFlavor, is_ours, user_hash
from spawner.kubernetes.pods import STAYS, deadline, pod, secret
from spawner.model import RuntimeSpec, Shape

T4 = PodFlavor(
    "nvidia.com/gpu",
    1,
    {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"},
    ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
    "nvidia",
)
V5E8 = PodFlavor("google.com/tpu", 8, {"cloud.google.com/gke-tpu-topology": "2x4"}, image="tpu:1")
SETTINGS = Installation("runtimes", "minicolab", "runtime:1", flavors={"T4": T4, "V5E8": V5E8})
SPEC = RuntimeSpec(
    id="r-abcdefghijkl",
    user="Ada.Lovelace@example.org",
    file_id="f-1",
    base_url="/user/ada/r-abcdefghijkl/",
    shape=Shape("S", 2 << 30, 1.5, 200),
    accelerator="NONE",
    devices=(),
    max_lifetime_seconds=3600.0,
    idle_limit_seconds=60.0,
    ticket_key=b"k" * 32,
    allow_origin="",
    control_url="",
    public_control_url="",
)


def made(settings: Installation = SETTINGS, **changes: Any) -> dict[str, Any]:
    return pod(replace(SPEC, **changes), settings, start="s1")


def container(found: dict[str, Any]) -> dict[str, Any]:
    (only,) = found["spec"]["containers"]
    return dict(only)


def test_it_has_no_rights_and_sees_nothing_of_the_node() -> None:
    spec = made()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    rights = container(made())["securityContext"]
    assert rights == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPath" in volume for volume in spec["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


def test_its_secrets_are_in_a_secret_that_goes_with_it() -> None:
    kept = secret(SPEC, SETTINGS, described="{}", pod_uid="u-1")
    assert kept["metadata"]["name"] == SPEC.id
    assert kept["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    (variable, *_) = container(made())["env"]
    assert variable["name"] == "MINICOLAB_SPEC"
    assert variable["valueFrom"]["secretKeyRef"] == {"name": SPEC.id, "key": "spec", "optional": False}
    assert "stringData" not in str(made())


def test_labels_tell_whose_it_is_and_names_that_no_label_can_hold_are_hashed() -> None:
    found = made()
    assert is_ours(found, SETTINGS)
    assert not is_ours(found, replace(SETTINGS, name="other"))
    assert not is_ours({"metadata": {"name": "x"}}, SETTINGS)
    assert found["metadata"]["annotations"]["minicolab.dev/user"] == SPEC.user
    assert found["metadata"]["labels"]["minicolab.dev/user"] == user_hash(SPEC.user)
    assert user_hash("ada") != user_hash("Ada")
    assert found["metadata"]["annotations"][DRIVES] == "[]"


def test_its_shape_is_its_limit_and_a_part_of_it_is_reserved() -> None:
    found = container(made(replace(SETTINGS, cpu_share=0.5, memory_share=0.25, disk_bytes=1 << 30)))
    assert found["resources"]["limits"] == {
        "cpu": "1500m",
        "memory": str(2 << 30),
        "ephemeral-storage": str(1 << 30),
    }
    assert found["resources"]["requests"] == {
        "cpu": "750m",
        "memory": str(1 << 29),
        "ephemeral-storage": str(1 << 30),
    }


def test_an_accelerator_is_a_resource_on_the_right_nodes() -> None:
    found = made(replace(SETTINGS, node_selector={"pool": "notebooks"}), accelerator="T4")
    assert container(found)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert found["spec"]["nodeSelector"] == {"pool": "notebooks", **T4.node_selector}
    assert found["spec"]["tolerations"] == [*STAYS, dict(T4.tolerations[0])]
    assert found["spec"]["runtimeClassName"] == "nvidia"
    tpu = made(accelerator="V5E8")
    assert container(tpu)["resources"]["requests"]["google.com/tpu"] == "8"
    assert container(tpu)["image"] == "tpu:1"
    with pytest.raises(KeyError):
        made(accelerator="H100")


def test_without_an_accelerator_it_gets_none_even_on_a_node_that_has_some() -> None:
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container(made())["env"]
    assert len(container(made(accelerator="T4"))["env"]) == 1


def test_the_clusters_own_deadline_lies_behind_every_life_that_is_rightly_lived() -> None:
    settings = replace(SETTINGS, extension_seconds=7200.0, start_seconds=600.0)
    assert deadline(SPEC, settings) > 3600 + 7200 + 600
    assert made(settings)["spec"]["activeDeadlineSeconds"] == deadline(SPEC, settings)


def test_drives_come_by_the_plugin_or_not_at_all() -> None:
    volumes = {v["name"]: v for v in made()["spec"]["volumes"]}
    assert volumes["drives"]["csi"] == {"driver": "drive.minicolab.dev"}
    (mount,) = [m for m in container(made())["volumeMounts"] if m["name"] == "drives"]
    assert mount == {"name": "drives", "mountPath": "/drives", "mountPropagation": "HostToContainer"}
    without = made(replace(SETTINGS, drives="none"))
    assert "csi" not in str(without["spec"]["volumes"])


def test_a_gated_pod_waits_for_its_claim() -> None:
    assert "schedulingGates" not in made()["spec"]
    gated = pod(SPEC, SETTINGS, start="s1", gated=True)
    assert gated["spec"]["schedulingGates"] == [{"name": "minicolab.dev/claim"}]
