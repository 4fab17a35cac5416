"""Backend, supervisor and drive plugin together: a drive appears in a running runtime after consent, and goes when it is revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.drive_node import ADA, DriveNode
from cluster.harness.cluster import Cluster
from spawner.model import MountPoint
from spawner.ports import BackendError
from support.patience import until_async
from tests.cluster.kubernetes_support import STOPPED, Bench, have_runtime_image, make_bench

pytestmark = pytest.mark.cluster

TARGET = "/content/drive"
READ = f"print(open('{TARGET}/MyDrive/deep/er/file').read())"


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    if cluster.layout is None:
        pytest.skip("the node of the cluster that MINICOLAB_KUBECONFIG names is not ours")
    have_runtime_image(cluster)
    async with make_bench(cluster, drives="csi") as bench:
        yield bench


@pytest.fixture
def node(bench: Bench, tmp_path: Path) -> DriveNode:
    return DriveNode(bench.cluster, bench.namespace, tmp_path, installation=bench.installation.name)


async def test_a_drive_comes_into_a_running_runtime_and_goes_again(bench: Bench, node: DriveNode) -> None:
    node.start()
    try:
        bench.backend = bench.another(drive_driver=node.driver)
        bench.installation = replace(bench.installation, drive_driver=node.driver)
        runtime = await bench.start()
        assert await runtime.run("import os; print(os.listdir('/drives'))") == "[]\n"
        source = str(node.root / "drive" / ADA)
        await bench.backend.mount(runtime.id, source=source, target=TARGET, readonly=False)
        assert await runtime.run(READ) == f"of {ADA}\n"
        assert await bench.backend.mounts(runtime.id) == [MountPoint(TARGET, False)]
        await runtime.run(f"open('{TARGET}/My Drive/new', 'w').write('from the cell')")
        assert (node.root / "drive" / ADA / "new").read_text() == "from the cell"
        (node.root / "drive" / ADA / "new").unlink()

        await bench.backend.mount(runtime.id, source=source, target=TARGET, readonly=True)
        assert await bench.backend.mounts(runtime.id) == [MountPoint(TARGET, True)]
        write = f"try:\n    open('{TARGET}/MyDrive/new', 'w')\nexcept OSError as e:\n    print(e.errno)"
        assert await runtime.run(write) == "30\n"

        await bench.backend.unmount(runtime.id, target=TARGET)
        assert await bench.backend.mounts(runtime.id) == []
        await until_async(lambda: not any(ADA in m.root for m in node.mounts()), "the drive is still bound")
        with pytest.raises(BackendError) as unknown:
            await bench.backend.mount(runtime.id, source="/x/drive/..", target=TARGET, readonly=False)
        assert unknown.value.code == "no_such_drive"

        await bench.backend.mount(runtime.id, source=source, target=TARGET, readonly=False)
        await bench.backend.stop(runtime.id, reason=STOPPED, grace_seconds=1.0)
        node.wait_gone()
        node.assert_no_file_lost()
    finally:
        node.stop()
        node.remove()
