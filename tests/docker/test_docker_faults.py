"""What goes wrong around containers: registries, the engine, strangers, disks. Every end and refusal has a true reason."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawner.model import Phase, RuntimeSpec
from spawner.ports import BackendError
from support.docker_engine import Engine
from support.patience import until_async
from tests.docker.docker_support import STOPPED, Bench
from tests.docker.registry import registry

pytestmark = pytest.mark.docker


def deaf(phase: Phase, sentence: str = "") -> None:
    """Hear of a start's phases."""


@contextlib.contextmanager
def silent(engine: Engine) -> Iterator[None]:
    """Let the engine's process stand still: it takes requests and answers none."""
    os.kill(engine.daemon, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine.daemon, signal.SIGCONT)


async def test_a_registry_that_wants_a_password_is_named_with_its_refusal(bench: Bench) -> None:
    with registry(bench.engine.machine_address) as served:
        served.locked.set()
        with pytest.raises(
            BackendError, match=r"can not be had: .*(credentials|denied|unauthorized)"
        ) as refused:
            await bench.another(pull=True, image=served.image).start(bench.spec(), deaf)
    assert refused.value.code == "image_unavailable"
    assert served.image in str(refused.value)
    assert bench.leftovers() == []


async def test_a_registry_that_goes_away_in_the_middle_is_told_and_can_be_tried_again(bench: Bench) -> None:
    with registry(bench.engine.machine_address) as served:
        backend = bench.another(pull=True, image=served.image)
        start = asyncio.create_task(backend.start(bench.spec(), deaf))
        await until_async(served.half_way.is_set)
        served.down.set()
        served.go_on.set()
        with pytest.raises(BackendError, match=r"can not be had: .*(EOF|connection|closed|reset)") as failed:
            await start
        assert failed.value.code == "image_unavailable"
        assert bench.leftovers() == []
        served.down.clear()
        with pytest.raises(BackendError) as failed:  # it is no runtime, but now it came
            await backend.start(bench.spec(), deaf)
        assert failed.value.code == "start_failed"
        bench.engine.docker("image", "rm", served.image)


async def test_an_engine_that_is_not_there_is_said_to_be_so(bench: Bench, tmp_path: Path) -> None:
    nowhere = bench.another(url=f"unix://{tmp_path}/none.sock")
    for ask in (
        nowhere.start(bench.spec(), deaf),
        nowhere.observe("r-x"),
        nowhere.list_all(),
        nowhere.stop("r-x", reason=STOPPED, grace_seconds=0),
    ):
        with pytest.raises(BackendError, match="The Docker engine does not answer") as refused:
            await ask
        assert refused.value.code == "no_answer"


async def test_an_engine_that_is_silent_is_told_soon_and_cells_run_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await bench.start()
    monkeypatch.setattr("spawner.docker.engine.LOOK_SECONDS", 1.0)
    end = asyncio.create_task(bench.backend.wait_end(runtime.id))
    cell = asyncio.create_task(runtime.run("import time\ntime.sleep(2)\nprint('through')"))
    with silent(bench.engine):
        for ask in (
            bench.backend.observe(runtime.id),
            bench.backend.list_all(),
            bench.backend.start(bench.spec("bob"), deaf),
        ):
            with pytest.raises(BackendError, match="does not answer: it is silent") as refused:
                await ask
            assert refused.value.code == "no_answer"
        assert await cell == "through\n"
        assert not end.done()
    monkeypatch.undo()
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
    assert await end == STOPPED


async def test_a_container_that_a_stranger_removes_while_it_starts_is_told(bench: Bench) -> None:
    spec = bench.spec()

    def remove(phase: Phase, sentence: str = "") -> None:
        if phase is Phase.SERVER:
            bench.engine.docker("rm", "-f", bench.container(spec))

    with pytest.raises(BackendError, match=r"while it was starting|disappeared|ended") as failed:
        await bench.backend.start(spec, remove)
    assert failed.value.code in ("start_failed", "crashed", "lost")
    assert bench.leftovers() == []


async def test_a_stranger_that_takes_the_name_between_is_never_touched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is free when it is looked for, and taken when the container is made."""
    spec = bench.spec()
    have_network = bench.backend._have_network

    async def take_the_name() -> None:
        await have_network()
        name, image = bench.container(spec), bench.settings.image
        bench.engine.docker("run", "-d", "--name", name, "--entrypoint", "/bin/sleep", image, "infinity")

    monkeypatch.setattr(bench.backend, "_have_network", take_the_name)
    try:
        with pytest.raises(BackendError) as refused:
            await bench.backend.start(spec, deaf)
        assert refused.value.code == "already_exists"
        await bench.backend.stop(spec.id, reason=STOPPED, grace_seconds=0)
        await bench.backend.list_all()
        state = bench.engine.docker("inspect", "--format", "{{.State.Running}}", bench.container(spec))
        assert state.stdout == "true\n"
        assert bench.leftovers() == []
    finally:
        bench.engine.docker("rm", "-f", bench.container(spec))


async def test_a_drive_on_a_disk_that_is_read_only_refuses_writes_and_can_be_read(
    bench: Bench, tmp_path: Path
) -> None:
    disk, runtime = tmp_path / "disk", await bench.start()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(disk)], check=True)
    try:
        (disk / "d-1").mkdir()
        (disk / "d-1" / "old.txt").write_text("from before")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        await bench.backend.mount(
            runtime.id, source=str(disk / "d-1"), target="/content/drive", readonly=False
        )
        told = await runtime.run(
            "print(open('/content/drive/MyDrive/old.txt').read())\n"
            "try:\n    open('/content/drive/MyDrive/x', 'w')\n"
            "except OSError as error:\n    print(error.strerror)"
        )
        assert told == "from before\nRead-only file system\n"
        await bench.backend.unmount(runtime.id, target="/content/drive")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_a_machine_whose_disk_is_full_says_so_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    """The folder of the runtimes lies on a disk without room."""
    disk = tmp_path / "full"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=3", "none", str(disk)], check=True)
    try:
        backend = bench.another(folder=disk)
        spec: RuntimeSpec = bench.spec()
        with pytest.raises(BackendError, match="No space left on device") as refused:
            await backend.start(spec, deaf)
        assert refused.value.code == "start_failed"
        assert not (disk / spec.id).exists()
        assert bench.containers() == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
