"""Which plug-ins get into everybody's notebook page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub.documents.assets import inside
from hub.documents.labextensions import DISABLED, Programs


def plug_in(folder: Path, name: str, *, disables: list[str] | None = None) -> Path:
    (folder / "static").mkdir(parents=True)
    (folder / "static" / "remoteEntry.0123456789abcdef.js").write_text("1")
    build = {"load": "static/remoteEntry.0123456789abcdef.js", "extension": "./extension"}
    package = {"name": name, "jupyterlab": {"_build": build, "disabledExtensions": disables or []}}
    (folder / "package.json").write_text(json.dumps(package))
    return folder


def test_only_plug_ins_on_the_list_are_loaded(tmp_path: Path) -> None:
    plug_in(tmp_path / "share/labextensions/jupyterlab_pygments", "jupyterlab_pygments")
    plug_in(tmp_path / "share/labextensions/somebody-else", "somebody-else")
    ours = plug_in(tmp_path / "ours", "@minicolab/notebook", disables=["a:b"])
    programs = Programs(ours=ours, share=tmp_path / "share")
    config = programs.page_config()
    assert [e["name"] for e in config["federated_extensions"]] == [
        "jupyterlab_pygments",
        "@minicolab/notebook",
    ]
    assert config["disabledExtensions"] == [*DISABLED, "a:b"]
    assert programs.find_extension_file("somebody-else/static/remoteEntry.0123456789abcdef.js") is None
    assert (
        programs.find_extension_file("@minicolab/notebook/static/remoteEntry.0123456789abcdef.js") is not None
    )
    assert programs.find_extension_file("@minicolab/notebook/package.json") is None


def test_our_plug_in_may_be_built_after_the_start(tmp_path: Path) -> None:
    programs = Programs(ours=tmp_path / "ours", share=tmp_path)
    assert programs.page_config()["federated_extensions"] == []
    plug_in(tmp_path / "ours", "@minicolab/notebook")
    assert [e["name"] for e in programs.page_config()["federated_extensions"]] == ["@minicolab/notebook"]


@pytest.mark.parametrize(
    "path", ["../secret", "a/../../secret", "/etc/passwd", "a\0b", "a//b", "link", "", ".", "a\\b"]
)
def test_an_asset_path_does_not_leave_its_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "assets"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    assert inside(folder, path) is None
