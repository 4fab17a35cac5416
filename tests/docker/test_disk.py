"""How much of the machine's disk a runtime can take: /content, and what containers write beside it."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spawner.ports import BackendError
from support.docker_engine import Engine
from support.patience import until_async
from tests.docker.docker_support import STOPPED, Bench, make_bench

pytestmark = pytest.mark.docker
MOST = 96 << 20
FILL = """
import errno, os
def fill(path):
    block, written = b"x" * (1 << 20), 0
    with open(path, "wb", buffering=0) as file:
        try:
            while written < 1 << 30:
                written += file.write(block)
            return written, "no end"
        except OSError as error:
            return written, errno.errorcode[error.errno]
"""


@pytest.fixture(params=[True, False], ids=["root", "user"])
async def limited(request: pytest.FixtureRequest, tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, engine, root=request.param, disk_bytes=MOST) as bench:
        yield bench


@pytest.fixture
async def small(tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, engine, disk_bytes=MOST) as bench:
        yield bench


async def test_who_fills_content_gets_no_space_left_and_goes_on_working(limited: Bench) -> None:
    runtime, other = await asyncio.gather(limited.start(), limited.start("bob"))
    told = await runtime.run(FILL + "n, why = fill('big')\nprint(why, 60 << 20 < n < 96 << 20)")
    assert told == "ENOSPC True\n"
    disk = limited.folder / runtime.id / "content.disk"
    assert disk.stat().st_size == MOST
    assert disk.stat().st_blocks * 512 <= MOST
    resources = await limited.backend.resources(runtime.id)
    assert resources.disk_used > 60 << 20
    assert resources.disk_free < 1 << 20
    assert await other.run("open('mine', 'wb').write(b'x' * (10 << 20)); print(6 * 7)") == "42\n"
    assert await runtime.run("import os; os.unlink('big'); print(os.listdir())") == "['sample_data']\n"
    # What was removed inside is the machine's again.
    await runtime.run("import os; os.sync()")
    await until_async(lambda: disk.stat().st_blocks * 512 < 30 << 20)
    assert await runtime.run("print(open('again', 'w').write('x' * 1000000))") == "1000000\n"


async def test_content_of_a_disk_is_kept_for_who_wants_it_and_put_into_a_later_runtime(
    limited: Bench,
) -> None:
    runtime, empty, large = await asyncio.gather(*(limited.start(snapshot_bytes=1 << 20) for _ in range(3)))
    await runtime.run("import os; os.makedirs('a/b'); open('a/b/c.txt', 'w').write('mine')")
    await large.run("open('large', 'wb').write(b'x' * (2 << 20))")
    for each in (runtime, empty, large):
        await limited.backend.stop(each.id, reason=STOPPED, grace_seconds=1.0)
    notes = [await limited.backend.left_behind(each.id) for each in (empty, large)]
    assert [note.snapshot for note in notes if note] == [None, None]
    assert [note.snapshot_note for note in notes if note] == [
        "/content was empty",
        "/content holds more than the 1 MiB that are kept",
    ]
    # Hub and control may ask at the same time.
    left, same = await asyncio.gather(*(limited.backend.left_behind(runtime.id) for _ in range(2)))
    assert left is not None and same is not None and left.snapshot is not None
    with tarfile.open(left.snapshot) as tar:
        assert tar.getnames() == ["a/b/c.txt"]
    later = await limited.start()
    assert await limited.backend.restore(later.id, snapshot=left.snapshot) == 1
    told = await later.run("print(open('a/b/c.txt').read()); _ = open('a/b/c.txt', 'a').write('!')")
    assert told == "mine\n"
    for each in (runtime, empty, large):
        await limited.backend.forget(each.id)
    assert [path for path in (limited.folder / ".ended").iterdir() if path.name.startswith("r-")] == []


async def test_what_nobody_asked_for_is_forgotten_with_its_disk(small: Bench) -> None:
    runtime = await small.start(snapshot_bytes=1 << 20)
    await small.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
    assert len(list((small.folder / ".ended").glob(f"{runtime.id}.*.disk"))) == 1
    await small.backend.forget(runtime.id)
    assert list((small.folder / ".ended").glob(f"{runtime.id}*")) == []


async def test_a_container_that_is_started_again_does_not_get_the_disk_of_another(small: Bench) -> None:
    runtime = await small.start()
    small.engine.docker("kill", runtime.container)
    await until_async(lambda: small.loops() == [])
    await small.start("bob")  # has the device now
    again = small.engine.docker("start", runtime.container, check=False)
    assert again.returncode != 0
    assert "content.device" in again.stderr


async def test_a_disk_outlives_its_engine(small: Bench) -> None:
    runtime = await small.start()
    await runtime.run("open('kept', 'w').write('x')")
    await asyncio.to_thread(small.engine.restart)
    assert await runtime.run("print(open('kept').read())") == "x\n"
    await small.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
    await until_async(lambda: small.loops() == [])
    assert small.folders() == []
    await asyncio.to_thread(small.engine.restart)  # until then it counts the volume as in use
    assert await small.backend.list_all() == []
    assert small.volumes() == []


async def test_the_volume_of_a_container_that_a_stranger_removed_is_put_away(small: Bench) -> None:
    runtime, removed = await asyncio.gather(small.start(), small.start())
    small.engine.docker("rm", "-f", removed.container)
    assert len(small.volumes()) == 2
    assert [o.id for o in await small.backend.list_all()] == [runtime.id]
    assert len(small.volumes()) == 1
    assert await runtime.run("print('here')") == "here\n"


async def test_a_disk_that_can_not_be_made_says_why_and_leaves_nothing(
    small: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("spawner.docker.disk.SYSTEM_PROGRAMS", str(tmp_path))
    with pytest.raises(BackendError, match="e2fsprogs") as refused:
        await small.start()
    assert refused.value.code == "start_failed"
    monkeypatch.undo()
    assert small.leftovers() == []


async def test_who_takes_too_much_beside_content_is_ended_where_the_storage_has_no_quotas(
    small: Bench,
) -> None:
    kind = small.engine.docker("info", "--format", "{{.Driver}} {{.DriverStatus}}").stdout
    if "overlay2" not in kind or "xfs" in kind:
        pytest.skip("the storage of this engine has quotas")
    assert any("measured only" in phrase for phrase in small.backend.isolation().does_not)
    runtime, other = await asyncio.gather(small.start(), small.start("bob"))
    ends = [asyncio.create_task(small.backend.wait_end(r.id)) for r in (runtime, other)]
    writing = asyncio.create_task(runtime.run("open('/root/big', 'wb').write(b'x' * (120 << 20))"))
    reason = await ends[0]
    assert (reason.code, "beside /content" in reason.message) == ("disk_full", True)
    await asyncio.gather(writing, return_exceptions=True)
    assert await other.run("print('here')") == "here\n"
    assert not ends[1].done()
    await small.backend.stop(other.id, reason=STOPPED, grace_seconds=0)
    assert await ends[1] == STOPPED


async def test_without_a_limit_it_is_said_that_the_disk_is_everybodys(bench: Bench) -> None:
    assert "disk space" in bench.backend.isolation().does_not
    runtime = await bench.start()
    free = os.statvfs(bench.folder)
    told = await runtime.run("import shutil; print(shutil.disk_usage('/content').total)")
    assert int(told) == free.f_blocks * free.f_frsize
