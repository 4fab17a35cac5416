"""docs/kubernetes.md says what is so: its files exist, its values render, its commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hub.__main__ import parser
from support.chart import ROOT, Helm

PAGE = ROOT / "docs" / "kubernetes.md"
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(PAGE.read_text("utf-8")) if kind == language]


def commands() -> list[str]:
    """Return every `minicolab ...` of the page, in blocks and in sentences."""
    page = PAGE.read_text("utf-8")
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    quoted = re.findall(r"`([^`\n]+)`", BLOCK.sub("", page))
    found = []
    for text in [*lines, *quoted]:
        match = re.search(r"(?:^\s*|-- )(minicolab (?!.*helm/)[^#>]*)", text)
        if match and not match[1].startswith("minicolab-"):
            found.append(match[1].strip())
    return found


def test_every_file_it_names_exists() -> None:
    page = PAGE.read_text("utf-8")
    named = set(re.findall(r"(?<![/\w])((?:helm|tests|docs)/[\w./-]+\w)", page)) | {
        f"docs/{name}" for name in re.findall(r"\]\((\w+\.md)\)", page)
    }
    missing = [name for name in named if not (ROOT / name).exists()]
    assert named
    assert missing == []


def test_every_example_is_named() -> None:
    page = PAGE.read_text("utf-8")
    for path in (ROOT / "helm" / "examples").glob("*.yaml"):
        assert f"`{path.stem}`" in page, path.name


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_values_it_shows_are_taken(helm: Helm, tmp_path: Path, number: int) -> None:
    text = blocks("yaml")[number]
    documents = list(yaml.safe_load_all(text))
    if "kind" in documents[0]:
        assert all({"apiVersion", "kind", "metadata"} <= o.keys() for o in documents)
        return
    values = tmp_path / "values.yaml"
    values.write_text(text, "utf-8")
    assert helm.render(values)


def test_its_commands_are_ones_that_minicolab_knows() -> None:
    found = [shlex.split(command)[1:] for command in commands()]
    assert len(found) > 5
    for words in found:
        parser().parse_args(words)
