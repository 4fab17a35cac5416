"""What only the Docker backend is asked, on a real engine; what every backend must do is in tests/contract/suite."""

from __future__ import annotations

import asyncio
import json
import secrets
import tarfile
from pathlib import Path

import pytest

from spawner.container import link
from spawner.model import MountPoint, Phase, Shape
from spawner.ports import BackendError
from spawner.supervisor.wire import SupervisorGone
from support.docker_engine import Engine
from support.patience import until_async
from tests.contract.suite.harness import watching
from tests.docker.docker_support import STOPPED, Bench, Runtime, installs_a_package
from tests.docker.registry import registry

pytestmark = pytest.mark.docker


# -- start ----------------------------------------------------------------------------------------------------


async def test_two_starts_at_once_give_two_runtimes_that_do_not_reach_each_other(bench: Bench) -> None:
    one, other = await asyncio.gather(bench.start("ada"), bench.start("bob"))
    assert one.endpoint != other.endpoint
    assert {o.id for o in await bench.backend.list_all()} == {one.id, other.id}
    knock = (
        "import socket\n"
        "try:\n"
        f"    socket.create_connection(('{other.endpoint.host}', {other.endpoint.port}), timeout=3)\n"
        "    print('reached')\n"
        "except OSError as error:\n"
        "    print('refused')\n"
    )
    assert await one.run(knock) == "refused\n"


async def test_a_strangers_container_with_our_name_is_never_touched(bench: Bench) -> None:
    spec = bench.spec()
    name = bench.container(spec)
    image = bench.settings.image
    bench.engine.docker("run", "-d", "--name", name, "--entrypoint", "/bin/sleep", image, "infinity")
    try:
        with pytest.raises(BackendError) as refused:
            await bench.start_spec(spec)
        assert refused.value.code == "already_exists"
        assert await bench.backend.observe(spec.id) is None
        await bench.backend.stop(spec.id, reason=STOPPED, grace_seconds=0)
        state = bench.engine.docker("inspect", "--format", "{{.State.Running}}", name).stdout.strip()
        assert state == "true"
        assert await bench.backend.list_all() == []
    finally:
        bench.engine.docker("rm", "-f", name)


async def test_a_pull_is_told_in_percent_and_keeps_nobody_else_waiting(bench: Bench) -> None:
    with registry(bench.engine.machine_address) as served:
        backend, told = bench.another(pull=True, image=served.image), []
        start = asyncio.create_task(
            backend.start(bench.spec("bob"), lambda phase, sentence="": told.append((phase, sentence)))
        )
        await until_async(served.half_way.is_set)
        other = await bench.start("ada")  # meanwhile
        assert await other.run("print('here')") == "here\n"
        assert not start.done()
        served.go_on.set()
        with pytest.raises(BackendError) as failed:  # it is no runtime, but it came
            await start
        assert failed.value.code == "start_failed"
        bench.engine.docker("image", "rm", served.image)
    assert told[0] == (Phase.PREPARING, f"Pulling the image {served.image}")
    shares = [int(s.rpartition("(")[2].split()[0]) for phase, s in told[1:] if phase is Phase.PREPARING]
    assert shares == sorted(set(shares))
    assert any(0 < share < 100 for share in shares) and shares[-1] == 100


async def test_an_image_that_can_not_be_pulled_says_so(bench: Bench) -> None:
    with registry(bench.engine.machine_address) as served:
        missing = bench.another(pull=True, image=f"{served.address}/team/other:7")
        with pytest.raises(BackendError, match="other:7 can not be had") as refused:
            await missing.start(bench.spec(), lambda phase, sentence="": None)
        assert refused.value.code == "image_unavailable"


async def test_an_image_that_is_no_runtime_says_so_and_leaves_nothing(bench: Bench) -> None:
    backend = bench.another(image="docker.io/local/debian:bookworm")
    with pytest.raises(BackendError) as failed:
        await backend.start(bench.spec(), lambda phase, sentence="": None)
    assert failed.value.code == "start_failed"
    assert bench.leftovers() == []


# -- what is inside -------------------------------------------------------------------------------------------


async def test_inside_is_root_of_little_with_a_working_folder_and_samples(bench: Bench) -> None:
    runtime = await bench.start()
    out = json.loads(
        await runtime.run(
            "import json, os, socket\n"
            "status = open('/proc/self/status').read()\n"
            "find = lambda key: next(l.split()[1] for l in status.splitlines() if l.startswith(key + ':'))\n"
            "print(json.dumps({'cwd': os.getcwd(), 'samples': sorted(os.listdir('sample_data')), 'uid': os.getuid(),"
            "'home': os.environ['HOME'], 'name': socket.gethostname(), 'privs': find('NoNewPrivs'), 'seccomp': find('Seccomp'),"
            "'spec': 'MINICOLAB_SPEC' in os.environ, 'caps': int(find('CapEff'), 16) & (1 << 21)}))"
        )
    )
    assert (out["cwd"], out["uid"], out["home"], out["name"]) == ("/content", 0, "/root", runtime.id)
    assert (out["privs"], out["seccomp"], out["spec"], out["caps"]) == ("1", "2", False, 0)
    assert out["samples"]


async def test_without_root_code_has_no_capability_and_still_installs_python_packages(plain: Bench) -> None:
    runtime = await plain.start()
    out = json.loads(
        await runtime.run(
            "import json, os\n"
            "status = open('/proc/self/status').read()\n"
            "caps = next(l.split()[1] for l in status.splitlines() if l.startswith('CapEff:'))\n"
            "open('mine.txt', 'w').write('x')\n"
            "print(json.dumps({'uid': os.getuid(), 'caps': caps, 'home': os.environ['HOME']}))"
        )
    )
    assert out == {"uid": 1000, "caps": "0000000000000000", "home": "/home/runtime"}
    wheel = "import pathlib, zipfile\n" + (
        "with zipfile.ZipFile('madeup-1-py3-none-any.whl', 'w') as z:\n"
        "    z.writestr('madeup.py', 'answer = 42')\n"
        "    z.writestr('madeup-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: madeup\\nVersion: 1\\n')\n"
        "    z.writestr('madeup-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "    z.writestr('madeup-1.dist-info/RECORD', '')\n"
    )
    await runtime.run(wheel)
    text = await runtime.run(
        "!pip install -q --no-index ./madeup-1-py3-none-any.whl\nimport madeup; print(madeup.answer)"
    )
    assert "42" in text, text


async def test_apt_get_installs_a_package(bench: Bench) -> None:
    await installs_a_package(await bench.start())


async def test_code_inside_can_neither_stop_nor_read_the_supervisor(bench: Bench) -> None:
    runtime = await bench.start()
    code = """
import os, signal
for number in (signal.SIGKILL, signal.SIGSTOP):
    try:
        os.kill(1, number)
    except OSError:
        pass
for name in ("environ", "mem", "maps"):
    try:
        with open(f"/proc/1/{name}", "rb") as file:
            print(name, "read", len(file.read(10)))
    except OSError as error:
        print(name, "refused")
"""
    told = await runtime.run(code)
    assert told.split("\n")[:3] == ["environ refused", "mem refused", "maps refused"]


async def test_who_has_not_the_key_is_not_listened_to(bench: Bench) -> None:
    runtime = await bench.start()
    stranger = link.Address(runtime.endpoint.host, 8889, b"x" * 32)
    with pytest.raises(SupervisorGone):
        await link.call(stranger, {"op": "stop", "code": "x", "message": "x"})
    assert await bench.backend.observe(runtime.id) is not None


# -- limits ---------------------------------------------------------------------------------------------------


async def test_processes_and_cpus_are_limited(bench: Bench) -> None:
    runtime = await bench.start(shape=Shape("TINY", 1 << 30, 0.5, 64))
    text = await runtime.run(
        "import threading\n"
        "made = []\n"
        "try:\n"
        "    for _ in range(200):\n"
        "        t = threading.Thread(target=threading.Event().wait, daemon=True); t.start(); made.append(t)\n"
        "except RuntimeError:\n"
        "    pass\n"
        "print(len(made) < 64)"
    )
    assert text == "True\n"
    found = json.loads(bench.engine.docker("inspect", runtime.container).stdout)[0]["HostConfig"]
    assert (found["NanoCpus"], found["PidsLimit"], found["MemorySwap"]) == (500_000_000, 64, 1 << 30)


# -- ends -----------------------------------------------------------------------------------------------------


async def test_a_supervisor_that_does_not_end_is_killed_and_the_reason_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spawner.container.backend.END_SECONDS", 1.0)
    runtime = await bench.start()
    bench.engine.docker("pause", runtime.container)
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0.0)
    assert bench.leftovers() == []
    assert await bench.backend.wait_end(runtime.id) == STOPPED


async def test_a_container_that_is_killed_from_outside_is_a_crash_and_put_away(bench: Bench) -> None:
    watched, unwatched = await asyncio.gather(bench.start(), bench.start())
    end = await watching(bench, watched)
    bench.engine.docker("kill", watched.container, unwatched.container)
    assert (await end).code == "crashed"
    assert await bench.backend.observe(unwatched.id) is None
    assert await bench.backend.list_all() == []
    assert bench.leftovers() == []
    assert (await bench.backend.wait_end(unwatched.id)).code == "crashed"


async def test_a_container_that_somebody_removed_is_lost_and_its_folder_goes(bench: Bench) -> None:
    runtime = await bench.start()
    end = await watching(bench, runtime)
    bench.engine.docker("rm", "-f", runtime.container)
    assert (await end).code in ("lost", "crashed")
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0)
    assert bench.leftovers() == []


# -- recovery -------------------------------------------------------------------------------------------------


async def test_another_installation_on_the_same_engine_is_not_seen(bench: Bench) -> None:
    runtime = await bench.start()
    other = bench.another(installation=secrets.token_hex(6))
    assert await other.list_all() == []
    assert await other.observe(runtime.id) is None


async def test_a_running_cell_does_not_notice_that_the_engine_is_restarted(bench: Bench) -> None:
    runtime = await bench.start()
    end = await watching(bench, runtime)
    cell = asyncio.create_task(runtime.run("import time\ntime.sleep(6)\nprint('through')"))
    await asyncio.to_thread(bench.engine.restart)
    assert await cell == "through\n"
    await until_async_observed(bench, runtime)
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
    assert await end == STOPPED


async def until_async_observed(bench: Bench, runtime: Runtime) -> None:
    while True:
        try:
            assert await bench.backend.observe(runtime.id) is not None
            return
        except BackendError:
            await asyncio.sleep(0.1)


# -- drives ---------------------------------------------------------------------------------------------------


async def test_a_drive_belongs_to_who_is_not_root_inside(plain: Bench, tmp_path: Path) -> None:
    bench = plain
    drive = tmp_path / "drive" / "d-1"
    drive.mkdir(parents=True)
    (drive / "old.txt").write_text("from before")
    runtime = await bench.start()
    assert await runtime.run("import os; print(os.listdir('/drives'))") == "[]\n"
    await bench.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    assert await bench.backend.mounts(runtime.id) == [MountPoint("/content/drive", False)]
    code = (
        "print(open('/content/drive/MyDrive/old.txt').read())\n"
        "_ = open('/content/drive/My Drive/new.txt', 'w').write('from inside')\n"
    )
    assert await runtime.run(code) == "from before\n"
    assert (drive / "new.txt").read_text() == "from inside"
    assert (drive / "new.txt").stat().st_uid == drive.stat().st_uid
    await bench.backend.unmount(runtime.id, target="/content/drive")
    assert await bench.backend.mounts(runtime.id) == []
    gone = "import os; print(os.listdir('/drives'), os.path.exists('/content/drive/MyDrive'))"
    assert await runtime.run(gone) == "[] False\n"


@pytest.mark.parametrize("how", ["kill", "remove", "rm -rf inside"])
async def test_no_end_takes_a_drive_with_it(bench: Bench, tmp_path: Path, how: str) -> None:
    drive = tmp_path / "drive" / "d-1"
    drive.mkdir(parents=True)
    (drive / "precious.txt").write_text("x")
    runtime = await bench.start()
    await bench.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    assert str(drive) not in Path("/proc/self/mountinfo").read_text()
    match how:
        case "kill":
            bench.engine.docker("kill", runtime.container)
            await bench.backend.wait_end(runtime.id)
        case "remove":
            bench.engine.docker("rm", "-f", "-v", runtime.container)
            await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0)
        case _:
            await runtime.run("!rm -rf /content/sample_data /content/drive; ls /content")
    assert (drive / "precious.txt").read_text() == "x"


# -- what is left ---------------------------------------------------------------------------------------------


async def test_content_that_is_put_back_belongs_to_who_is_not_root_inside(plain: Bench) -> None:
    bench = plain
    runtime, unwanted = await asyncio.gather(bench.start(), bench.start())
    await runtime.run("import os; os.makedirs('a/b'); open('a/b/c.txt', 'w').write('mine')")
    await bench.backend.set_snapshot(runtime.id, snapshot_bytes=1 << 20)
    await asyncio.gather(
        *(bench.backend.stop(r.id, reason=STOPPED, grace_seconds=1.0) for r in (runtime, unwanted))
    )
    nothing = await bench.backend.left_behind(unwanted.id)  # but its reason
    assert nothing is not None
    assert (nothing.snapshot, nothing.snapshot_note, nothing.executions) == (None, "", ())
    await bench.backend.forget(unwanted.id)
    assert await bench.backend.left_behind(unwanted.id) is None
    left = await bench.backend.left_behind(runtime.id)
    assert left is not None
    assert left.snapshot is not None
    with tarfile.open(left.snapshot) as tar:
        assert tar.getnames() == ["a/b/c.txt"]
    later = await bench.start()
    assert await bench.backend.restore(later.id, snapshot=left.snapshot) == 1
    assert (
        await later.run("print(open('a/b/c.txt').read()); _ = open('a/b/c.txt', 'a').write('!')") == "mine\n"
    )
    await bench.backend.forget(runtime.id)
    assert await bench.backend.left_behind(runtime.id) is None


def test_the_engine_keeps_out_of_the_machine(engine: Engine) -> None:
    """Its bridge and rules are in a namespace of its own."""
    assert "docker0" not in Path("/proc/net/dev").read_text()
    assert engine.docker("info", "--format", "{{.LiveRestoreEnabled}}").stdout.strip() == "true"
