"""What every runtime backend must do, on every rung it has. docker and kubernetes will run the same tests."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import requests

from spawner.environment import RuntimeEnvironment
from spawner.local.backend import LocalBackend
from spawner.model import Budget, EndReason, MountPoint, Phase, Shape
from spawner.ports import BackendError
from spawner.supervisor import wire
from support.kernel import Kernel
from support.patience import PATIENCE, Stopwatch, until_async
from support.runtimes import SMALL
from tests.contract.contract_support import (
    STOPPED,
    Bench,
    Runtime,
    command_of,
    leftovers,
    make_bench,
    processes_of,
    watching,
)

USED_UP = EndReason("budget_used_up", "The budget 'gpu' is used up.")


async def supervisor(runtime: Runtime) -> int:
    """Return the process id of the runtime's supervisor."""
    _, writer = await wire.connect(runtime.folder)
    pid, _ = wire.peer(writer.get_extra_info("socket"))
    writer.close()
    return pid


# -- start ----------------------------------------------------------------------------------------------------


async def test_a_started_runtime_answers_runs_code_and_says_how_far_it_came(bench: Bench) -> None:
    runtime = await bench.start()
    assert runtime.phases == [Phase.SANDBOX, Phase.SERVER, Phase.READY]
    assert await runtime.run("print(6 * 7)") == "42\n"
    observed = await bench.backend.observe(runtime.id)
    assert observed is not None
    assert (observed.id, observed.user, observed.file_id) == (runtime.id, "ada", "f-1")
    assert (observed.state, observed.endpoint) == ("ready", runtime.endpoint)


async def test_it_answers_to_its_own_tickets_only(bench: Bench) -> None:
    one, other = await asyncio.gather(bench.start(), bench.start())
    for token in ("", other.ticket(), one.ticket()[:-2]):
        headers = {"Authorization": f"token {token}"} if token else {}
        reply = await asyncio.to_thread(
            requests.get, one.url + "api/kernels", headers=headers, timeout=PATIENCE
        )
        assert reply.status_code in (401, 403)


async def test_two_starts_at_once_give_two_runtimes(bench: Bench) -> None:
    one, other = await asyncio.gather(bench.start("ada"), bench.start("bob"))
    assert one.endpoint != other.endpoint
    assert {o.id for o in await bench.backend.list_all()} == {one.id, other.id}
    assert await asyncio.gather(one.run("print(1)"), other.run("print(2)")) == ["1\n", "2\n"]


async def test_a_name_that_is_taken_is_refused_and_its_holder_not_disturbed(bench: Bench) -> None:
    runtime = await bench.start()
    with pytest.raises(BackendError) as refused:
        await bench.backend.start(runtime.spec, lambda _: None)
    assert refused.value.code == "already_exists"
    assert await runtime.run("print('here')") == "here\n"


@pytest.mark.parametrize("name", ["../r-x", ".ended", "", "r/x", "R-UPPER", "x" * 80])
async def test_a_name_that_is_no_name_is_refused_and_means_nothing(bench: Bench, name: str) -> None:
    with pytest.raises(BackendError) as refused:
        await bench.backend.start(bench.spec(id=name), lambda _: None)
    assert refused.value.code == "bad_id"
    assert await bench.backend.observe(name) is None
    await bench.backend.stop(name, reason=STOPPED, grace_seconds=0)


async def test_a_start_that_fails_says_why_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    spec = bench.spec(base_url="not-a-url")
    with pytest.raises(BackendError) as failed:
        await bench.backend.start(spec, lambda _: None)
    assert failed.value.code == "start_failed"
    assert "must start with '/'" in str(failed.value)
    assert [p.name for p in bench.folder.iterdir() if p.name != ".ended"] == []
    assert processes_of(spec.id) == []


async def test_a_start_that_is_given_up_leaves_nothing(bench: Bench) -> None:
    spec = bench.spec()
    begun = asyncio.Event()
    start = asyncio.create_task(
        bench.backend.start(spec, lambda phase: begun.set() if phase is Phase.SERVER else None)
    )
    await begun.wait()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert processes_of(spec.id) == []
    assert not (bench.folder / spec.id).exists()


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8])
async def test_a_start_that_is_given_up_at_its_very_beginning_leaves_nothing(
    bench: Bench, turns: int
) -> None:
    spec = bench.spec()
    begun = asyncio.Event()
    start = asyncio.create_task(bench.backend.start(spec, lambda _: begun.set()))
    await begun.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert processes_of(spec.id) == []
    assert not (bench.folder / spec.id).exists()


async def test_a_runtime_can_be_stopped_by_another_while_it_is_starting(bench: Bench) -> None:
    spec = bench.spec()
    begun = asyncio.Event()
    start = asyncio.create_task(bench.backend.start(spec, lambda _: begun.set()))
    await begun.wait()
    await until_async((bench.folder / spec.id).exists)
    await bench.another().stop(spec.id, reason=STOPPED, grace_seconds=1)
    with pytest.raises(BackendError):
        await start
    assert processes_of(spec.id) == []
    assert not (bench.folder / spec.id).exists()


async def test_a_start_without_an_environment_says_so_and_leaves_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    empty, layer = tmp_path / "empty", tmp_path / "layer"
    empty.mkdir()
    layer.mkdir()
    backend = LocalBackend(bench.folder, empty, layer, isolation=bench.rung)
    spec = bench.spec()
    with pytest.raises(BackendError) as failed:
        await backend.start(spec, lambda _: None)
    assert failed.value.code in ("sandbox_failed", "start_failed")
    assert processes_of(spec.id) == []
    assert [p.name for p in bench.folder.iterdir() if p.name != ".ended"] == []


# -- what is inside -------------------------------------------------------------------------------------------


async def test_inside_is_a_working_folder_with_samples_and_the_usual_marks(bench: Bench) -> None:
    runtime = await bench.start()
    out = json.loads(
        await runtime.run(
            "import json, os, socket, sys\n"
            "print(json.dumps({'cwd': os.getcwd(), 'samples': sorted(os.listdir('sample_data')), 'home': os.environ['HOME'],"
            "'owner': os.stat(os.environ['HOME']).st_uid == os.geteuid(), 'tag': 'COLAB_RELEASE_TAG' in os.environ,"
            "'first': os.environ['PATH'].split(':')[0] == os.path.dirname(sys.executable), 'name': socket.gethostname(),"
            "'tmp': oct(os.stat(os.environ['TMPDIR']).st_mode), 'key': 'MINICOLAB_TICKET_KEY_FILE' in os.environ,"
            "'transport': __import__('ipykernel.kernelapp').kernelapp.IPKernelApp.instance().transport}))"
        )
    )
    assert out["samples"] == sorted(p.name for p in (runtime.folder / "content" / "sample_data").iterdir())
    assert out["owner"] and out["tag"] and out["first"] and not out["key"]
    assert (out["tmp"], out["transport"]) == ("0o41777", "ipc")
    if bench.rung != "plain":
        assert (out["cwd"], out["home"], out["name"]) == ("/content", "/root", runtime.id)
        assert await runtime.run("!cat /var/colab/hostname") == f"{runtime.id}\r\n".replace("\r", "")
        assert "localhost" in await runtime.run(
            "import socket; print(socket.gethostbyname('localhost') and 'localhost')"
        )


async def test_the_key_to_a_runtime_is_not_left_in_any_file(bench: Bench) -> None:
    runtime = await bench.start()
    key = runtime.spec.ticket_key
    for path in runtime.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and "site-packages" not in path.parts:
            text = path.read_bytes()
            assert key not in text, path


async def test_a_kernel_speaks_through_unix_sockets_nobody_else_can_reach(bench: Bench) -> None:
    runtime = await bench.start()
    await runtime.run("1")
    kernels = runtime.folder / "run" / "kernels"
    assert len([path for path in kernels.iterdir() if path.is_socket()]) >= 5
    assert kernels.stat().st_mode & 0o077 == 0


async def test_other_runtimes_and_the_service_can_not_be_seen(isolated: Bench, tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("the service's secret")
    one, other = await asyncio.gather(isolated.start("ada"), isolated.start("bob"))
    await one.run("open('/content/mine', 'w').write('ada'); open('/tmp/mine', 'w').write('ada')")
    paths = [
        str(tmp_path / "state.db"),
        str(one.folder),
        str(one.folder / "content" / "mine"),
        str(isolated.folder / ".ended"),
        "/content/mine",
        "/tmp/mine",
        "/home",
        "/srv",
        "/mnt",
        str(Path(__file__).parents[2]),
        str(Path.home() / ".bashrc"),
        str(Path.home() / ".ssh"),
        "/etc/ssh",
        "/etc/gshadow",
        "/run/docker.sock",
        "/run/minicolab/supervisor.sock",
        "/dev/nvidia0",
        "/dev/vda",
        "/dev/mem",
    ]
    seen = await other.run(
        f"import os\nfor p in {paths!r}:\n    try:\n        s = os.stat(p)\n    except OSError: continue\n"
        "    if s.st_size and not (os.path.isdir(p) and not os.listdir(p)): print(p)"
    )
    assert seen == ""
    pids = await other.run("import os; print(*[p for p in os.listdir('/proc') if p.isdigit()])")
    assert 2 <= len(pids.split()) < 12
    names = await other.run("!cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert one.id not in names and str(isolated.folder / one.id) not in names
    killed = await other.run(
        f"import os\ntry:\n    os.kill({(await supervisor(one))}, 0); print('reached')\nexcept OSError: print('no')"
    )
    assert killed == "no\n"


async def test_secrets_of_the_machines_configuration_can_not_be_read(isolated: Bench) -> None:
    runtime = await isolated.start()
    out = await runtime.run(
        "import os\nfor folder, _, names in os.walk('/etc'):\n    for name in names:\n"
        "        path = os.path.join(folder, name)\n"
        "        try:\n            if not os.path.islink(path) and not os.stat(path).st_mode & 4 and os.path.getsize(path): print(path)\n"
        "        except OSError: pass\n"
        "print(open('/etc/shadow').read())"
    )
    hashes = [line.split(":")[1] for line in out.splitlines() if line.count(":") == 8]
    assert all(value in ("*", "!", "") for value in hashes)
    assert [line for line in out.splitlines() if line.startswith("/")] in ([], ["/etc/shadow"])


async def test_code_inside_gets_no_power_over_the_kernel(isolated: Bench) -> None:
    runtime = await isolated.start()
    for command in (
        "unshare --user --map-root-user true",
        "unshare --mount true",
        "mount -t tmpfs none /content",
        "mknod /tmp/disk b 254 0",
    ):
        assert (
            await runtime.run(f"import os; print(os.system({command + ' >/dev/null 2>&1'!r}) != 0)")
            == "True\n"
        ), command


async def test_nothing_of_the_machines_kernel_can_be_set_from_inside(isolated: Bench) -> None:
    """core_pattern alone would be a way out: the kernel runs what it names as the machine's root."""
    runtime = await isolated.start()
    out = await runtime.run(
        "import os\nfor root in ('/proc', '/sys', '/dev'):\n    for folder, folders, names in os.walk(root):\n"
        "        folders[:] = [f for f in folders if not f.isdigit() and f not in ('self', 'thread-self', 'fd', 'shm')]\n"
        "        for name in names:\n            path = os.path.join(folder, name)\n            try: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))\n"
        "            except OSError: continue\n            print(path)"
    )
    allowed = {
        f"/dev/{name}"
        for name in (
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            "tty",
            "ptmx",
            "pts/ptmx",
            "stdin",
            "stdout",
            "stderr",
        )
    }
    assert set(out.split()) <= allowed
    for name in ("kcore", "kallsyms", "keys", "kpagecount"):
        out = await runtime.run(f"print(len(open('/proc/{name}', 'rb').read(1)))")
        assert "Error" in out or out == "0\n", name


async def test_the_machines_sockets_without_a_path_can_not_be_reached(isolated: Bench) -> None:
    import socket

    from spawner.local import probe

    if not probe.abstract_sockets_are_forbidden():
        pytest.skip("this kernel has no Landlock scopes, and the isolation report says so")
    runtime = await isolated.start()
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(f"\0minicolab-test-{runtime.id}")
        daemon.listen()
        out = await runtime.run(
            f"import socket\ntry: socket.socket(socket.AF_UNIX).connect('\\0minicolab-test-{runtime.id}'); print('reached')\n"
            "except OSError as e: print(e.strerror)"
        )
    assert out == "Operation not permitted\n"


async def test_what_pip_installs_is_the_runtimes_own_and_gone_with_it(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "demo"
    source.mkdir()
    wheel = tmp_path / "content_demo-1.0-py3-none-any.whl"
    _make_wheel(wheel)
    one, other = await asyncio.gather(bench.start("ada"), bench.start("bob"))
    (one.folder / "content" / wheel.name).write_bytes(wheel.read_bytes())
    out = await one.run(
        f"!pip install -q --no-index ./{wheel.name}\nimport content_demo; print(content_demo.X)", timeout=120
    )
    assert out.endswith("7\n"), out
    assert "ModuleNotFoundError" in await other.run("import content_demo")
    await bench.backend.stop(one.id, reason=STOPPED, grace_seconds=1)
    fresh = await bench.start("ada")
    assert "ModuleNotFoundError" in await fresh.run("import content_demo")


def _make_wheel(path: Path) -> None:
    import zipfile

    info = "content_demo-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("content_demo.py", "X = 7\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: content-demo\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


async def test_where_apt_can_not_install_it_says_so_in_a_sentence(bench: Bench) -> None:
    if bench.rung == "namespaces" and os.geteuid() == 0:
        pytest.skip("apt works here: test_apt_installs_into_this_runtime_alone")
    runtime = await bench.start()
    out = await runtime.run("!apt-get install -y tree; echo status $?")
    assert "apt can not install in this runtime: " in out
    assert "status 100" in out


@pytest.mark.slow
async def test_apt_installs_into_this_runtime_alone(bench: Bench) -> None:
    if bench.rung != "namespaces" or os.geteuid() != 0:
        pytest.skip("only root's namespaces hold a whole system")
    runtime = await bench.start()
    out = await runtime.run(
        "!apt-get update -qq && apt-get install -y -qq tree && tree --version", timeout=240
    )
    assert "tree v" in out, out
    assert not any(Path(folder, "tree").exists() for folder in ("/usr/bin", "/bin"))


# -- drives ---------------------------------------------------------------------------------------------------


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    folder = tmp_path / "drive of ada"
    folder.mkdir()
    (folder / "notes.txt").write_text("from the drive page")
    return folder


async def test_a_mounted_drive_is_the_same_folder_on_both_sides_and_absent_before(
    bench: Bench, drive: Path
) -> None:
    runtime = await bench.start()
    assert (
        "notes.txt" not in await runtime.run("!find / -name notes.txt -not -path '/proc/*' 2>/dev/null")
        or bench.rung == "plain"
    )
    await bench.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    assert await bench.backend.mounts(runtime.id) == [MountPoint("/content/drive", False)]
    read = "print(open('drive/MyDrive/notes.txt').read(), open('drive/My Drive/notes.txt').read())"
    assert await runtime.run(read) == "from the drive page from the drive page\n"
    await runtime.run("open('drive/MyDrive/made inside', 'w').write('from the runtime')")
    assert (drive / "made inside").read_text() == "from the runtime"
    (drive / "later").write_text("x")
    assert "later" in await runtime.run("import os; print(os.listdir('drive/MyDrive'))")


async def test_a_running_kernel_sees_the_drive_come_and_go(bench: Bench, drive: Path) -> None:
    runtime = await bench.start()
    for _ in range(2):
        await bench.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
        assert "notes.txt" in await runtime.run("import os; print(os.listdir('drive/MyDrive'))")
        await bench.backend.unmount(runtime.id, target="/content/drive")
        assert await runtime.run("import os; print(os.listdir('drive'))") == "[]\n"
    assert (drive / "notes.txt").exists()


async def test_a_read_only_drive_can_not_be_written(isolated: Bench, drive: Path) -> None:
    runtime = await isolated.start()
    await isolated.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=True)
    assert "Read-only" in await runtime.run("open('drive/MyDrive/x', 'w')")
    await isolated.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    assert "Error" not in await runtime.run("open('drive/MyDrive/x', 'w')")


async def test_two_people_mount_their_own_drives(isolated: Bench, drive: Path, tmp_path: Path) -> None:
    bobs = tmp_path / "bobs"
    bobs.mkdir()
    (bobs / "bob.txt").touch()
    one, other = await asyncio.gather(isolated.start("ada"), isolated.start("bob"))
    await isolated.backend.mount(one.id, source=str(drive), target="/content/drive", readonly=False)
    await isolated.backend.mount(other.id, source=str(bobs), target="/content/drive", readonly=False)
    assert await one.run("import os; print(os.listdir('drive/MyDrive'))") == "['notes.txt']\n"
    assert await other.run("import os; print(os.listdir('drive/MyDrive'))") == "['bob.txt']\n"


@pytest.mark.parametrize(
    "target",
    [
        "/content",
        "/",
        "/etc",
        "/content/../etc",
        "content/drive",
        "/content/drive/../x",
        "/content/a\0b",
        "/content/" + "x" * 300,
    ],
)
async def test_a_mountpoint_outside_the_working_folder_is_refused(
    bench: Bench, drive: Path, target: str
) -> None:
    runtime = await bench.start()
    with pytest.raises(BackendError) as refused:
        await bench.backend.mount(runtime.id, source=str(drive), target=target, readonly=False)
    assert refused.value.code == "bad_mountpoint"
    assert await bench.backend.mounts(runtime.id) == []


async def test_a_mountpoint_in_use_a_missing_drive_and_a_link_are_refused(bench: Bench, drive: Path) -> None:
    runtime = await bench.start()

    async def refusal(source: Path, target: str) -> str:
        with pytest.raises(BackendError) as refused:
            await bench.backend.mount(runtime.id, source=str(source), target=target, readonly=False)
        return refused.value.code

    assert await refusal(drive, "/content/sample_data") == "mountpoint_not_empty"
    assert await refusal(drive / "absent", "/content/drive") == "no_such_drive"
    await runtime.run("import os; os.symlink('/etc', 'evil'); os.makedirs('kept/MyDrive/mine')")
    assert await refusal(drive, "/content/evil") == "bad_mountpoint"
    assert await refusal(drive, "/content/kept") == "mountpoint_not_empty"
    await bench.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    assert await refusal(drive, "/content/drive/MyDrive/below") == "bad_mountpoint"
    assert not (drive / "below").exists()
    with pytest.raises(BackendError) as refused:
        await bench.backend.unmount(runtime.id, target="/content/elsewhere")
    assert refused.value.code == "not_mounted"


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_no_end_of_a_runtime_touches_the_drive(bench: Bench, drive: Path, end: str) -> None:
    """D8, also while something inside holds files of the drive open."""
    runtime = await bench.start()
    await bench.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    await runtime.run(
        "import os, subprocess\nos.chdir('drive/MyDrive'); os.makedirs('deep/er'); open('deep/er/file', 'w').write('x')\n"
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\nos.symlink('/content/drive/MyDrive', '/tmp/link') if os.path.exists('/content/drive') else None"
    )
    if end == "stop":
        await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1)
    else:
        os.kill(await supervisor(runtime), signal.SIGKILL)
        await bench.backend.wait_end(runtime.id)
    assert (drive / "notes.txt").read_text() == "from the drive page"
    assert (drive / "deep/er/file").read_text() == "x"
    assert leftovers(bench) == []


# -- limits ---------------------------------------------------------------------------------------------------


async def test_a_memory_hog_is_killed_and_told_and_the_runtime_lives_on(bench: Bench) -> None:
    runtime = await bench.start(shape=Shape("TINY", 400 << 20, 1.0, 200))
    hog = "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'x = bytearray(800 << 20); print(len(x))'], capture_output=True, text=True))"
    out = await runtime.run(hog)
    assert "returncode=-9" in out or "MemoryError" in out, out
    assert await runtime.run("print('still here')") == "still here\n"
    resources = await bench.backend.resources(runtime.id)
    assert resources.memory_limit == 400 << 20
    assert 0 < resources.memory_used < 400 << 20
    if "returncode=-9" in out:
        assert resources.oom_kills >= 1


async def test_a_kernel_that_takes_too_much_is_ended_and_comes_back(bench: Bench) -> None:
    runtime = await bench.start(shape=Shape("TINY", 400 << 20, 1.0, 200))

    def hog() -> None:
        kernel = Kernel(runtime.url, runtime.ticket())
        kernel.send("execute_request", {"code": "x = bytearray(900 << 20)\nprint('had it')", "silent": False})
        ended = False
        while not ended:
            message = kernel.receive()
            kind, content = message["msg_type"], message["content"]
            assert not (kind == "stream" and "had it" in content["text"]), "the limit was not held"
            ended = kind == "error" or content.get("execution_state") in ("restarting", "dead")
        kernel.close()

    await asyncio.wait_for(asyncio.to_thread(hog), 2 * PATIENCE)
    assert await runtime.run("print('again')") == "again\n"


async def test_a_fork_bomb_meets_a_limit(bench: Bench) -> None:
    if (
        bench.rung == "plain"
        and "the number of processes is not limited" in bench.backend.isolation().does_not
    ):
        pytest.skip("this machine can not limit it on this rung, and the isolation report says so")
    runtime = await bench.start(shape=Shape("FEW", 1 << 30, 1.0, 60))
    out = await runtime.run(
        "import subprocess\nps = []\ntry:\n    for _ in range(100): ps.append(subprocess.Popen(['sleep', '60']))\n"
        "except OSError as e: print('limit', len(ps) < 100)\n[p.kill() for p in ps]\nNone"
    )
    assert out.startswith("limit True")
    assert (await bench.backend.resources(runtime.id)).processes <= 60


async def test_programs_inside_can_read_their_own_limits(isolated: Bench) -> None:
    if "memory (control group)" not in isolated.backend.isolation().isolates:
        pytest.skip("no control groups here")
    runtime = await isolated.start()
    out = await runtime.run(
        "import glob\nprint(*[open(p).read().strip() for p in glob.glob('/sys/fs/cgroup/memory/memory.limit_in_bytes') + glob.glob('/sys/fs/cgroup/memory.max')])\n"
        "for p in glob.glob('/sys/fs/cgroup/memory/memory.limit_in_bytes') + glob.glob('/sys/fs/cgroup/memory.max'):\n"
        "    try: open(p, 'w').write('1')\n    except OSError as e: print(e.strerror)"
    )
    assert out == f"{SMALL.memory_bytes}\nRead-only file system\n"


async def test_resources_and_activity_and_log_can_be_looked_at(bench: Bench) -> None:
    runtime = await bench.start()
    before = await bench.backend.resources(runtime.id)
    used = time.monotonic()
    await runtime.run("open('big', 'wb').write(b'x' * (8 << 20))")
    after = await bench.backend.resources(runtime.id)
    assert after.disk_used - before.disk_used >= 8 << 20
    assert after.processes >= 2
    assert after.disk_free > 0
    activity = await bench.backend.activity(runtime.id)
    assert not activity.busy
    assert activity.seconds_ago <= time.monotonic() - used + 0.001  # the server tells milliseconds
    assert "Serving notebooks" in await bench.backend.logs(runtime.id)


async def test_what_is_gone_is_answered_as_gone(bench: Bench) -> None:
    runtime = await bench.start()
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0)
    assert await bench.backend.observe(runtime.id) is None
    assert await bench.backend.list_all() == []
    for call in (bench.backend.resources, bench.backend.activity, bench.backend.mounts, bench.backend.logs):
        with pytest.raises(BackendError) as gone:
            await call(runtime.id)
        assert gone.value.code == "no_such_runtime"
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0)


# -- ends -----------------------------------------------------------------------------------------------------

STRAY = (
    "import subprocess\nsubprocess.Popen('(sleep 4242 &) ; sleep 4242', shell=True, start_new_session=True)"
)


async def test_a_stop_leaves_nothing_and_tells_every_watcher_why(bench: Bench) -> None:
    runtime = await bench.start()
    await runtime.run(STRAY)
    watchers = [await watching(runtime, backend) for backend in (bench.backend, bench.another())]
    await bench.another().stop(runtime.id, reason=EndReason("why", "Because."), grace_seconds=2)
    assert await asyncio.gather(*watchers) == [EndReason("why", "Because.")] * 2
    assert leftovers(bench) == []


async def test_a_stop_lets_programs_finish_within_the_grace(bench: Bench, drive: Path) -> None:
    runtime = await bench.start()
    await bench.backend.mount(runtime.id, source=str(drive), target="/content/drive", readonly=False)
    place = "import atexit, os\npath = os.path.abspath('drive/MyDrive/farewell')\n"
    await runtime.run(place + "atexit.register(lambda: open(path, 'w').write('bye'))")
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=10)
    assert (drive / "farewell").read_text() == "bye"


async def test_a_stop_does_not_wait_longer_than_the_grace(bench: Bench) -> None:
    runtime = await bench.start()
    busy = asyncio.create_task(
        runtime.run("import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass")
    )
    await until_async(lambda: _runs_a_cell(runtime))
    with Stopwatch() as watch:
        await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0.5)
    assert watch.seconds < 3
    with pytest.raises(Exception, match=r".*"):  # its websocket ended
        await busy


def _runs_a_cell(runtime: Runtime) -> bool:
    headers = {"Authorization": f"token {runtime.ticket()}"}
    reply = requests.get(runtime.url + "minicolab/activity", headers=headers, timeout=PATIENCE).json()
    return any(kernel["executing_seconds"] > 0 for kernel in reply.get("kernels", ()))


async def test_killing_the_supervisor_ends_everything_at_once_and_is_noticed(bench: Bench) -> None:
    runtime = await bench.start()
    await runtime.run(STRAY)
    watcher = await watching(runtime, bench.backend)
    pid = await supervisor(runtime)
    with Stopwatch() as watch:
        os.kill(pid, signal.SIGKILL)
        assert (await watcher).code == "lost"
    assert watch.seconds < 2
    assert leftovers(bench) == []


async def test_killing_the_supervisor_ends_the_processes_even_when_nobody_watches(bench: Bench) -> None:
    runtime = await bench.start()
    await runtime.run(STRAY)
    os.kill(await supervisor(runtime), signal.SIGKILL)
    await until_async(lambda: runtime.processes() == [])
    async with asyncio.timeout(PATIENCE):
        # The last process may not have let go of the folder when we look first; the next look sweeps.
        while leftovers(bench):
            assert await bench.another().list_all() == []


async def test_a_supervisor_that_hangs_can_still_be_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spawner.local.backend.END_SECONDS", 1.0)
    runtime = await bench.start()
    os.kill(await supervisor(runtime), signal.SIGSTOP)
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0)
    assert leftovers(bench) == []


async def test_the_end_of_the_runtimes_server_is_its_end(bench: Bench) -> None:
    runtime = await bench.start()
    watcher = await watching(runtime, bench.backend)
    server = [
        pid
        for pid in runtime.processes()
        if b"minicolab_runtime.server" in command_of(pid) and b"bwrap" not in command_of(pid)
    ]
    with Stopwatch() as watch:
        os.kill(server[0], signal.SIGKILL)
        assert (await watcher).code == "crashed"
    assert watch.seconds < 5
    assert leftovers(bench) == []


async def test_a_runtime_that_ended_unseen_tells_its_reason_until_that_is_forgotten(bench: Bench) -> None:
    runtime = await bench.start()
    await bench.another().stop(runtime.id, reason=EndReason("why", "Because."), grace_seconds=0)
    for _ in range(2):  # who asked first may have died before it wrote the reason down
        assert await bench.backend.wait_end(runtime.id) == EndReason("why", "Because.")
    await bench.backend.forget(runtime.id)
    assert (await bench.backend.wait_end(runtime.id)).code == "lost"


async def test_code_inside_can_not_hold_up_the_end_or_invent_a_reason(bench: Bench) -> None:
    """A pipe, a link and a lie in the place where the server leaves its word."""
    for trick in (
        "os.mkfifo(p)",
        "os.symlink('/etc/passwd', p)",
        'open(p, \'w\').write(\'{"code": "max_lifetime", "message": "x"}\')',
        "open(p, 'w').write('[' * 100000)",
    ):
        spec = bench.spec()
        inside = (
            "/run/minicolab/kernels" if bench.rung != "plain" else str(bench.folder / spec.id / "run/kernels")
        )
        runtime = await bench.start(
            id=spec.id, base_url=spec.base_url, environment={"END_FILE_FOLDER": inside}
        )
        watcher = await watching(runtime, bench.backend)
        await runtime.run(f"import os\np = os.environ['END_FILE_FOLDER'] + '/end.json'\n{trick}")
        for pid in runtime.processes():
            command = command_of(pid)
            if b"minicolab_runtime.server" in command and b"bwrap" not in command:
                os.kill(pid, signal.SIGKILL)
        with Stopwatch() as watch:
            assert (await watcher).code == "crashed"
        assert watch.seconds < 5


async def test_the_death_of_the_hub_disturbs_no_runtime_and_the_next_one_finds_it(
    bench: Bench, tmp_path: Path
) -> None:
    """A hub that is killed after it started a runtime."""
    spec = bench.spec()
    script = tmp_path / "hub.py"
    script.write_text(
        "import asyncio, sys\nfrom pathlib import Path\nfrom spawner.local.backend import LocalBackend\nfrom spawner.model import *\n"
        f"spec = {spec!r}\n"
        f"backend = LocalBackend(Path({str(bench.folder)!r}), Path({str(bench.env.env)!r}), Path({str(bench.env.code)!r}), isolation={bench.rung!r}, allow_plain_multiuser=True)\n"
        "async def main():\n    print((await backend.start(spec, lambda p: None)).port, flush=True)\n    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2])
    hub = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
        start_new_session=True,
    )
    assert hub.stdout is not None
    port = int(await asyncio.to_thread(hub.stdout.readline))
    os.killpg(hub.pid, signal.SIGKILL)
    hub.wait()
    found = await bench.backend.list_all()
    assert [(o.id, o.state) for o in found] == [(spec.id, "ready")]
    assert found[0].endpoint is not None and found[0].endpoint.port == port
    runtime = Runtime(spec, found[0].endpoint, [], bench.folder / spec.id)
    bench.started.append(runtime)
    assert await runtime.run("print('undisturbed')") == "undisturbed\n"


async def test_a_hub_that_dies_while_it_starts_a_runtime_leaves_one_that_can_be_found_and_ended(
    bench: Bench, tmp_path: Path
) -> None:
    """A2: intent, kill, then look at reality."""
    spec = bench.spec()
    script = tmp_path / "hub.py"
    script.write_text(
        "import asyncio, os, signal\nfrom pathlib import Path\nfrom spawner.local.backend import LocalBackend\nfrom spawner.model import *\n"
        f"spec = {spec!r}\n"
        f"backend = LocalBackend(Path({str(bench.folder)!r}), Path({str(bench.env.env)!r}), Path({str(bench.env.code)!r}), isolation={bench.rung!r}, allow_plain_multiuser=True)\n"
        "def die(phase):\n    if phase is Phase.SERVER: os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(backend.start(spec, die))\n"
    )
    root = str(Path(__file__).parents[2])
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": root},
        start_new_session=True,
    )
    assert done.returncode == -signal.SIGKILL
    runtime = Runtime(spec, None, [], bench.folder / spec.id)  # type: ignore[arg-type]
    bench.started.append(runtime)
    await bench.backend.stop(spec.id, reason=STOPPED, grace_seconds=0)
    assert leftovers(bench) == []


# -- deadlines ------------------------------------------------------------------------------------------------


async def test_the_longest_life_ends_a_runtime_with_nobody_alive_to_do_it(bench: Bench) -> None:
    """This process only looks at the folder: no service acts."""
    with Stopwatch() as watch:
        runtime = await bench.start(max_lifetime_seconds=1.5)
        begun = time.monotonic()
        await until_async(lambda: not runtime.folder.exists())
        lived = time.monotonic() - begun
    assert lived < 1.5 + 5 * watch.slowness
    assert (await bench.backend.wait_end(runtime.id)).code == "max_lifetime"
    assert leftovers(bench) == []


async def test_an_idle_runtime_is_ended_and_a_silent_busy_one_is_not(bench: Bench) -> None:
    idle, busy = await asyncio.gather(bench.start(), bench.start())
    cell = asyncio.create_task(busy.run("import time; time.sleep(4); print('done')"))
    await until_async(
        lambda: _runs_a_cell(busy)
    )  # a kernel takes its time to start: the limit holds from here on
    for runtime in (idle, busy):
        limits = {"max_lifetime_seconds": 600.0, "idle_limit_seconds": 1.5}
        await bench.backend.set_limits(runtime.id, **limits)
    with Stopwatch() as watch:
        assert (await bench.backend.wait_end(idle.id)).code == "idle"
    assert watch.seconds < 6
    assert await cell == "done\n"
    with Stopwatch() as watch:
        assert (await bench.backend.wait_end(busy.id)).code == "idle"
    assert watch.seconds < 6


async def test_a_persons_action_begins_the_idle_time_anew(bench: Bench) -> None:
    runtime = await bench.start(idle_limit_seconds=3.0)
    watcher = asyncio.create_task(bench.backend.wait_end(runtime.id))
    begun = time.monotonic()
    while time.monotonic() - begun < 5:
        await asyncio.sleep(0.1)
        await bench.backend.touch(runtime.id)
    assert not watcher.done()
    with Stopwatch() as watch:
        assert (await watcher).code == "idle"
    assert watch.seconds < 8


async def test_limits_can_be_changed_while_it_lives(bench: Bench) -> None:
    runtime = await bench.start()
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(BackendError) as refused:
            await bench.backend.set_limits(runtime.id, max_lifetime_seconds=bad, idle_limit_seconds=600)
        assert refused.value.code == "bad_request"
    await bench.backend.set_limits(runtime.id, max_lifetime_seconds=0.5, idle_limit_seconds=600)
    with Stopwatch() as watch:
        assert (await bench.backend.wait_end(runtime.id)).code == "max_lifetime"
    assert watch.seconds < 5


async def test_a_budget_ends_it_with_its_own_reason(bench: Bench) -> None:
    one, two = await asyncio.gather(bench.start(budget=Budget(1.0, USED_UP)), bench.start())
    assert await bench.backend.wait_end(one.id) == USED_UP
    limits = {"max_lifetime_seconds": 600.0, "idle_limit_seconds": 600.0}
    await bench.backend.set_limits(two.id, **limits, budget=Budget(0.5, USED_UP))
    assert await bench.backend.wait_end(two.id) == USED_UP
    assert leftovers(bench) == []


async def test_content_is_kept_for_who_wants_it_and_restored(bench: Bench) -> None:
    runtime = await bench.start(snapshot_bytes=1 << 20)
    await runtime.run(
        "import os; os.makedirs('data/deep'); open('data/deep/a.txt', 'w').write('kept')\n"
        "open('run.sh', 'w').write('#'); os.chmod('run.sh', 0o755); os.symlink('/etc/shadow', 'link'); os.mkfifo('pipe')"
    )
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=3.0)
    left = await bench.backend.left_behind(runtime.id)
    assert left is not None
    assert left.snapshot is not None
    with tarfile.open(left.snapshot) as tar:
        assert sorted(tar.getnames()) == ["data/deep/a.txt", "run.sh"]
    following = await bench.start()
    await following.run("open('run.sh', 'w').write('mine')")
    assert await bench.backend.restore(following.id, snapshot=left.snapshot) == 1
    assert (
        await following.run("print(open('data/deep/a.txt').read(), open('run.sh').read())") == "kept mine\n"
    )
    await bench.backend.forget(runtime.id)
    assert await bench.backend.left_behind(runtime.id) is None
    await bench.backend.stop(following.id, reason=STOPPED, grace_seconds=3.0)
    nothing = await bench.backend.left_behind(following.id)
    assert nothing is None or (nothing.snapshot, nothing.snapshot_note, nothing.executions) == (None, "", ())


async def test_the_last_outputs_and_the_reason_of_an_end_stay_until_they_are_forgotten(bench: Bench) -> None:
    runtime = await bench.start()

    def run_a_cell() -> None:
        kernel = Kernel(runtime.url, runtime.ticket())
        kernel.run("print('last words')", metadata={"cellId": "c1"})
        kernel.close()

    await asyncio.to_thread(run_a_cell)
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=PATIENCE)
    for _ in range(2):  # who asked first may have died before it wrote it down
        assert await bench.backend.wait_end(runtime.id) == STOPPED
    left = await bench.another().left_behind(runtime.id)
    assert left is not None
    assert [(e["cell_id"], e["outputs"][0]["text"]) for e in left.executions] == [("c1", "last words\n")]
    assert (left.snapshot, left.snapshot_note) == (None, "")
    await bench.backend.forget(runtime.id)
    assert await bench.backend.left_behind(runtime.id) is None
    assert (await bench.backend.wait_end(runtime.id)).code == "lost"
    assert list((bench.folder / ".ended").iterdir()) == []


@pytest.mark.parametrize(
    "planted",
    ["os.symlink('/etc/passwd', p)", "os.mkfifo(p)", "open(p, 'w').truncate(1 << 33)", "os.mkdir(p)"],
)
async def test_what_a_users_code_plants_in_the_place_of_the_last_outputs_hurts_nobody(
    bench: Bench, planted: str
) -> None:
    runtime = await bench.start()
    await runtime.run(f"import os; p = os.environ['MINICOLAB_RUNTIME_DIR'] + '/executions.json'\n{planted}")
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=0.0)
    assert await bench.backend.wait_end(runtime.id) == STOPPED
    left = await bench.backend.left_behind(runtime.id)
    assert left is not None
    assert left.executions == ()
    assert leftovers(bench) == []


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
    assert not (runtime.folder / "escaped").exists()
    assert not Path("/absolute").exists()
    with pytest.raises(BackendError) as refused:
        archive.write_bytes(b"nonsense")
        await bench.backend.restore(runtime.id, snapshot=archive)
    assert refused.value.code == "bad_snapshot"


# -- the supervisor's socket ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [b"\n", b"null\n", b"[]\n", b'{"op": 5}\n', b"{}\n", b"{" * 2000 + b"\n", b"x" * (3 << 20)]
)
async def test_nonsense_on_the_supervisors_socket_disturbs_nobody(bench: Bench, words: bytes) -> None:
    runtime = await bench.start()
    reader, writer = await wire.connect(runtime.folder)
    try:
        writer.write(words)
        await writer.drain()
        await asyncio.wait_for(reader.read(4096), 5)
    except OSError:
        pass  # it hung up on us: that is an answer too
    finally:
        writer.close()
    assert await bench.backend.observe(runtime.id) is not None


async def test_a_very_long_state_folder_is_no_obstacle(tmp_path: Path, env: RuntimeEnvironment) -> None:
    deep = tmp_path / ("long-name-" * 8) / ("another-" * 8)
    deep.mkdir(parents=True)
    async with make_bench(deep, env, "auto") as bench:
        runtime = await bench.start()
        assert await runtime.run("print(1)") == "1\n"


async def test_without_isolation_a_second_user_is_refused(tmp_path: Path, env: RuntimeEnvironment) -> None:
    from spawner.local.backend import LocalBackend

    async with make_bench(tmp_path, env, "plain") as bench:
        strict = LocalBackend(bench.folder, env.env, env.code, isolation="plain")
        await bench.start("ada")
        with pytest.raises(BackendError) as refused:
            await strict.start(bench.spec("bob"), lambda _: None)
        assert refused.value.code == "not_isolated"
        assert any("NOT ISOLATED" in phrase for phrase in strict.isolation().does_not)
