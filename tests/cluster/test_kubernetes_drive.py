"""Drives in runtimes on a cluster, all of it: backend, supervisor in the pod, drive plugin on the node; and without the plugin."""

from __future__ import annotations

import fcntl
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.drive_node import ADA, BOB, DriveNode
from cluster.harness.cluster import Cluster
from spawner.kubernetes import pods
from spawner.kubernetes.volumes import name_at_start
from spawner.model import DriveAtStart, MountPoint
from spawner.ports import BackendError
from support.patience import until_async
from tests.cluster.kubernetes_support import STOPPED, Bench, Runtime, have_runtime_image, make_bench

pytestmark = pytest.mark.cluster

TARGET = "/content/drive"
READ = "print(open('/content/drive/MyDrive/deep/er/file').read(), open('/content/drive/My Drive/deep/er/file').read())"
WRITE = """
try:
    open('/content/drive/MyDrive/new', 'w').write('from a cell')
    print('written')
except OSError as error:
    print(error.strerror)
"""
NAMES = ("Grüße.txt", "Gru\u0308ße.txt", "数据 📈.csv", " leading", "tab\there", "x" * 255, "-rf", "a'b\"c")
POSIX = f"""
import errno, fcntl, mmap, os, sqlite3, tempfile
top = '/content/drive/MyDrive/posix'
os.mkdir(top); os.chdir(top)
for name in {NAMES!r}:
    open(name, 'w').write(name)
assert set({NAMES!r}) <= set(os.listdir('.'))
try:
    open('y' * 256, 'w'); raise SystemExit('a name too long was taken')
except OSError as error:
    assert error.errno == errno.ENAMETOOLONG
with tempfile.NamedTemporaryFile('w', dir='.', delete=False) as draft:
    draft.write('whole'); draft.flush(); os.fsync(draft.fileno())
open('result', 'w').write('old')
os.replace(draft.name, 'result')
folder = os.open('.', os.O_RDONLY); os.fsync(folder); os.close(folder)
assert open('result').read() == 'whole'
os.symlink('result', 'soft'); os.link('result', 'hard')
assert open('soft').read() == 'whole' and os.stat('hard').st_nlink == 2
with open('mapped', 'wb+') as file:
    file.truncate(4096)
    with mmap.mmap(file.fileno(), 4096) as seen:
        seen[:5] = b'hello'; seen.flush()
assert open('mapped', 'rb').read(5) == b'hello'
with open('hole', 'wb') as file:
    file.truncate(1 << 30)
os.chmod('result', 0o640); assert os.stat('result').st_mode & 0o777 == 0o640
os.utime('result', (1, 2)); assert os.stat('result').st_mtime == 2
assert (os.stat('result').st_uid, os.getuid()) == (1000, 1000)
for number in range(500):
    os.makedirs('many', exist_ok=True); open(f'many/{{number}}', 'w').write(str(number))
db = sqlite3.connect('data.sqlite'); db.execute('create table t(x)'); db.execute('insert into t values (1)'); db.commit()
assert sqlite3.connect('data.sqlite').execute('select x from t').fetchall() == [(1,)]
for lock in (fcntl.flock, fcntl.lockf):
    with open('locked', 'w') as file:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print('all of it')
"""
TRY_LOCK = """
import fcntl
with open('/content/drive/MyDrive/posix/locked', 'rb+') as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print('it is mine')
    except BlockingIOError:
        print('somebody else has it')
"""
WHAT_IS_THERE = "import os; print(sorted(os.listdir('/drives')), os.path.exists('/content/drive'))"
NOTHING = "[] False\n"
RW, RO = name_at_start(readonly=False), name_at_start(readonly=True)


@pytest_asyncio.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    have_runtime_image(cluster)
    async with make_bench(cluster) as bench:
        yield bench


@pytest_asyncio.fixture
async def node(bench: Bench, tmp_path: Path) -> AsyncIterator[DriveNode]:
    """The drives; no plugin runs yet. Afterwards nothing may be left and no file lost."""
    node = DriveNode(bench.cluster, bench.namespace, tmp_path, installation=bench.installation.name)
    try:
        yield node
        for runtime_id in bench.started:
            await bench.backend.stop(runtime_id, reason=STOPPED, grace_seconds=0.0)
        node.wait_gone()
        node.assert_no_file_lost()
    finally:
        node.remove()


@pytest.fixture
def by_plugin(bench: Bench, node: DriveNode) -> Bench:
    node.start()
    bench.settle(drives="csi", drive_driver=node.driver)
    return bench


@pytest.fixture
def by_sub_path(bench: Bench, node: DriveNode) -> Bench:
    bench.settle(drives="subpath", drive_claim=node.claim())
    return bench


async def mount(
    bench: Bench, runtime: Runtime, node: DriveNode, owner: str = ADA, *, readonly: bool = False
) -> None:
    source = str(node.root / "drive" / owner)
    await bench.backend.mount(runtime.id, source=source, target=TARGET, readonly=readonly)


def test_a_namespace_that_enforces_the_restricted_standard_takes_pods_with_drives(
    by_plugin: Bench, node: DriveNode
) -> None:
    agreed = DriveAtStart(ADA, readonly=False)
    for settings in ({}, {"drives": "subpath", "drive_claim": node.claim()}):
        by_plugin.settle(**settings)
        pod = pods.pod(by_plugin.spec(drive=agreed), by_plugin.installation, start="s")
        given = json.dumps(pod)
        by_plugin.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=given)


async def test_a_drive_is_mounted_in_a_running_runtime_read_only_and_writable_and_taken_away(
    by_plugin: Bench, node: DriveNode
) -> None:
    runtime = await by_plugin.start()
    assert await runtime.run(WHAT_IS_THERE) == NOTHING

    await mount(by_plugin, runtime, node)
    assert await runtime.run(READ) == f"of {ADA} of {ADA}\n"
    assert await runtime.run(WRITE) == "written\n"
    assert (node.root / "drive" / ADA / "new").read_text() == "from a cell"

    await mount(by_plugin, runtime, node, readonly=True)
    assert await by_plugin.backend.mounts(runtime.id) == [MountPoint(TARGET, True)]
    assert await runtime.run(WRITE) == "Read-only file system\n"
    assert await runtime.run(READ) == f"of {ADA} of {ADA}\n"

    await by_plugin.backend.unmount(runtime.id, target=TARGET)
    assert await by_plugin.backend.mounts(runtime.id) == []
    with pytest.raises(BackendError) as refused:
        await by_plugin.backend.unmount(runtime.id, target=TARGET)
    assert refused.value.code == "not_mounted"
    await until_async(lambda: len(node.mounts()) == 1, "the drive stayed on the node")
    with pytest.raises(BackendError) as unknown:
        await by_plugin.backend.mount(runtime.id, source="/x/drive/..", target=TARGET, readonly=False)
    assert unknown.value.code == "no_such_drive"

    await mount(by_plugin, runtime, node, BOB)
    await runtime.run("import shutil; shutil.rmtree('/content', ignore_errors=True)")
    await by_plugin.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)


async def test_a_notebook_finds_a_posix_file_system_in_its_drive(by_plugin: Bench, node: DriveNode) -> None:
    """What libraries rely on: atomic replace, fsync of files and folders, locks, links, maps, holes, every name, and whose a file is."""
    runtime = await by_plugin.start()
    await mount(by_plugin, runtime, node)
    assert await runtime.run(POSIX) == "all of it\n"
    there = node.root / "drive" / ADA / "posix"
    names = {path.name for path in there.iterdir()}
    assert {*NAMES} <= names
    assert {path.lstat().st_uid for path in there.rglob("*")} == {1000}
    assert (there / "hole").stat().st_size == 1 << 30
    assert (there / "hole").stat().st_blocks < 1000
    assert len(list((there / "many").iterdir())) == 500
    with (there / "locked").open("rb+") as outside:  # a lock from the page's side holds inside
        fcntl.lockf(outside, fcntl.LOCK_EX)
        assert await runtime.run(TRY_LOCK) == "somebody else has it\n"
        fcntl.lockf(outside, fcntl.LOCK_UN)
    assert await runtime.run(TRY_LOCK) == "it is mine\n"


async def test_without_a_plugin_nothing_is_there_before_consent_and_the_drive_from_the_start_after_it(
    by_sub_path: Bench, node: DriveNode
) -> None:
    bench = by_sub_path
    runtime = await bench.start()
    assert await runtime.run(WHAT_IS_THERE) == NOTHING
    assert str(node.root) not in await runtime.run("print(open('/proc/self/mountinfo').read())")
    with pytest.raises(BackendError) as refused:
        await mount(bench, runtime, node)
    assert refused.value.code == "restart_needed"
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)

    runtime = await bench.start(drive=DriveAtStart(ADA, readonly=False))
    with pytest.raises(BackendError) as another:
        await mount(bench, runtime, node, BOB)
    assert another.value.code == "restart_needed"
    await mount(bench, runtime, node)
    assert await runtime.run(READ) == f"of {ADA} of {ADA}\n"
    assert await runtime.run(WRITE) == "written\n"
    assert (node.root / "drive" / ADA / "new").stat().st_uid == 1000
    assert await runtime.run(WHAT_IS_THERE) == f"{sorted([RW, RO])} True\n"
    assert BOB not in await runtime.run(f"import os; print(os.listdir('/drives/{RW}/..'))")
    await mount(bench, runtime, node, readonly=True)
    assert await runtime.run(WRITE) == "Read-only file system\n"
    await bench.backend.unmount(runtime.id, target=TARGET)
    assert await runtime.run("import os; print(os.path.exists('/content/drive/MyDrive'))") == "False\n"
    await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
    node.assert_no_file_lost()

    runtime = await bench.start(drive=DriveAtStart(ADA, readonly=True))
    await mount(bench, runtime, node, readonly=True)
    assert await runtime.run(WRITE) == "Read-only file system\n"
    with pytest.raises(BackendError) as read_only:
        await mount(bench, runtime, node)
    assert read_only.value.code == "restart_needed"
