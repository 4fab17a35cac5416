"""The images for GPUs and TPUs: built, and their frameworks at work in a runtime of each, as far as that goes without the hardware.

They are 30 GB of downloads in all, so they have an engine whose layers nobody else keeps, and are left out of CI (marker `scale`). What a
machine without a driver can tell is: the pins install together, every module of the CUDA set is found and loads, the framework was built
for the accelerator and computes on the CPU, and the sizes in the catalogue are about right.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.setup.images import image_called
from spawner.model import Shape
from support import docker_engine, full_image
from support.docker_engine import Engine, Site
from tests.docker.docker_support import make_bench
from tests.docker.image_checks import check_runtime_image

pytestmark = [pytest.mark.docker, pytest.mark.scale, pytest.mark.timeout(3600)]
SITE = Site("mc-images", 244)
SHAPE = Shape("FULL", 4 << 30, 2.0, 2000)
LIFE, CELL_SECONDS = 3600, 600.0

# Loads what a framework would load once there is a driver. Parts that link to the driver itself (libcuda) are left out.
CUDA_LIBRARIES = """
import ctypes, pathlib, sysconfig
folders = sorted((pathlib.Path(sysconfig.get_path("purelib")) / "nvidia").glob("**/lib"))
def load(stem):
    found = [path for folder in folders for path in folder.glob(f"lib{stem}.so*")]
    assert found, f"no lib{stem}"
    ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
for stem in ("nvJitLink", "cudart", "cublasLt", "cublas", "cufft", "curand", "cusparse", "cusolver", "cudnn", "nccl"):
    load(stem)
"""
KERAS = """
import numpy, keras
model = keras.Sequential([keras.layers.Dense(1)])
model.compile(optimizer="sgd", loss="mse")
losses = model.fit(numpy.arange(8.0)[:, None] / 8, numpy.arange(8.0) / 4, epochs=20, verbose=0).history["loss"]
out["learns"] = losses[-1] < losses[0]
"""
TENSORFLOW = """
import tensorflow as tf
out["version"], out["sum"] = tf.__version__, float(tf.reduce_sum(tf.ones((3, 4))))
out["accelerators"] = len(tf.config.list_physical_devices("GPU") + tf.config.list_physical_devices("TPU"))
"""
TORCH = """
import torch
out["version"], out["sum"] = torch.__version__, float(torch.ones(3, 4).sum())
out["accelerators"] = torch.cuda.device_count()
"""
FOUND_LIBTPU = """
import ctypes, libtpu
ctypes.CDLL(libtpu.get_library_path())
out["libtpu"] = True
"""
# What runs in the image, and what it finds besides a right sum.
CHECKS = {
    "gpu-tensorflow": (
        CUDA_LIBRARIES + TENSORFLOW + KERAS + 'out["built"] = tf.test.is_built_with_cuda()',
        {"version": "2.21.0", "accelerators": 0, "learns": True, "built": True},
    ),
    "gpu-pytorch": (
        CUDA_LIBRARIES + TORCH + 'out["built"] = torch.version.cuda is not None and torch.backends.cudnn.is_available()',
        {"version": "2.13.0+cu130", "accelerators": 0, "built": True},
    ),
    "tpu": (
        "import os\nos.environ.update(JAX_PLATFORMS='cpu', KERAS_BACKEND='jax')\n"
        "import jax, jax.numpy as jnp\n"
        "out['version'], out['sum'] = jax.__version__, float(jax.jit(jnp.sum)(jnp.ones((3, 4))))\n" + KERAS + FOUND_LIBTPU,
        {"version": "0.10.2", "learns": True, "libtpu": True},
    ),
    "tpu-tensorflow": (  # without the variable it asks the cloud for minutes what kind of TPU there is
        "import os\nos.environ['TPU_SKIP_MDS_QUERY'] = '1'\n"
        + TENSORFLOW
        + KERAS.replace('"mse"', '"mse", jit_compile=False')  # it compiles for TPUs alone
        + FOUND_LIBTPU,
        {"version": "2.20.0", "accelerators": 0, "learns": True, "libtpu": True},
    ),
    "tpu-pytorch": (
        "import os\nos.environ['PJRT_DEVICE'] = 'CPU'\n" + TORCH + FOUND_LIBTPU + "import torch_xla\n"
        "out['sum'] = float(torch.ones(3, 4, device=torch_xla.device()).sum())",
        {"accelerators": 0, "libtpu": True},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if why_not := docker_engine.missing():
        pytest.skip(why_not)
    with docker_engine.engine(SITE) as running:
        yield running


@pytest.mark.parametrize("name", CHECKS)
async def test_an_image_for_accelerators_is_built_and_its_framework_works(
    engine: Engine, tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    image = image_called(name)
    if why_not := full_image.no_room():
        pytest.skip(why_not)
    began = time.monotonic()
    docker_engine.build_image(engine, name)
    record_property("build_seconds", round(time.monotonic() - began, 1))
    try:
        check_runtime_image(engine, image)
        size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", image.tag).stdout)
        record_property("image_bytes", size)
        async with make_bench(tmp_path, engine, image=name) as bench:
            runtime = await bench.start(shape=SHAPE, max_lifetime_seconds=LIFE, idle_limit_seconds=LIFE)
            code, wanted = CHECKS[name]
            said = await runtime.run(
                f"import json\nout = {{}}\n{code}\nprint(json.dumps(out))", timeout=CELL_SECONDS
            )
        assert said.splitlines()[-1].startswith("{"), said
        found = json.loads(said.splitlines()[-1])
        assert found["sum"] == 12.0
        assert wanted.items() <= found.items()
        assert size == pytest.approx(image.size_bytes, rel=0.2)
    finally:
        engine.docker("image", "rm", "--force", image.tag, check=False)
        engine.docker("image", "prune", "--force", check=False)
