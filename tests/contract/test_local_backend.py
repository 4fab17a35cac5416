"""What only the local backend is asked: its sandbox, on every rung, and its supervisor's socket. The rest is in `suite`."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from spawner.environment import RuntimeEnvironment
from spawner.local.backend import LocalBackend
from spawner.model import Shape
from spawner.ports import BackendError
from spawner.supervisor import wire
from support.runtimes import SMALL
from tests.contract.contract_support import STOPPED, Bench, make_bench, supervisor

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


async def test_two_people_mount_their_own_drives(isolated: Bench, drive: Path, tmp_path: Path) -> None:
    bobs = tmp_path / "bobs"
    bobs.mkdir()
    (bobs / "bob.txt").touch()
    one, other = await asyncio.gather(isolated.start("ada"), isolated.start("bob"))
    await isolated.backend.mount(one.id, source=str(drive), target="/content/drive", readonly=False)
    await isolated.backend.mount(other.id, source=str(bobs), target="/content/drive", readonly=False)
    assert await one.run("import os; print(os.listdir('drive/MyDrive'))") == "['notes.txt']\n"
    assert await other.run("import os; print(os.listdir('drive/MyDrive'))") == "['bob.txt']\n"


# -- limits ---------------------------------------------------------------------------------------------------


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

    async with make_bench(tmp_path, env, "plain") as bench:
        strict = LocalBackend(bench.folder, env.env, env.code, isolation="plain")
        await bench.start("ada")
        with pytest.raises(BackendError) as refused:
            await strict.start(bench.spec("bob"), lambda _: None)
        assert refused.value.code == "not_isolated"
        assert any("NOT ISOLATED" in phrase for phrase in strict.isolation().does_not)
