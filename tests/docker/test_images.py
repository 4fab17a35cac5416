"""Built images are what their recipes promise, and the same recipe gives the same packages."""

from __future__ import annotations

import docker
import pytest

from hub.setup.images import build, image_called
from support import docker_engine
from support.docker_engine import Engine
from tests.docker.image_checks import check_runtime_image, components, look_into

pytestmark = pytest.mark.docker
MINIMAL = image_called("minimal")


def test_the_minimal_image_is_compiled_labelled_without_root_and_lists_what_is_in_it(engine: Engine) -> None:
    found = check_runtime_image(engine, MINIMAL)
    debian = components(found["written"], "deb")
    assert {"python3", "ca-certificates", "dpkg"} <= set(debian)


@pytest.mark.slow
def test_two_builds_of_the_same_pins_give_the_same_packages(engine: Engine) -> None:
    """The second is made from nothing; Debian may have renewed a package since the first, the pins hold all others."""
    again = image_called("minimal", "docker.io/local/again")
    client = docker.DockerClient(base_url=engine.url, timeout=3600)
    try:
        build(client, again, docker_engine.base_image(engine), lambda line: None, fresh=True)
        assert client.images.get(again.tag).id != client.images.get(MINIMAL.tag).id
        first, second = (look_into(engine, image.tag)["written"] for image in (MINIMAL, again))
    finally:
        engine.docker("image", "rm", again.tag, check=False)
        client.images.prune({"dangling": True})
        client.close()
    assert components(first, "pypi") == components(second, "pypi")
    assert set(components(first, "deb")) == set(components(second, "deb"))
    if components(first, "deb") == components(second, "deb"):
        assert first == second
