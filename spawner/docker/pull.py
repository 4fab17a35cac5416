"""How far the pull of an image has come. Pure: the engine's messages in, a sentence out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PullMeter:
    """Sums the layers of one pull. Layers that are announced late make it look less far than it was; it never says so."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._have: dict[str, float] = {}
        self._whole: dict[str, float] = {}
        self._shown = 0

    def hear(self, message: Mapping[str, Any]) -> str | None:
        """Return the new sentence when this message changes it. Raise PullFailed when the engine says it failed."""
        if "error" in message:
            raise PullFailed(str(message["error"]))
        layer, status = str(message.get("id", "")), str(message.get("status", ""))
        detail = message.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._whole[layer], self._have[layer] = float(detail["total"]), float(detail.get("current", 0))
        elif status in ("Download complete", "Pull complete") and layer in self._whole:
            self._have[layer] = self._whole[layer]
        else:
            return None
        share = int(100 * sum(self._have.values()) / sum(self._whole.values()))
        if share <= self._shown:
            return None
        self._shown = share
        return f"Pulling the image {self._image} ({share} %)"


class PullFailed(Exception):
    """The engine could not pull the image."""
