"""The catalogue of runtimes: exact pins, one default, and what minicolab-runtime needs among them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CATALOGUE: dict[str, Any] = yaml.safe_load((ROOT / "images" / "catalogue.yaml").read_text())
RUNTIMES: list[dict[str, Any]] = CATALOGUE["runtimes"]
REQUIRED = {"name", "title", "default", "python", "size_bytes", "install_seconds", "accelerators", "pins"} | {
    "image",
    "image_bytes",
    "system_packages",
}


def pinned(runtime: dict[str, Any]) -> dict[str, str]:
    return dict(pin.split("==") for pin in runtime["pins"])


def test_exactly_one_runtime_is_the_default_and_names_are_unique() -> None:
    assert [r["name"] for r in RUNTIMES if r["default"]] == ["default"]
    assert len({r["name"] for r in RUNTIMES}) == len(RUNTIMES)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda r: r["name"])
def test_a_runtime_is_complete_and_pins_exactly(runtime: dict[str, Any]) -> None:
    assert set(runtime) == REQUIRED  # and no digest: images of a source tree are built, not published
    assert all(
        re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z-]+\])?==[0-9][A-Za-z0-9.]*", pin) for pin in runtime["pins"]
    )
    assert len(pinned(runtime)) == len(runtime["pins"])
    assert runtime["size_bytes"] > 10**8
    assert runtime["install_seconds"] > 5
    assert runtime["accelerators"]
    assert re.fullmatch(r"minicolab-runtime:[a-z0-9-]+", runtime["image"])


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda r: r["name"])
def test_what_minicolab_runtime_needs_is_pinned_since_it_is_installed_without_dependencies(
    runtime: dict[str, Any],
) -> None:
    project = tomllib.loads((ROOT / "images" / "runtime" / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[=<>]", name)[0] for name in project["dependencies"]}
    assert needed <= set(pinned(runtime))


def test_the_default_runtime_has_what_a_colab_user_expects() -> None:
    default = pinned(RUNTIMES[0])
    assert {
        "tensorflow",
        "keras",
        "torch",
        "numpy",
        "pandas",
        "matplotlib",
        "scikit-learn",
        "ipywidgets",
    } <= set(default)
    assert default["keras"].startswith("3.")
