"""The catalogue and the environments made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawner.catalogue import CatalogueEntry, CatalogueError, load_catalogue
from spawner.environment import Progress, RuntimeEnvironment

ROOT = Path(__file__).parents[3]


def entry(*pins: str) -> CatalogueEntry:
    return CatalogueEntry("small", "Small", True, pins, 10, 60.0, ("NONE",), "small:1", 20, ())


def test_the_catalogue_we_ship_is_whole_and_has_one_default() -> None:
    entries = load_catalogue(ROOT / "images" / "catalogue.yaml").entries
    assert [e.name for e in entries if e.default] == ["default"]
    for name in (
        "tensorflow",
        "keras",
        "torch",
        "numpy",
        "pandas",
        "matplotlib",
        "scikit-learn",
        "ipykernel",
    ):
        assert any(pin.startswith(f"{name}==") for pin in entries[0].pins), name


def test_other_pins_are_another_environment() -> None:
    assert entry("a==1").key != entry("a==2").key
    assert entry("a==1").key == entry("a==1").key


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "can not be read"),
        ("runtimes: [", "can not be read"),
        ("runtimes: [{name: x}]", "can not be read"),
        (
            "runtimes: [{name: x, title: X, default: true, pins: [numpy], size_bytes: 1, install_seconds: 1, accelerators: [], "
            "image: 'x:1', image_bytes: 1, system_packages: []}]",
            "not pinned exactly: numpy",
        ),
    ],
)
def test_a_broken_catalogue_is_refused_by_name(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CatalogueError, match=word):
        load_catalogue(tmp_path / "c.yaml")


def test_an_environment_tells_how_far_it_is(tmp_path: Path) -> None:
    environment = RuntimeEnvironment(tmp_path, entry("a==1"), "abc")
    assert environment.status().state == "missing"
    installing = Progress("installing", "Downloading a: 40 %", 0.4, 12.0)
    environment.write_progress(installing)
    assert environment.status() == installing
    (environment.folder / "progress.json").write_text('{"state": "instal')
    assert environment.status().state == "missing"
    environment.mark_pins_complete()
    assert environment.status().state != "complete"  # the pins alone can not run a notebook
    environment.code.mkdir(parents=True)
    assert environment.status().state == "complete"
