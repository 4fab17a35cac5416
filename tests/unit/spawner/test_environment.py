"""The catalogue and the environments made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawner.catalogue import CatalogueEntry, CatalogueError, CatalogueImage, load_catalogue, record_image
from spawner.environment import Progress, RuntimeEnvironment

ROOT = Path(__file__).parents[3]
LISTED = (
    "{{registry: r.example, services: [], runtimes: [{{name: x, title: X, default: true, pins: [{pin}], size_bytes: 1, "
    "install_seconds: 1, accelerators: [], image: 'x:1', image_bytes: 1, system_packages: []{more}}}]}}"
)


def entry(*pins: str) -> CatalogueEntry:
    return CatalogueEntry(
        "small", "Small", True, pins, 10, 60.0, ("NONE",), CatalogueImage("small:1", 20), ()
    )


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
        (LISTED.format(pin="numpy", more=""), "not pinned exactly: numpy"),
        (LISTED.format(pin="numpy==1", more=", digest: sha256:12"), "x: 'sha256:12' is no digest"),
    ],
)
def test_a_broken_catalogue_is_refused_by_name(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CatalogueError, match=word):
        load_catalogue(tmp_path / "c.yaml")


def test_an_image_is_asked_for_by_its_digest_once_it_has_one() -> None:
    digest = "sha256:" + "0" * 64
    assert CatalogueImage("small:1", 20).reference("r.example/team") == "r.example/team/small:1"
    assert (
        CatalogueImage("small:1", 20, digest).reference("r.example/team") == f"r.example/team/small@{digest}"
    )


def test_what_was_pushed_is_recorded_in_a_catalogue_of_the_installations_own(tmp_path: Path) -> None:
    shipped, mine = ROOT / "images" / "catalogue.yaml", tmp_path / "mine.yaml"
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    record_image(mine, shipped, "r.example/team", "minimal", one, 111)
    record_image(mine, shipped, "r.example/team", "hub", two, 222)
    found, ours = load_catalogue(mine), load_catalogue(shipped)
    minimal = found.entry("minimal")
    assert (minimal.image.digest, minimal.image.bytes) == (one, 111)
    assert minimal.pins == ours.entry("minimal").pins
    assert (found.services[0].image.digest, found.services[0].image.bytes) == (two, 222)
    assert [e.name for e in found.entries] == [e.name for e in ours.entries]
    assert (
        found.entry("default").image.reference(found.registry) == "r.example/team/minicolab-runtime:default"
    )
    record_image(mine, shipped, "r.example/team", "minimal", two, 333)
    assert load_catalogue(mine).entry("minimal").image.digest == two
    with pytest.raises(CatalogueError, match=r"its images are in r\.example/team"):
        record_image(mine, shipped, "other.example", "minimal", one, 111)


def test_a_record_brings_its_entry_up_to_date_and_leaves_the_others_alone(tmp_path: Path) -> None:
    shipped, mine = tmp_path / "shipped.yaml", tmp_path / "mine.yaml"
    shipped.write_text(LISTED.format(pin="numpy==2", more=""))
    other = LISTED.format(pin="numpy==1", more="").replace("name: x", "name: own").rpartition("]")[0]
    mine.write_text(
        LISTED.format(pin="numpy==1", more="").replace(
            "}]}", "}, " + other.partition("runtimes: [")[2] + "]}"
        )
    )
    record_image(mine, shipped, "r.example", "x", "sha256:" + "3" * 64, 5)
    assert [(e.name, e.pins) for e in load_catalogue(mine).entries] == [
        ("x", ("numpy==2",)),
        ("own", ("numpy==1",)),
    ]


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
