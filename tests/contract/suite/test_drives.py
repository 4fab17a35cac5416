"""A drive in a runtime: after consent it is there, in a running kernel too; no end of the runtime touches a file of it."""

from __future__ import annotations

import asyncio
import signal

import pytest

from spawner.model import MountPoint
from spawner.ports import BackendError
from support.patience import PATIENCE
from tests.contract.suite.harness import STOPPED, Bench, Drive, watching

TARGET = "/content/drive"
LOOK = (
    "import os; print(sorted(os.listdir('drive/MyDrive')) if os.path.exists('drive/MyDrive') else 'absent')"
)
WRITE = "try:\n    _ = open('drive/MyDrive/x', 'w')\n    print('written')\nexcept OSError as error:\n    print(error.strerror)"


async def test_a_drive_comes_into_a_running_kernel_is_the_same_folder_on_both_sides_and_goes(
    bench: Bench, drive: Drive
) -> None:
    runtime = await bench.start()
    assert await runtime.run(LOOK) == "absent\n"
    for turn in range(2):
        await bench.backend.mount(runtime.id, source=drive.source, target=TARGET, readonly=False)
        assert await bench.backend.mounts(runtime.id) == [MountPoint(TARGET, False)]
        read = "print(open('drive/MyDrive/notes.txt').read(), open('drive/My Drive/notes.txt').read())"
        assert await runtime.run(read) == "of ada of ada\n"
        await runtime.run(f"_ = open('drive/MyDrive/made inside', 'w').write('{turn}')")
        made = drive.folder / "made inside"
        assert made.read_text() == f"{turn}"
        assert made.stat().st_uid == drive.folder.stat().st_uid
        await bench.backend.unmount(runtime.id, target=TARGET)
        assert await bench.backend.mounts(runtime.id) == []
        assert await runtime.run(LOOK) == "absent\n"
    assert (drive.folder / "notes.txt").read_text() == "of ada"


async def test_a_read_only_drive_can_not_be_written_until_it_is_mounted_anew(
    bench: Bench, drive: Drive
) -> None:
    if not bench.apart:
        pytest.skip("without isolation nothing is read-only, and the isolation report says so")
    runtime = await bench.start()
    await bench.backend.mount(runtime.id, source=drive.source, target=TARGET, readonly=True)
    assert await bench.backend.mounts(runtime.id) == [MountPoint(TARGET, True)]
    assert await runtime.run(WRITE) == "Read-only file system\n"
    await bench.backend.mount(runtime.id, source=drive.source, target=TARGET, readonly=False)
    assert await runtime.run(WRITE) == "written\n"


async def test_bad_places_and_drives_are_refused_and_nothing_is_mounted(bench: Bench, drive: Drive) -> None:
    runtime = await bench.start()
    await runtime.run("import os; os.symlink('/etc', 'evil'); os.makedirs('kept/MyDrive/mine')")

    async def refusal(source: str, target: str) -> str:
        with pytest.raises(BackendError) as refused:
            await bench.backend.mount(runtime.id, source=source, target=target, readonly=False)
        return refused.value.code

    assert await refusal(drive.missing, TARGET) == "no_such_drive"
    for target in (
        "/content",
        "/",
        "/etc",
        "/content/../etc",
        "content/drive",
        "/content/drive/../x",
        "/content/a\0b",
        "/content/" + "x" * 300,
        "/content/evil",
    ):
        assert await refusal(drive.source, target) == "bad_mountpoint", target
    for target in ("/content/sample_data", "/content/kept"):
        assert await refusal(drive.source, target) == "mountpoint_not_empty", target
    assert await bench.backend.mounts(runtime.id) == []
    await bench.backend.mount(runtime.id, source=drive.source, target=TARGET, readonly=False)
    assert await refusal(drive.source, f"{TARGET}/MyDrive/below") == "bad_mountpoint"
    assert not (drive.folder / "below").exists()
    with pytest.raises(BackendError) as refused:
        await bench.backend.unmount(runtime.id, target="/content/elsewhere")
    assert refused.value.code == "not_mounted"


@pytest.mark.parametrize("end", ["stop", "kill the supervisor"])
async def test_no_end_of_a_runtime_touches_the_drive(bench: Bench, drive: Drive, end: str) -> None:
    """D8, also while something inside holds files of the drive open."""
    runtime = await bench.start()
    await bench.backend.mount(runtime.id, source=drive.source, target=TARGET, readonly=False)
    await runtime.run(
        "import os, subprocess\nos.chdir('drive/MyDrive'); os.makedirs('deep/er', exist_ok=True)\n"
        "_ = open('deep/er/file', 'w').write('x')\nsubprocess.Popen(['sleep', '600'], start_new_session=True)"
    )
    watcher = await watching(bench, runtime)
    if end == "stop":
        await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1)
    else:
        bench.signal_supervisor(runtime.id, signal.SIGKILL)
    await asyncio.wait_for(watcher, PATIENCE)
    assert not bench.lives(runtime.id)
    assert (drive.folder / "notes.txt").read_text() == "of ada"
    assert (drive.folder / "deep/er/file").read_text() == "x"
    assert bench.leftovers() == []


async def test_a_stop_lets_programs_finish_within_the_grace(bench: Bench, drive: Drive) -> None:
    runtime = await bench.start()
    await bench.backend.mount(runtime.id, source=drive.source, target=TARGET, readonly=False)
    place = "import atexit, os\npath = os.path.abspath('drive/MyDrive/farewell')\n"
    await runtime.run(place + "atexit.register(lambda: open(path, 'w').write('bye'))")
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=10)
    assert (drive.folder / "farewell").read_text() == "bye"
