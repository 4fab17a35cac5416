"""The programs a notebook page is made of: Notebook 7, and the prebuilt plug-ins we let into it.

Only plug-ins named here are loaded, wherever they are installed: a package that happens to bring a plug-in for JupyterLab
does not get into everybody's page.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.documents.assets import inside

log = logging.getLogger(__name__)

OURS = "@minicolab/notebook"
INSTALLED = (
    "@jupyter/collaboration-extension",
    "@jupyter/docprovider-extension",
    "@jupyter-widgets/jupyterlab-manager",
    "jupyterlab_pygments",
)
# What would ask for addresses this service does not have, or tell everybody who has which file open.
DISABLED = (
    "@jupyter/collaboration-extension:rtcGlobalAwareness",
    "@jupyter/collaboration-extension:rtcPanel",
    "@jupyter/collaboration-extension:shared-link",
    "@jupyter/collaboration-extension:user-menu-bar",
    "@jupyter/collaboration-extension:userMenu",
    "@jupyter/docprovider-extension:forkManager",
    "@jupyterlab/services-extension:event-manager",
    "@jupyter/docprovider-extension:statusBarTimeline",
    "@jupyterlab/extensionmanager-extension",
    "@jupyterlab/lsp-extension",
    "@jupyterlab/celltags-extension",
    "@jupyterlab/hub-extension",
)


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the Python package {name} is not installed")
    return Path(spec.submodule_search_locations[0])


@dataclass(frozen=True)
class Extension:
    """One prebuilt plug-in: `folder` holds its package.json; `build` says what the page loads."""

    name: str
    folder: Path
    build: Mapping[str, Any]
    disables: tuple[str, ...]


@dataclass
class Programs:
    """Where the page's programs lie. `ours` is the folder of our own plug-in, which may not be built yet."""

    ours: Path
    share: Path = field(default_factory=lambda: Path(sys.prefix) / "share" / "jupyter")
    notebook: Path = field(default_factory=lambda: package_folder("notebook"))
    _read: dict[Path, tuple[float, Extension | None]] = field(default_factory=dict)

    def extensions(self) -> list[Extension]:
        """Return the plug-ins of the page; ours last, so that what it disables is disabled."""
        folders = [self.share / "labextensions" / name for name in INSTALLED]
        return [e for e in (self._extension(f) for f in [*folders, self.ours]) if e is not None]

    def _extension(self, folder: Path) -> Extension | None:
        file = folder / "package.json"
        try:
            modified = file.stat().st_mtime
        except OSError:
            return None
        known = self._read.get(folder)
        if known is None or known[0] != modified:
            known = (modified, self._read_extension(file))
            self._read[folder] = known
        return known[1]

    def _read_extension(self, file: Path) -> Extension | None:
        try:
            package = json.loads(file.read_text("utf-8"))
            lab = package["jupyterlab"]
            disables = tuple(lab.get("disabledExtensions") or ())
            return Extension(package["name"], file.parent, lab["_build"], disables)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is no prebuilt plug-in: %s", file, error)
            return None

    def page_config(self) -> dict[str, Any]:
        """Return what the page needs to know about its plug-ins."""
        extensions = self.extensions()
        disabled = list(DISABLED)
        for extension in extensions:
            disabled += [name for name in extension.disables if name not in disabled]
        return {
            "federated_extensions": [
                {
                    "name": e.name,
                    **{
                        k: e.build[k] for k in ("load", "extension", "mimeExtension", "style") if k in e.build
                    },
                }
                for e in extensions
            ],
            "disabledExtensions": disabled,
        }

    def find_extension_file(self, path: str) -> Path | None:
        """Return the file of a plug-in, `path` being `<plug-in name>/static/...`, or None."""
        for extension in self.extensions():
            prefix = extension.name + "/"
            if path.startswith(prefix + "static/"):
                return inside(extension.folder, path.removeprefix(prefix))
        return None

    def find_static(self, path: str) -> Path | None:
        """Return a file of the notebook program, or None."""
        return inside(self.notebook / "static", path)

    def find_theme(self, path: str) -> Path | None:
        """Return a file of a colour theme, or None."""
        return inside(self.share / "lab" / "themes", path)

    def schemas(self) -> dict[str, Path]:
        """Return the settings schemas of the page by plug-in id; a plug-in's own come before the program's."""
        found: dict[str, Path] = {}
        for folder in [self.share / "lab" / "schemas", *(e.folder / "schemas" for e in self.extensions())]:
            for file in sorted(folder.rglob("*.json")):
                package = file.parent.relative_to(folder).as_posix()
                found[f"{package}:{file.stem}"] = file
        return found
