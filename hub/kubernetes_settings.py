"""The sections of the settings that are about a cluster."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hub.setting_types import Duration, Section, Size

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Share = Annotated[float, Field(gt=0, le=1)]
FLAVOR_NAME = r"^[A-Z0-9][A-Z0-9.-]{0,62}$"


class TolerationSettings(Section):
    """A taint of nodes that runtimes may ignore."""

    key: str | None = Field(None, description="Key of the taint; left out: every one.")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Exists does not look at the value.")
    value: str | None = Field(None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint; left out: every one."
    )

    @model_validator(mode="after")
    def _value_fits_operator(self) -> TolerationSettings:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists takes no value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("operator Equal needs a key")
        return self


class KubernetesSettings(Section):
    """Runtimes as pods."""

    namespace: DnsLabel = Field("minicolab-runtimes", description="Namespace the runtimes are in.")
    installation: DnsLabel = Field(
        "minicolab", description="Name that tells this installation's pods from another's."
    )
    image: str | None = Field(
        None, min_length=1, description="Image of the runtimes, with its tag or digest."
    )
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        "IfNotPresent", description="When a node fetches the image."
    )
    pull_secrets: tuple[str, ...] = Field((), description="Secrets in the namespace that open the registry.")
    service_account: str = Field(
        "runtime", description="Service account of the pods; they get no token of it."
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of nodes for runtimes.")
    tolerations: tuple[TolerationSettings, ...] = Field((), description="Taints of nodes for runtimes.")
    drives: Literal["csi", "subpath", "none"] = Field(
        "csi",
        description="csi: the drive plugin brings a Drive into a running pod; subpath: a pod starts with it, without a plugin; "
        "none: no Drives inside.",
    )
    drive_claim: str | None = Field(
        None, description="Claim of the Drive's volume in the namespace of runtimes; with drives: subpath."
    )
    cpu_share: Share = Field(0.25, description="Part of a shape's CPUs that is reserved on the node.")
    memory_share: Share = Field(
        0.5,
        description="Part of a shape's memory that is reserved on the node; 1: no runtime is ever evicted for its neighbours' sake.",
    )
    disk: Size | None = Field(
        None, description="Most bytes a runtime may write on its node; None means no limit."
    )
    priority_class: str | None = Field(None, description="Priority class of the pods.")
    user_namespaces: bool = Field(
        False, description="Whether pods get a user namespace of their own (nodes must support it)."
    )
    start_timeout: Annotated[Duration, Field(gt=timedelta())] = Field(
        timedelta(minutes=15), description="How long a start may take, a new node and a pull included."
    )
    kubeconfig: Path | None = Field(
        None, description="File that names the cluster; None means the one the service runs in."
    )

    @model_validator(mode="after")
    def _sub_path_has_a_claim(self) -> KubernetesSettings:
        if (self.drives == "subpath") is not bool(self.drive_claim):
            raise ValueError("drives: subpath and drive_claim need each other")
        return self

    @property
    def drives_at_start(self) -> bool:
        """Whether a runtime has its Drive from its start or not at all."""
        return self.drives == "subpath"


class FlavorSettings(Section):
    """A kind of accelerator that nodes have."""

    title: str = Field(min_length=1, max_length=80, description="What people read.")
    resource: str = Field("nvidia.com/gpu", description="Resource of the nodes, such as google.com/tpu.")
    count: int = Field(1, ge=1, description="How many of the resource a runtime gets.")
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Labels of the nodes that have it."
    )
    tolerations: tuple[TolerationSettings, ...] = Field((), description="Taints of these nodes.")
    runtime_class: str | None = Field(None, description="Runtime class of the pods, such as nvidia.")
    image: str | None = Field(None, description="Image instead of runtimes.kubernetes.image.")
    autoscaled: int = Field(
        0,
        ge=0,
        description="How many runtimes may have it at once where an autoscaler adds nodes; 0: as many as the nodes there are allow.",
    )


class AcceleratorSettings(Section):
    """Accelerators of a cluster. On one machine they are found by themselves."""

    flavors: dict[Annotated[str, Field(pattern=FLAVOR_NAME)], FlavorSettings] = Field(
        default_factory=dict, description="Kinds a user may choose, by name; NONE is always there."
    )
    max_per_user: int | None = Field(None, ge=1, description="Most accelerators one user has at once.")
    max_per_team: int | None = Field(None, ge=1, description="Most accelerators one group has at once.")

    @model_validator(mode="after")
    def _none_is_ours(self) -> AcceleratorSettings:
        if "NONE" in self.flavors:
            raise ValueError("NONE is the name of a runtime without an accelerator")
        return self
