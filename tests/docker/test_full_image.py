"""The image of the default runtime, with TensorFlow, Keras and PyTorch: every example notebook, unmodified, in a container of it.

Built and run once for every change of what it is made of; support.full_image keeps the result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub.setup.images import image_called
from spawner.model import Shape
from support import docker_engine, full_image
from support.docker_engine import Engine
from support.examples import CHECKS, Place, place_fashion_data
from tests.docker.docker_support import Bench, make_bench
from tests.docker.image_checks import check_runtime_image
from tests.unit.runtime.harness import Runtime

pytestmark = [pytest.mark.docker, pytest.mark.full_runtime, pytest.mark.slow, pytest.mark.timeout(3600)]
SHAPE = Shape("FULL", 4 << 30, 2.0, 2000)
LIFE = 3600
IMAGE = image_called(full_image.NAME)
PLAIN, RECIPE = "without root", "recipe"


@dataclass
class Measured:
    """What was measured so far; `passed` are the examples that did."""

    numbers: dict[str, Any]
    passed: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest) -> Iterator[Measured]:
    """The built image."""
    if before := full_image.passed():
        pytest.skip(
            f"the examples passed in this very image on {before['date']}; {full_image.AGAIN}=1 runs them again"
        )
    engine: Engine = request.getfixturevalue("engine")
    if engine.docker("image", "inspect", IMAGE.tag, check=False).returncode and (
        why_not := full_image.no_room()
    ):
        pytest.skip(why_not)
    began = time.monotonic()
    docker_engine.build_image(engine, full_image.NAME)
    built = round(time.monotonic() - began, 1)
    size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", IMAGE.tag).stdout)
    measured = Measured({"date": time.strftime("%Y-%m-%d"), "build_seconds": built, "image_bytes": size})
    yield measured
    if set(measured.passed) == {*CHECKS, PLAIN, RECIPE}:
        full_image.keep(measured.numbers)


@pytest.fixture
async def full(image: Measured, engine: Engine, tmp_path: Path) -> AsyncIterator[Bench]:
    """A backend whose runtimes have this image."""
    async with make_bench(tmp_path, engine, image=full_image.NAME) as bench:
        yield bench


async def place_in(bench: Bench, folder: Path, measured: Measured) -> Place:
    """Start a runtime and return where examples run."""
    began = time.monotonic()
    started = await bench.start(shape=SHAPE, max_lifetime_seconds=LIFE, idle_limit_seconds=LIFE)
    measured.numbers.setdefault("start_seconds", round(time.monotonic() - began, 2))
    drive, content = folder / "drive", bench.folder / started.id / "content"
    drive.mkdir()
    runtime = Runtime(content.parent, None, started.url, lambda: started.ticket(LIFE))

    async def consent(request: dict[str, Any]) -> None:
        target = request["content"]["request"]["mountpoint"]
        if request["metadata"]["colab_request_type"] == "request_auth":
            await bench.backend.mount(started.id, source=str(drive), target=target, readonly=False)
        else:
            await bench.backend.unmount(started.id, target=target)

    return Place(runtime, content, consent, drive)


def put_fashion_data(bench: Bench, engine: Engine, folder: Path) -> None:
    """Put the data where Keras looks for it before it downloads."""
    [container], datasets = bench.containers(), "/root/.keras/datasets"
    place_fashion_data(folder / "fashion-mnist")
    engine.docker("exec", container, "mkdir", "-p", datasets)
    engine.docker("cp", str(folder / "fashion-mnist"), f"{container}:{datasets}/fashion-mnist")


@pytest.mark.parametrize("slug", CHECKS)
async def test_an_example_runs_top_to_bottom_in_the_full_image(
    full: Bench, engine: Engine, image: Measured, tmp_path: Path, slug: str
) -> None:
    place = await place_in(full, tmp_path, image)
    if slug == "fashion_mnist":
        put_fashion_data(full, engine, tmp_path)
    began = time.monotonic()
    await asyncio.wait_for(CHECKS[slug](place), LIFE)
    image.numbers[f"{slug}_seconds"] = round(time.monotonic() - began, 1)
    image.passed.append(slug)


async def test_python_packages_are_installed_without_root_too(
    image: Measured, engine: Engine, tmp_path: Path
) -> None:
    async with make_bench(tmp_path, engine, root=False, image=full_image.NAME) as plain:
        place = await place_in(plain, tmp_path, image)
        await CHECKS["importing_libraries"](place)
    image.passed.append(PLAIN)


def test_the_full_image_is_what_its_recipe_promises(image: Measured, engine: Engine) -> None:
    check_runtime_image(engine, IMAGE)
    image.passed.append(RECIPE)
