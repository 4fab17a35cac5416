"""An image that was pushed is had by its digest: what somebody does to its tag later changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hub.settings import RuntimeSettings, Settings
from hub.setup.images import image_called
from hub.wiring import runtime_image
from spawner.catalogue import load_catalogue
from spawner.ports import BackendError
from support import docker_engine
from support.docker_engine import Engine
from support.service import run_command
from tests.docker.docker_support import STOPPED, Bench
from tests.docker.registry import NOISE, Registry, registry

pytestmark = pytest.mark.docker


@dataclass(frozen=True)
class Published:
    """The minimal runtime in a registry. `catalogue` is what was recorded of it, `id` the image's own."""

    registry: Registry
    catalogue: Path
    image: str
    tag: str
    id: str


@pytest.fixture(scope="module")
def published(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """Build, push and record, as an administrator would; then take the image's names from the engine."""
    with registry(engine.machine_address) as served:
        served.go_on.set()
        catalogue = tmp_path_factory.mktemp("published") / "catalogue.yaml"
        team = f"{served.address}/team"
        base = docker_engine.base_image(engine)
        command = ("images", "build", "minimal", "--push", "--prefix", team, "--record", str(catalogue))
        run_command(*command, "--base-image", base, "--docker", engine.url)
        tag = image_called("minimal", team).tag
        identity = engine.docker("image", "inspect", "--format", "{{.Id}}", tag).stdout.strip()
        runtimes = RuntimeSettings(environment="minimal", catalogue=catalogue)
        image = runtime_image(Settings(runtimes=runtimes))
        for name in (tag, image):
            engine.docker("image", "rm", name, check=False)
        yield Published(served, catalogue, image, tag, identity)
        for name in (image, tag, served.image):
            engine.docker("image", "rm", name, check=False)


def test_what_was_pushed_is_recorded_with_its_digest_and_size(published: Published, engine: Engine) -> None:
    entry = load_catalogue(published.catalogue).entry("minimal")
    assert entry.image.digest == published.registry.tags["team/minicolab-runtime:minimal"]
    assert published.image == f"{published.registry.address}/team/minicolab-runtime@{entry.image.digest}"
    size = engine.docker("image", "inspect", "--format", "{{.Size}}", published.id).stdout
    assert entry.image.bytes == int(size)


async def test_another_image_under_the_same_tag_does_not_change_what_runs(
    published: Published, bench: Bench
) -> None:
    name = "team/minicolab-runtime:minimal"
    ours, strangers = published.registry.tags[name], published.registry.tags[NOISE]
    published.registry.tags[name] = strangers
    try:
        backend = bench.another(pull=True, image=published.image)
        spec = bench.spec()
        await backend.start(spec, lambda phase, sentence="": None)
        found = json.loads(bench.engine.docker("inspect", bench.container(spec)).stdout)[0]
        assert found["Image"] == published.id
        await backend.stop(spec.id, reason=STOPPED, grace_seconds=0.0)
        by_tag = bench.another(pull=True, image=published.tag)
        with pytest.raises(BackendError):  # what the tag means now is no runtime
            await by_tag.start(bench.spec(), lambda phase, sentence="": None)
    finally:
        published.registry.tags[name] = ours


async def test_a_digest_that_the_registry_does_not_have_is_no_other_image(
    published: Published, bench: Bench
) -> None:
    missing = published.image.partition("@")[0] + "@sha256:" + "0" * 64
    with pytest.raises(BackendError, match="can not be had") as refused:
        await bench.another(pull=True, image=missing).start(bench.spec(), lambda phase, sentence="": None)
    assert refused.value.code == "image_unavailable"
