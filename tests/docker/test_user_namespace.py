"""Root of a container that is nobody on the machine: an engine with `userns-remap`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hub.setup.images import image_called
from support.docker_engine import REMAPPED_ROOT, Engine
from tests.docker.docker_support import Bench, make_bench

pytestmark = pytest.mark.docker
IMAGE = image_called("minimal").tag


@pytest.fixture(scope="module")
def remapped(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine as it is with user namespaces, with the same image."""
    identity = ("image", "inspect", "--format", "{{.Id}}", IMAGE)
    wanted = engine.docker(*identity).stdout
    archive = tmp_path_factory.mktemp("image") / "minimal.tar"
    engine.docker("save", "--output", str(archive), IMAGE)
    engine.restart(remapped=True)
    try:
        if engine.docker(*identity, check=False).stdout != wanted:
            engine.docker("load", "--input", str(archive))
            engine.docker("image", "prune", "-f")
        archive.unlink()
        yield engine
    finally:
        engine.restart()


@pytest.fixture
async def shifted(tmp_path: Path, remapped: Engine) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, remapped) as bench:
        yield bench


async def test_root_installs_packages_and_is_nobody_on_the_machine(shifted: Bench, tmp_path: Path) -> None:
    drive = tmp_path / "drive" / "d-1"
    drive.mkdir(parents=True)
    runtime = await shifted.start()
    await shifted.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    told = await runtime.run(
        "import json, os, subprocess\n"
        "done = subprocess.run('apt-get update -qq && apt-get install -y -qq tree && tree --version',"
        " shell=True, capture_output=True, text=True)\n"
        "open('mine.txt', 'w').write('x')\n"
        "open('/content/drive/MyDrive/kept.txt', 'w').write('y')\n"
        "print(json.dumps({'uid': os.getuid(), 'map': open('/proc/self/uid_map').read().split(),"
        " 'code': done.returncode, 'said': done.stdout + done.stderr}))"
    )
    found = json.loads(told)
    assert found["uid"] == 0
    assert found["map"] == ["0", str(REMAPPED_ROOT), "65536"]
    assert found["code"] == 0 and "tree v" in found["said"], found["said"]
    assert (shifted.folder / runtime.id / "content" / "mine.txt").stat().st_uid == REMAPPED_ROOT
    assert (drive / "kept.txt").stat().st_uid == drive.stat().st_uid  # a drive's files are its owner's
