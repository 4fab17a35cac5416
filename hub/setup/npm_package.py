"""Install one npm package, pinned, with what it needs, into the cache folder."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hub.settings import cache_folder
from hub.setup.node import Node
from hub.setup.steps import locked, publish, run, step


@dataclass(frozen=True)
class NpmPackage:
    """A package of the npm registry; `name` is also its folder's name in the cache."""

    name: str
    package: str
    version: str
    estimate_seconds: float

    @property
    def modules(self) -> Path:
        """Where the package and what it needs lie once `install` has run."""
        return cache_folder() / self.name / self.version / "node_modules"

    def install(self, node: Node) -> None:
        """Install the package when it is not there yet. Raise SetupError."""
        if (self.modules / self.package).exists():
            return
        parent = cache_folder() / self.name
        with locked(parent / ".lock"):
            if (self.modules / self.package).exists():
                return
            with step(f"Installing {self.package} {self.version}", self.estimate_seconds):
                draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=parent))
                try:
                    manifest = f'{{"name": "minicolab-{self.name}", "private": true}}\n'
                    (draft / "package.json").write_text(manifest, "utf-8")
                    install = ["install", "--no-audit", "--no-fund", "--no-save"]
                    run(
                        [*node.npm, *install, f"{self.package}@{self.version}"],
                        cwd=draft,
                        env=node.environment,
                        log=cache_folder() / "logs" / f"{self.name}.log",
                    )
                    publish(draft, self.modules.parent)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)


PROXY = NpmPackage("proxy", "configurable-http-proxy", "5.3.0", 8)
# What JupyterLab and VS Code speak to a Jupyter server with; a test uses it as a client that is not ours.
JUPYTER_CLIENT = NpmPackage("jupyter-client", "@jupyterlab/services", "7.6.4", 10)


def proxy_script() -> Path:
    """Return the proxy's entry script; it exists once PROXY is installed."""
    return PROXY.modules / PROXY.package / "bin" / "configurable-http-proxy"
