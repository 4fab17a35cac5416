"""`minicolab quota simulate` as an administrator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub.__main__ import parser


def run(*words: str) -> int:
    arguments = parser().parse_args(["quota", "simulate", *words])
    return int(arguments.run(arguments))


def test_it_says_what_the_limits_of_a_settings_file_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "minicolab.yaml"
    settings.write_text("quota: {max_runtimes: 1, idle_limit: 6h}\n")
    assert run(str(settings), "--users", "10", "--days", "20", "--starts-a-day", "4", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["refusals"]["too_many_runtimes"] > 0
    assert sum(report["ends"].values()) == report["starts"]


@pytest.mark.parametrize("words", [("--kind", "T4"), ("--team", "lab=2"), ("--days", "0")])
def test_what_makes_no_sense_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == 2
    assert capsys.readouterr().err
