"""What is known of the full runtime image: a run of the examples in it that passed is kept in the cache folder and not repeated.

The key is everything the result depends on: the pins and what they bring, the Dockerfile, minicolab-runtime, the examples and what is
demanded of them. The image itself stays as layers of the tests' own engine: an archive beside them would be another eight gigabytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from hub.settings import cache_folder
from hub.setup import images
from hub.setup.runtime_environment import source_hash
from support import examples

NAME = "default"
AGAIN = "MINICOLAB_FULL_IMAGE_AGAIN"
ROOM_BYTES = 12 << 30  # the image, and what its builder needs besides


def key() -> str:
    """Return the hash of what decides how the examples run in the image."""
    image = images.image_called(NAME)
    assert image.entry is not None
    digest = hashlib.sha256(f"{images.pins_of(image.entry)} {source_hash()}".encode())
    recipe = images.IMAGES / "runtime" / "Dockerfile"
    for path in (recipe, *sorted(examples.EXAMPLES.glob("*.ipynb")), Path(examples.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def passed() -> dict[str, Any] | None:
    """Return what was measured when the examples passed last in this very image, None when they did not yet."""
    try:
        found: dict[str, Any] = json.loads(_record().read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return None if os.environ.get(AGAIN) else found


def keep(measured: dict[str, Any]) -> None:
    """Remember that they all passed."""
    record = _record()
    record.parent.mkdir(parents=True, exist_ok=True)
    for old in record.parent.glob("*.json"):
        old.unlink()
    record.write_text(json.dumps(measured, indent=1), "utf-8")


def no_room() -> str | None:
    """Return why the image can not be built on this disk, None when it can."""
    free = shutil.disk_usage(cache_folder()).free
    if free < ROOM_BYTES:
        return f"the full runtime image needs {ROOM_BYTES >> 30} GiB of disk, {free >> 30} are free"
    return None


def _record() -> Path:
    return cache_folder() / "full-image" / f"{key()}.json"
