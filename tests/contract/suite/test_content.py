"""/content of an ended runtime, kept for who wants it: where it lay, or handed over by a machine that takes its files with it."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from spawner.ports import BackendError
from tests.contract.suite.harness import STOPPED, Bench


async def test_content_is_kept_for_who_wants_it_and_put_into_a_later_runtime(bench: Bench) -> None:
    runtime, unwanted = await asyncio.gather(bench.start(snapshot_bytes=1 << 20), bench.start())
    await runtime.run(
        "import os; os.makedirs('data/deep'); open('data/deep/a.txt', 'w').write('kept')\n"
        "open('run.sh', 'w').write('#'); os.chmod('run.sh', 0o755); os.symlink('/etc/shadow', 'link'); os.mkfifo('pipe')"
    )
    for ended in (runtime, unwanted):
        await bench.backend.stop(ended.id, reason=STOPPED, grace_seconds=3.0)
    nothing = await bench.backend.left_behind(unwanted.id)  # but its reason
    assert nothing is not None
    assert (nothing.snapshot, nothing.snapshot_note, nothing.executions) == (None, "", ())
    left = await bench.backend.left_behind(runtime.id)
    assert left is not None
    assert left.snapshot is not None
    with tarfile.open(left.snapshot) as tar:
        assert sorted(tar.getnames()) == ["data/deep/a.txt", "run.sh"]
    following = await bench.start()
    await following.run("open('run.sh', 'w').write('mine')")
    assert await bench.backend.restore(following.id, snapshot=left.snapshot) == 1
    read = "print(open('data/deep/a.txt').read(), open('run.sh').read()); _ = open('data/deep/a.txt', 'a').write('!')"
    assert await following.run(read) == "kept mine\n"
    await bench.backend.forget(runtime.id)
    assert await bench.backend.left_behind(runtime.id) is None


async def test_content_that_is_too_large_is_not_kept_and_that_is_said(bench: Bench) -> None:
    runtime = await bench.start()
    await bench.backend.set_snapshot(runtime.id, snapshot_bytes=4096)
    await runtime.run("open('big', 'wb').write(bytes(10_000))")
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=3.0)
    left = await bench.backend.left_behind(runtime.id)
    assert left is not None
    assert left.snapshot is None
    assert left.snapshot_note == "/content holds more than the 4 KiB that are kept"


async def test_a_snapshot_that_would_leave_content_is_held_there(bench: Bench, tmp_path: Path) -> None:
    runtime = await bench.start()
    await runtime.run("import os; os.symlink('/tmp', 'out')")
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../escaped", "/absolute", "out/through-a-link", "good"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
    assert await bench.backend.restore(runtime.id, snapshot=archive) == 2
    assert await runtime.run("import os; print(os.path.exists('/tmp/through-a-link'))") == "False\n"
    assert not list(tmp_path.rglob("escaped"))
    assert not Path("/absolute").exists()
    with pytest.raises(BackendError) as refused:
        archive.write_bytes(b"nonsense")
        await bench.backend.restore(runtime.id, snapshot=archive)
    assert refused.value.code == "bad_snapshot"
