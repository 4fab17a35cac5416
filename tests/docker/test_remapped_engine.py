"""An engine that maps root of a container to a user without rights of the machine, on storage with quotas, and without GPUs."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from spawner.model import MountPoint
from spawner.ports import BackendError
from support import docker_engine
from support.docker_engine import REMAPPED, Engine
from tests.docker.docker_support import STOPPED, Bench, installs_a_package, make_bench
from tests.docker.test_disk import FILL

pytestmark = pytest.mark.docker
MOST = 96 << 20


@pytest.fixture(scope="module")
def remapped(engine: Engine) -> Iterator[Engine]:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("an engine on storage with quotas needs: apt-get install btrfs-progs")
    with docker_engine.engine(REMAPPED) as other:
        docker_engine.load_image(other, "minimal", engine)
        docker_engine.settle_quotas(other)
        yield other


@pytest.fixture(params=[(True, MOST), (False, MOST), (True, None)], ids=["root", "user", "no limit"])
async def shifted(request: pytest.FixtureRequest, tmp_path: Path, remapped: Engine) -> AsyncIterator[Bench]:
    root, most = request.param
    async with make_bench(tmp_path, remapped, root=root, disk_bytes=most) as bench:
        yield bench


async def test_a_runtime_works_and_its_drive_is_the_machines_owners(shifted: Bench, tmp_path: Path) -> None:
    runtime = await shifted.start()
    told = await runtime.run(
        "import os\n"
        "maps = open('/proc/self/uid_map').read().split()\n"
        "open('mine.txt', 'w').write('x')\n"
        "print(maps[1] != '0', os.stat('mine.txt').st_uid == os.getuid())"
    )
    assert told == "True True\n"
    drive = tmp_path / "drive" / "d-1"
    (drive / "folder").mkdir(parents=True)
    (drive / "old.txt").write_text("from before")
    await shifted.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    assert await shifted.backend.mounts(runtime.id) == [MountPoint("/content/drive", False)]
    told = await runtime.run(
        "import os\n"
        "os.chdir('/content/drive/MyDrive')\n"
        "print(open('old.txt').read(), os.stat('old.txt').st_uid == os.getuid())\n"
        "_ = open('new.txt', 'w').write('from inside')\n"
        "os.makedirs('folder/deeper')\n"
        "os.rename('new.txt', 'folder/deeper/new.txt')\n"
    )
    assert told == "from before True\n"
    new = drive / "folder" / "deeper" / "new.txt"
    assert new.read_text() == "from inside"
    assert {new.stat().st_uid, new.parent.stat().st_uid} == {drive.stat().st_uid}
    await shifted.backend.unmount(runtime.id, target="/content/drive")
    assert await runtime.run("import os; print(os.listdir('/drives'))") == "[]\n"
    await shifted.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=True)
    told = await runtime.run("import os; print(os.access('/content/drive/MyDrive', os.W_OK))")
    assert told == "False\n"
    await shifted.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
    assert await shifted.backend.wait_end(runtime.id) == STOPPED
    assert new.read_text() == "from inside"


async def test_root_installs_packages_and_is_nobody_on_the_machine(tmp_path: Path, remapped: Engine) -> None:
    async with make_bench(tmp_path, remapped, disk_bytes=1 << 30) as bench:
        await installs_a_package(await bench.start())


async def test_content_is_kept_and_restored_with_the_right_owner(shifted: Bench) -> None:
    runtime = await shifted.start(snapshot_bytes=1 << 20)
    await runtime.run("open('a.txt', 'w').write('mine')")
    await shifted.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
    left = await shifted.backend.left_behind(runtime.id)
    assert left is not None and left.snapshot is not None
    later = await shifted.start()
    assert await shifted.backend.restore(later.id, snapshot=left.snapshot) == 1
    told = await later.run("import os; print(open('a.txt').read(), os.stat('a.txt').st_uid == os.getuid())")
    assert told == "mine True\n"
    await shifted.backend.forget(runtime.id)


async def test_where_storage_has_quotas_who_writes_beside_content_gets_no_more(
    tmp_path: Path, remapped: Engine
) -> None:
    async with make_bench(tmp_path, remapped, disk_bytes=MOST) as bench:
        assert "space beside /content is limited" in bench.backend.isolation().isolates
        runtime = await bench.start()
        told = await runtime.run(
            FILL + "n, why = fill('/root/big')\n"
            "print(why, 16 << 20 < n < 200 << 20, open('/content/x', 'w').write('still'))"
        )
        assert told in ("EDQUOT True 5\n", "ENOSPC True 5\n")


async def test_an_engine_without_gpus_says_so(tmp_path: Path, remapped: Engine) -> None:
    async with make_bench(tmp_path, remapped, disk_bytes=MOST) as bench:
        with pytest.raises(BackendError, match="NVIDIA Container Toolkit is not installed") as refused:
            await bench.start(devices=("/dev/nvidia0",))
        assert refused.value.code == "no_capacity"
        assert bench.leftovers() == []
