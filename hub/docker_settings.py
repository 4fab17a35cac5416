"""The section of the settings that is about containers of a Docker engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hub.setting_types import Section, Size


class DockerSettings(Section):
    """Runtimes as containers of the Docker engine on this machine."""

    url: str | None = Field(
        None,
        description="Address of the engine, such as unix:///run/docker.sock; None means DOCKER_HOST or the local one.",
    )
    image: str | None = Field(
        None,
        description="Image of runtimes; None means that of `environment`, as `minicolab images build` names it.",
    )
    pull: bool = Field(True, description="Whether an image that is not on this machine is pulled.")
    mode: Literal["root", "user"] = Field(
        "root",
        description="root: code inside is root of its container, so that apt-get works; user: it is uid 1000, without any capability.",
    )
    network: str | None = Field(
        None,
        description="Network of the engine for runtimes, made when it is missing; None: one of this installation.",
    )
    disk: Size | None = Field(
        None,
        ge=16 << 20,
        description="Most bytes in /content, and as many again beside it; None means that a runtime may fill the machine's disk.",
    )
    control_url: str | None = Field(
        None,
        description="Where code inside reaches control; None: the machine's own name in containers, host.docker.internal.",
    )
