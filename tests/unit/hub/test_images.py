"""What images are built from."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hub.__main__ import parser
from hub.cli import images as command
from hub.settings import RuntimeSettings, Settings, load_settings
from hub.setup.images import (
    HUB,
    IMAGES,
    Image,
    constraints_of,
    context,
    hub_requirements,
    image_called,
    known_images,
    labels,
    pins_of,
    version,
)
from hub.setup.runtime_environment import CATALOGUE
from hub.setup.steps import SetupError
from hub.wiring import runtime_image
from spawner.catalogue import record_image

DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))


def test_every_runtime_of_the_catalogue_and_the_services_have_an_image() -> None:
    names = [image.name for image in known_images("registry.example/x")]
    assert names[0] == HUB
    assert {"default", "minimal"} <= set(names)
    assert image_called("minimal", "registry.example/x").tag == "registry.example/x/minicolab-runtime:minimal"
    with pytest.raises(SetupError, match="known: hub"):
        image_called("no-such")


def test_labels_name_the_version_the_pins_and_the_bill_of_materials() -> None:
    image = image_called("minimal")
    found = labels(image)
    assert found["org.opencontainers.image.version"] == version()
    assert image.entry is not None
    assert found["minicolab.dev/pins"] == pins_of(image.entry)
    assert labels(image_called(HUB))["minicolab.dev/programs"].endswith("drive-plugin")
    assert found["minicolab.dev/accelerators"] == "NONE"
    assert found["minicolab.dev/sbom"].endswith(".cdx.json")


def test_a_runtimes_context_holds_its_pins_and_a_supervisor_and_is_gone_afterwards() -> None:
    with context(image_called("minimal")) as folder:
        pins = (folder / "pins.txt").read_text().splitlines()
        assert all("==" in pin for pin in pins)
        assert (folder / "supervisor" / "spawner" / "container" / "supervisor.py").is_file()
        assert (folder / "runtime" / "pyproject.toml").is_file()
        assert not list(folder.rglob("__pycache__"))
    assert not folder.exists()


@pytest.mark.parametrize("image", known_images()[1:], ids=lambda i: i.name)
def test_an_image_has_the_exact_version_of_everything_in_it(image: Image) -> None:
    assert image.entry is not None
    lines = constraints_of(image.entry).read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9.-]+==[^\s;]+", line) for line in lines)
    versions = dict(line.split("==") for line in lines)
    for pin in image.entry.pins:
        requirement = Requirement(pin)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), pin
    assert len(versions) > 2 * len(image.entry.pins)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.parent.name)
def test_a_dockerfile_is_legal_for_every_builder_and_names_no_index(path: Path) -> None:
    text = path.read_text()
    assert "--mount" not in text and "# syntax" not in text
    assert not re.search(r"https?://|--index-url|--extra-index-url|--trusted-host", text)
    assert "ARG BASE_IMAGE=" in text
    last_user = re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1]
    assert last_user == "1000:1000"


def test_everything_the_services_need_has_an_exact_version_that_fits() -> None:
    lines = (IMAGES / "hub" / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for text in hub_requirements():
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        assert name in pins, f"{name}: add its version to images/hub/constraints.txt"
        assert requirement.specifier.contains(pins[name]), text


def test_the_example_of_a_machine_with_docker_can_be_used() -> None:
    settings = load_settings(IMAGES.parent / "examples" / "docker" / "minicolab.yaml")
    assert settings.runtimes.backend == "docker"


def test_digests_need_a_registry_to_be_in(capsys: pytest.CaptureFixture[str]) -> None:
    for words, why in (
        (["--record", "x.yaml"], "--record needs --push"),
        (["--push"], "--push needs --prefix"),
    ):
        arguments = parser().parse_args(["images", "build", "minimal", *words])
        with pytest.raises(SystemExit) as ended:
            arguments.run(arguments)
        assert ended.value.code == 2
        assert why in capsys.readouterr().err


def test_a_catalogue_with_digests_becomes_values_of_the_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, one, two = tmp_path / "mine.yaml", "sha256:" + "1" * 64, "sha256:" + "2" * 64
    record_image(mine, CATALOGUE, "r.example/team", "minimal", one, 1)
    record_image(mine, CATALOGUE, "r.example/team", HUB, two, 1)
    arguments = parser().parse_args(["images", "values", str(mine), "--environment", "minimal"])
    assert arguments.run(arguments) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    schema = json.loads((IMAGES.parent / "helm" / "minicolab" / "values.schema.json").read_text())
    known = {name: schema["properties"][name] for name in values}
    jsonschema.validate(
        values, {"$defs": schema["$defs"], "properties": known, "additionalProperties": False}
    )
    assert values["config"]["runtimes"]["kubernetes"]["image"] == f"r.example/team/minicolab-runtime@{one}"
    assert values["images"]["hub"] == {"repository": "r.example/team/minicolab-hub", "digest": two}


def test_the_settings_name_the_catalogue_that_says_which_image_runs(tmp_path: Path) -> None:
    mine, one = tmp_path / "mine.yaml", "sha256:" + "1" * 64
    record_image(mine, CATALOGUE, "r.example/team", "minimal", one, 1)
    for given, image in (
        ({}, "docker.io/local/minicolab-runtime:minimal"),
        ({"catalogue": mine}, f"r.example/team/minicolab-runtime@{one}"),
    ):
        runtimes = RuntimeSettings.model_validate({"environment": "minimal", **given})
        assert runtime_image(Settings(runtimes=runtimes)) == image
    runtimes = RuntimeSettings(catalogue=tmp_path / "none.yaml")
    with pytest.raises(SetupError, match=r"runtimes\.catalogue: "):
        runtime_image(Settings(runtimes=runtimes))


def test_a_catalogue_is_named_by_its_whole_path() -> None:
    with pytest.raises(ValueError, match="catalogue must be a whole path"):
        RuntimeSettings(catalogue=Path("catalogue.yaml"))


def test_the_list_says_so_when_no_engine_answers(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = argparse.Namespace(docker="unix:///nonexistent/docker.sock", prefix="p", json=True)
    assert command._list(arguments) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert {item["built"] for item in items} == {None}
