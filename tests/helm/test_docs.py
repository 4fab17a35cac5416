"""docs/kubernetes.md says what is so: its files exist, its values render, its commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hub.__main__ import parser
from hub.settings import load_settings
from support.chart import ROOT, Helm
from support.pages import BLOCK, blocks, shell_lines
from support.pages import KUBERNETES as PAGE

# How the page's commands begin, and where a test runs them, taken from the page: a file and what it has to find them by.
TRIAL, SITE = "tests/cluster/test_release.py", "tests/cluster/test_release_postgresql.py"
SUPPORT = "tests/cluster/release_support.py"
RUN = {
    "helm install minicolab": (SUPPORT, 'documented("helm install'),
    "helm test": (SITE, 'documented("helm test'),
    "kubectl --namespace minicolab port-forward": (
        SUPPORT,
        'documented("kubectl --namespace minicolab port-forward',
    ),
    "kubectl --namespace minicolab exec deploy/minicolab-hub -- minicolab user add": (
        TRIAL,
        "-- minicolab user add",
    ),
    "kubectl --namespace minicolab create secret generic minicolab-postgresql": (
        SITE,
        "generic minicolab-postgresql",
    ),
    "for key in ticket": (SITE, '"/dev/urandom"'),
    "for token in documents": (SITE, '"/dev/urandom"'),
    "kubectl --namespace minicolab create secret generic my-secrets": (SITE, '"/dev/urandom"'),
    "kubectl get nodes -o custom-columns": (TRIAL, 'documented("kubectl get nodes'),
    "kubectl --namespace minicolab exec deploy/minicolab-hub -- minicolab db backup": (
        TRIAL,
        "-- minicolab db backup",
    ),
    "kubectl --namespace minicolab exec deploy/minicolab-documents -- minicolab db backup": (
        TRIAL,
        "-- minicolab db backup",
    ),
    "helm upgrade minicolab": (SUPPORT, 'documented("helm upgrade'),
    "helm rollback": (SITE, 'documented("helm rollback'),
    "kubectl --namespace minicolab get secret minicolab-secrets": (
        TRIAL,
        'documented("kubectl --namespace minicolab get secret',
    ),
    "helm get values": (TRIAL, 'documented("helm get values'),
    "minicolab images build hub default": (
        "tests/docker/test_published_images.py",
        '"--push", "--prefix", team, "--record"',
    ),
    "minicolab images values": ("tests/unit/hub/test_images.py", '"images", "values"'),
}
# What no test runs, and why.
NOT_RUN = {
    "kind create cluster": "kind fetches the image of its node, which is a container with a systemd inside",
    "kind load docker-image": "the same; the tests' cluster is given the same images by containerd's own import",
}
NOT_RUN_IN_SENTENCES = {
    "docker save IMAGE | k3s ctr images import -": "there is no k3s to be had without its download"
}


def commands() -> list[str]:
    """Return every `minicolab ...` of the page, in blocks and in sentences."""
    page = PAGE.read_text("utf-8")
    lines = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
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


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "yaml"))))
def test_values_it_shows_are_taken(helm: Helm, tmp_path: Path, number: int) -> None:
    text = blocks(PAGE, "yaml")[number]
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


def test_every_command_is_run_by_a_test_or_says_why_not() -> None:
    used = set()
    for line in shell_lines(PAGE):
        (beginning,) = [known for known in (*RUN, *NOT_RUN) if line.startswith(known)]
        used.add(beginning)
        if beginning in RUN:
            file, word = RUN[beginning]
            assert word in (ROOT / file).read_text("utf-8"), f"{file} does not run '{line}'"
    assert used == {*RUN, *NOT_RUN}
    page = PAGE.read_text("utf-8")
    for command in NOT_RUN_IN_SENTENCES:
        assert f"`{command}`" in page
    # The statements for PostgreSQL are run by test_release_postgresql.py.
    assert len(blocks(PAGE, "sql")) == 1


def test_the_sizing_table_says_what_the_settings_reserve(tmp_path: Path) -> None:
    empty = tmp_path / "minicolab.yaml"
    empty.write_text("{}")
    settings = load_settings(empty)
    cluster, standard = settings.runtimes.kubernetes, settings.runtimes.shapes["STANDARD"]

    def fit(cpus: float, gib: float, shape_cpus: float, shape_gib: float, share: float) -> int:
        return int(min(cpus / (shape_cpus * cluster.cpu_share), gib / (shape_gib * share)))

    rows = re.findall(
        r"\| \d+ CPUs, \d+ GiB \| ([\d.]+) CPUs, (\d+) GiB \| (\d+) \| (\d+) \| (\d+) \|",
        PAGE.read_text("utf-8"),
    )
    assert len(rows) == 3
    standard_gib = standard.memory / (1 << 30)
    assert (standard_gib, standard.cpus) == (12, 2)
    for cpus_text, gib_text, *counts in rows:
        cpus, gib = float(cpus_text), float(gib_text)
        assert [int(count) for count in counts] == [
            fit(cpus, gib, standard.cpus, standard_gib, cluster.memory_share),
            fit(cpus, gib, standard.cpus, standard_gib, 1),
            fit(cpus, gib, 1, 2, cluster.memory_share),
        ]
