"""`drive.mount` on a cluster, all of it: backend, supervisor in the pod, drive plugin on the node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.drive_node import ADA, BOB, DriveNode
from cluster.harness.cluster import Cluster
from spawner.kubernetes.volumes import DRIVER
from spawner.ports import BackendError
from support.patience import until_async
from tests.cluster.kubernetes_support import STOPPED, Bench, have_runtime_image, make_bench

pytestmark = pytest.mark.cluster

READ = "print(open('/content/drive/MyDrive/deep/er/file').read(), open('/content/drive/My Drive/deep/er/file').read())"
WRITE = """
try:
    open('/content/drive/MyDrive/new', 'w').write('from a cell')
    print('written')
except OSError as error:
    print(error.strerror)
"""


@pytest_asyncio.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    have_runtime_image(cluster)
    async with make_bench(cluster, drives="csi") as bench:
        yield bench


async def test_a_drive_is_mounted_in_a_running_runtime_read_only_and_writable_and_taken_away(
    bench: Bench, tmp_path: Path
) -> None:
    node = DriveNode(
        bench.cluster, bench.namespace, tmp_path, driver=DRIVER, installation=bench.installation.name
    )
    node.start()
    try:
        runtime = await bench.start()
        assert await runtime.run("import os; print(os.listdir('/drives'))") == "[]\n"

        async def mount(source: Path, *, readonly: bool = False) -> None:
            await bench.backend.mount(
                runtime.id, source=str(source), target="/content/drive", readonly=readonly
            )

        await mount(node.root / "drive" / ADA)
        assert await runtime.run(READ) == f"of {ADA} of {ADA}\n"
        assert await runtime.run(WRITE) == "written\n"
        assert (node.root / "drive" / ADA / "new").read_text() == "from a cell"

        await mount(node.root / "drive" / ADA, readonly=True)
        assert await runtime.run(WRITE) == "Read-only file system\n"
        assert await runtime.run(READ) == f"of {ADA} of {ADA}\n"

        assert [(m.target, m.readonly) for m in await bench.backend.mounts(runtime.id)] == [
            ("/content/drive", True)
        ]
        await bench.backend.unmount(runtime.id, target="/content/drive")
        assert await bench.backend.mounts(runtime.id) == []
        with pytest.raises(BackendError) as refused:
            await bench.backend.unmount(runtime.id, target="/content/drive")
        assert refused.value.code == "not_mounted"
        await until_async(lambda: len(node.mounts()) == 1, "the drive stayed on the node")

        await mount(node.root / "drive" / BOB)
        await runtime.run("import shutil; shutil.rmtree('/content', ignore_errors=True)")
        await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
        node.wait_gone()
        node.assert_no_file_lost()
    finally:
        for runtime_id in bench.started:
            await bench.backend.stop(runtime_id, reason=STOPPED, grace_seconds=0.0)
        node.wait_gone()
        node.remove()
