"""/content of a container that takes its files with it: handed over at its end to who keeps it, and given to a later one."""

from __future__ import annotations

import asyncio
import base64
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spawner.container import link
from spawner.container.taking import NOT_WHOLE
from spawner.environment import RuntimeEnvironment
from spawner.model import EndReason, RuntimeSpec
from spawner.ports import BackendError
from support.patience import PATIENCE, until_async
from support.runtimes import a_spec
from tests.contract.bubblewrap_support import BubblewrapBackend, run
from tests.contract.suite.harness import STOPPED

KEPT_BYTES = 64 << 20


@pytest.fixture
async def handing(tmp_path: Path, env: RuntimeEnvironment) -> AsyncIterator[BubblewrapBackend]:
    backend = BubblewrapBackend(tmp_path, env, hand_over_seconds=2 * PATIENCE, most_content=KEPT_BYTES)
    yield backend
    for name in list(backend.containers):
        await backend._remove(name)


async def start(backend: BubblewrapBackend, **changes: object) -> RuntimeSpec:
    spec = a_spec(**{"snapshot_bytes": KEPT_BYTES, **changes})
    await backend.start(spec, lambda phase, sentence="": None)
    return spec


async def names(backend: BubblewrapBackend, runtime_id: str) -> list[str]:
    """Return what is kept of a runtime's files."""
    left = await backend.left_behind(runtime_id)
    assert left is not None
    assert left.snapshot is not None, left.snapshot_note
    with tarfile.open(left.snapshot) as tar:
        return sorted(tar.getnames())


def drafts(backend: BubblewrapBackend, folder: Path) -> list[str]:
    return [path.name for path in (folder / ".ended").glob(".*")]


async def test_who_ends_a_runtime_keeps_its_files_and_gives_them_to_the_next(
    handing: BubblewrapBackend, tmp_path: Path
) -> None:
    first = await start(handing)
    await run(
        handing,
        first,
        "import os; os.makedirs('deep/er'); open('deep/er/a.bin', 'wb').write(os.urandom(3_000_000))\n"
        "open('run.sh', 'w').write('#'); os.chmod('run.sh', 0o755); os.symlink('/etc/passwd', 'link'); os.mkfifo('pipe')",
    )
    await handing.stop(first.id, reason=STOPPED, grace_seconds=PATIENCE)
    assert await names(handing, first.id) == ["deep/er/a.bin", "run.sh"]
    assert drafts(handing, tmp_path) == []
    left = await handing.left_behind(first.id)
    assert left is not None and left.snapshot is not None

    second = await start(handing)
    await run(handing, second, "open('run.sh', 'w').write('mine')")
    assert await handing.restore(second.id, snapshot=left.snapshot) == 1
    look = "import os; print(os.path.getsize('deep/er/a.bin'), open('run.sh').read())"
    assert await run(handing, second, look) == "3000000 mine\n"


async def test_who_follows_a_runtime_keeps_its_files_though_another_ends_it(
    handing: BubblewrapBackend, tmp_path: Path, env: RuntimeEnvironment
) -> None:
    """As control and the hub do: what the hub would keep, nobody would find."""
    other = BubblewrapBackend(tmp_path / "other", env, most_content=KEPT_BYTES)
    other.containers = handing.containers
    runtime = await start(handing)
    await run(handing, runtime, "open('a.txt', 'w').close()")
    follower = asyncio.create_task(handing.wait_end(runtime.id))
    for _ in range(2):
        assert await handing.observe(runtime.id) is not None
    await other.stop(runtime.id, reason=STOPPED, grace_seconds=PATIENCE)
    assert await follower == STOPPED
    assert await names(handing, runtime.id) == ["a.txt"]
    left = await other.left_behind(runtime.id)
    assert left is None or left.snapshot is None


async def test_files_that_come_with_a_limits_end_wait_for_who_was_away(handing: BubblewrapBackend) -> None:
    runtime = await start(handing, max_lifetime_seconds=2.0)
    await run(handing, runtime, "open('a.txt', 'w').close()")
    log = handing.containers[runtime.id].folder / "log"
    await until_async(lambda: '"max_lifetime"' in log.read_text())
    assert (await handing.wait_end(runtime.id)).code == "max_lifetime"
    assert await names(handing, runtime.id) == ["a.txt"]


async def noted(backend: BubblewrapBackend, runtime_id: str) -> str:
    """Return why a runtime's files are not kept."""
    left = await backend.left_behind(runtime_id)
    assert left is not None
    assert left.snapshot is None
    return left.snapshot_note


async def test_files_that_are_too_many_are_not_sent_and_that_is_said(handing: BubblewrapBackend) -> None:
    runtime = await start(handing)
    await handing.set_snapshot(runtime.id, snapshot_bytes=4096)
    await run(handing, runtime, "open('big', 'wb').write(bytes(10_000))")
    await handing.stop(runtime.id, reason=STOPPED, grace_seconds=PATIENCE)
    assert await noted(handing, runtime.id) == "/content holds more than the 4 KiB that are kept"


async def test_a_machine_that_sends_more_than_it_may_is_not_believed(
    handing: BubblewrapBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spawner.container.taking.ROOM_BYTES", 0)
    runtime = await start(handing)
    handing.most_content = 1 << 20
    await run(handing, runtime, "import os; _ = open('big', 'wb').write(os.urandom(8 << 20))")
    await handing.stop(runtime.id, reason=STOPPED, grace_seconds=PATIENCE)
    assert await noted(handing, runtime.id) == "/content came with more than may be kept"
    assert drafts(handing, tmp_path) == []


async def test_a_machine_that_dies_while_it_sends_leaves_no_half_archive(
    handing: BubblewrapBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await start(handing)
    await run(handing, runtime, "import os; _ = open('big', 'wb').write(os.urandom(8 << 20))")
    reached = asyncio.Event()
    content = link.Taking.content

    async def then_it_dies(taking: link.Taking, event: dict[str, object]) -> bool:
        if not reached.is_set():
            reached.set()
            handing.containers[runtime.id].process.kill()
        return await content(taking, event)

    monkeypatch.setattr(link.Taking, "content", then_it_dies)
    await handing.stop(runtime.id, reason=EndReason("user_deleted", ""), grace_seconds=PATIENCE)
    assert reached.is_set()
    assert await noted(handing, runtime.id) == NOT_WHOLE
    assert drafts(handing, tmp_path) == []


async def test_a_snapshot_that_is_none_or_comes_in_part_is_refused(
    handing: BubblewrapBackend, tmp_path: Path
) -> None:
    runtime = await start(handing)
    nonsense = tmp_path / "nonsense"
    for content in (b"nonsense", b"", b"\x1f\x8b\x08" + bytes(600_000)):
        nonsense.write_bytes(content)
        with pytest.raises(BackendError) as refused:
            await handing.restore(runtime.id, snapshot=nonsense)
        assert refused.value.code == "bad_snapshot"
    address = link.Address(
        "127.0.0.1", handing.containers[runtime.id].supervisor_port, handing._supervisor_key(runtime.id)
    )
    _, writer = await link.connect(address)
    part = base64.b64encode(b"\x1f\x8b\x08").decode()
    writer.write(b'{"op": "restore"}\n' + json.dumps({"part": part, "last": False}).encode() + b"\n")
    await writer.drain()
    writer.close()
    assert await run(handing, runtime, "import os; print(sorted(os.listdir()))") == "['sample_data']\n"
