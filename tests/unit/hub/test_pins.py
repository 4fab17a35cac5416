"""Whether pins can be had is asked of the index; here that is a folder of made-up packages."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from hub.setup.pins import check_pins
from hub.setup.steps import SetupError


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder pip takes packages from, and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    _wheel(tmp_path, "madeup_top", "1", needs="madeup-below", tag="cp311-cp311-manylinux_2_28_x86_64")
    _wheel(tmp_path, "madeup_below", "1")
    _wheel(tmp_path, "madeup_below", "2")
    _wheel(tmp_path, "madeup_later", "1", tag="cp311-cp311-manylinux_2_41_x86_64")
    return tmp_path


def _wheel(folder: Path, name: str, version: str, *, needs: str = "", tag: str = "py3-none-any") -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        requires = f"Requires-Dist: {needs}\n" if needs else ""
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


def _constraints(folder: Path, *lines: str) -> Path:
    path = folder / "constraints.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_pins_that_can_be_had_as_written_are_good(index: Path) -> None:
    assert check_pins(["madeup_top==1"], _constraints(index, "madeup-top==1", "madeup-below==1")) == []


def test_what_a_pin_brings_without_an_exact_version_is_named(index: Path) -> None:
    [problem] = check_pins(["madeup_top==1"], _constraints(index, "madeup-top==1"))
    assert problem == "madeup-below: 2 instead of nothing"
    [problem] = check_pins(["madeup_below==1"], _constraints(index, "madeup-below==1", "madeup-top==1"))
    assert problem == "madeup-top: not installed instead of 1"


@pytest.mark.parametrize(
    ("pin", "why"), [("madeup_top==7", "madeup_top==7"), ("madeup_later==1", "madeup_later==1")]
)
def test_what_is_gone_or_made_for_a_newer_system_is_said(index: Path, pin: str, why: str) -> None:
    with pytest.raises(SetupError, match=why):
        check_pins([pin], _constraints(index, pin.replace("_", "-")))
