"""Where a runtime environment lives, and how far its installation has come.

`<root>/<name>-<key>/env` holds the pins, `complete` marks it whole, `progress.json` tells how an installation goes.
`<root>/<name>-<key>/code/<hash>` holds minicolab-runtime of one state of its sources: what changes with every checkout lies in a
layer of its own, so that the big one is never touched while runtimes use it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from spawner.catalogue import CatalogueEntry


@dataclass(frozen=True)
class Progress:
    """How an installation goes. `state`: missing, installing, complete, failed. `fraction` from 0 to 1."""

    state: str
    message: str
    fraction: float
    seconds_left: float | None


class RuntimeEnvironment:
    """One environment in the cache folder."""

    def __init__(self, root: Path, entry: CatalogueEntry, code_hash: str) -> None:
        self.entry = entry
        self.folder = root / f"{entry.name}-{entry.key}"
        self.env = self.folder / "env"
        self.code = self.folder / "code" / code_hash

    @property
    def python(self) -> Path:
        return self.env / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where the pins lie, relative to the environment (and minicolab-runtime, relative to its layer)."""
        return Path("lib") / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    def has_pins(self) -> bool:
        return (self.folder / "complete").exists()

    def is_complete(self) -> bool:
        return self.has_pins() and self.code.is_dir()

    def mark_pins_complete(self) -> None:
        (self.folder / "complete").touch()
        (self.folder / "progress.json").unlink(missing_ok=True)

    def write_progress(self, progress: Progress) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("progress.json", asdict(progress))

    def status(self) -> Progress:
        """Return how far this environment is."""
        if self.is_complete():
            return Progress("complete", f"{self.entry.title}: installed", 1.0, 0.0)
        try:
            data = json.loads((self.folder / "progress.json").read_text("utf-8"))
            return Progress(data["state"], data["message"], float(data["fraction"]), data["seconds_left"])
        except (OSError, ValueError, KeyError, TypeError):
            return Progress(
                "missing", f"{self.entry.title}: not installed yet", 0.0, self.entry.install_seconds
            )

    def _write(self, name: str, value: object) -> None:
        draft = self.folder / f".{name}.{os.getpid()}"
        draft.write_text(json.dumps(value), "utf-8")
        draft.replace(self.folder / name)
