"""What every runtime image must be, looked at in a container of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hub.setup.images import Image, constraints_of, labels
from support.docker_engine import Engine

REVISION = "org.opencontainers.image.revision"  # of the tree when it was built, which may have gone on since
# Printed by the image's own interpreter: modules without their compiled form (a package's tests may lack it, and files for
# another Python can not have it), and the bill of materials as it is now.
LOOK = """
import compileall, importlib.util, json, pathlib, re, subprocess, sys, sysconfig
bare = []
for top in (sysconfig.get_path("purelib"), "/opt/minicolab/supervisor"):
    for path in pathlib.Path(top).rglob("*.py"):
        if not re.search("/tests?/|_internal/py312", str(path)) and not pathlib.Path(importlib.util.cache_from_source(path)).exists():
            bare.append(str(path))
uncompilable = [p for p in bare if subprocess.run([sys.executable, "-c", "compile(open(%r, 'rb').read(), 'x', 'exec')" % p],
    capture_output=True).returncode != 0]
now = subprocess.run([sys.executable, "/opt/minicolab/sbom.py"], capture_output=True, text=True, check=True).stdout
print(json.dumps({
    "bare": sorted(set(bare) - set(uncompilable)),
    "written": json.load(open("/usr/share/sbom/image.cdx.json")),
    "now": json.loads(now),
    "id": subprocess.run(["id"], capture_output=True, text=True).stdout,
    "capabilities": next(l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")),
}))
"""


def look_into(engine: Engine, tag: str) -> dict[str, Any]:
    """Return what a container of the image finds in itself, run as the image says."""
    command = ("run", "--rm", "--network", "none", "--entrypoint", "/opt/venv/bin/python", tag, "-c", LOOK)
    found: dict[str, Any] = json.loads(engine.docker(*command).stdout)
    return found


def components(bill: dict[str, Any], kind: str) -> dict[str, str]:
    """Return the names and versions a bill of materials lists, of `pypi` or `deb`."""
    wanted = f"pkg:{kind}/"
    return {c["name"]: c["version"] for c in bill["components"] if c["purl"].startswith(wanted)}


def check_runtime_image(engine: Engine, image: Image, tag: str | None = None) -> dict[str, Any]:
    """Assert that a built image is what its recipe promises; return what was found in it."""
    assert image.entry is not None
    config = json.loads(engine.docker("image", "inspect", tag or image.tag).stdout)[0]["Config"]
    wanted = {name: value for name, value in labels(image).items() if name != REVISION}
    assert wanted.items() <= config["Labels"].items()
    assert re.fullmatch("[0-9a-f]{40}|", config["Labels"].get(REVISION, ""))
    assert config["User"] == "1000:1000"
    found = look_into(engine, tag or image.tag)
    assert "uid=1000(runtime) gid=1000(runtime)" in found["id"]
    assert found["capabilities"].strip("0") == ""
    assert found["bare"] == [], "these modules are compiled at every start"
    assert found["written"] == found["now"], "the bill of materials is not that of the image"
    _check_versions(found["written"], constraints_of(image.entry))
    return found


def _check_versions(bill: dict[str, Any], constraints: Path) -> None:
    wanted = dict(line.split("==") for line in constraints.read_text().splitlines())
    listed = {_plain(name): version for name, version in components(bill, "pypi").items()}
    assert listed.pop("minicolab-runtime")
    assert listed == wanted


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
