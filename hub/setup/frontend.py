"""Build the page's assets: the notebook extension and the Drive page.

A build is keyed by the hash of its sources and kept in the cache folder, so a second checkout of the same sources copies it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hub.settings import cache_folder
from hub.setup.node import Node
from hub.setup.steps import SetupError, locked, publish, run, step

HUB = Path(__file__).parents[1]
_SKIP = {"node_modules", "lib", "build", "dev", "dist"}


@dataclass(frozen=True)
class Asset:
    """Something `npm run build` makes: `source` folder, where the build leaves it and where it goes."""

    name: str
    source: Path
    output: Path
    estimate_seconds: float


ASSETS = (
    Asset("notebook", HUB / "frontend" / "notebook", HUB / "labextension", 100),
    Asset("drive", HUB / "frontend" / "drive", HUB / "static" / "drive", 10),
)


def build_assets(node: Node) -> None:
    """Bring every asset up to date. Raise SetupError."""
    for asset in ASSETS:
        key = source_key(asset.source)
        marker = asset.output / ".built-from"
        if marker.exists() and marker.read_text("utf-8") == key:
            continue
        kept = cache_folder() / "frontend" / f"{asset.name}-{key}"
        with locked(cache_folder() / "frontend" / f".lock-{asset.name}"):
            if not kept.exists():
                with step(f"Building the {asset.name} page", asset.estimate_seconds):
                    _build(asset, node, kept)
        _install(kept, asset.output, key)


def source_key(source: Path) -> str:
    """Return the hash of a front end's sources and pins."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and not _SKIP & set(relative.parts) and path.suffix != ".tsbuildinfo":
            digest.update(f"{relative}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def _build(asset: Asset, node: Node, kept: Path) -> None:
    """Build in a copy that has the same depth as the real tree, so that relative output paths land beside it."""
    work = Path(tempfile.mkdtemp(prefix=".draft-", dir=kept.parent))
    log = cache_folder() / "logs" / f"frontend-{asset.name}.log"
    try:
        source = work / "hub" / "frontend" / asset.source.name
        shutil.copytree(asset.source, source, ignore=shutil.ignore_patterns(*_SKIP, "*.tsbuildinfo"))
        path = f"{Path(sys.executable).parent}:{node.node.parent}:{os.environ.get('PATH', '')}"
        environment = {**node.environment, "PATH": path}
        run([*node.npm, "ci", "--no-audit", "--no-fund"], cwd=source, env=environment, log=log)
        run([*node.npm, "run", "build"], cwd=source, env=environment, log=log)
        # Its unit tests take two seconds, and here is the one place where their tools are installed.
        run([*node.npm, "test"], cwd=source, env=environment, log=log)
        output = work / "hub" / asset.output.relative_to(HUB)
        if not output.is_dir():
            raise SetupError(
                f"Building the {asset.name} page left nothing at {asset.output.name} (log: {log})"
            )
        publish(output, kept)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _install(kept: Path, output: Path, key: str) -> None:
    draft = output.with_name(f".{output.name}.draft-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(kept, draft)
    (draft / ".built-from").write_text(key, "utf-8")
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(output)
