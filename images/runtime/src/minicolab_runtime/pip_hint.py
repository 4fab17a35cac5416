"""After `pip install`: which packages changed that this session had imported already, so that it must be restarted."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions

_PIP_INSTALL = re.compile(r"(?:^|[;&|]\s*|\s)(?:uv\s+)?pip[0-9.]*\s+(?:\S+\s+)*?(?:install|uninstall)\b")


def is_install(command: str) -> bool:
    """Return whether a shell command installs or removes packages with pip."""
    return _PIP_INSTALL.search(command) is not None


def installed() -> dict[str, str]:
    """Return name → version of everything installed."""
    found: dict[str, str] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name and name not in found:  # the first on the path is the one that is imported
            found[name] = distribution.version
    return found


def stale_imports(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the imported top-level modules of distributions whose version changed between the two, sorted."""
    changed = {name for name in before if after.get(name) != before[name]}
    if not changed:
        return []
    modules: set[str] = set()
    for distribution in distributions():
        if distribution.metadata["Name"] not in changed:
            continue
        for file in distribution.files or ():
            top = file.parts[0]
            name = top[:-3] if top.endswith(".py") else top
            if name.isidentifier() and name in sys.modules:
                modules.add(name)
    return sorted(modules)
