"""Every example notebook, run top to bottom, unmodified, through a real kernel of the default runtime environment.

The runtime runs in a sandbox with a private `/content`, on an environment stacked on the shared one, so that `!pip install`
changes nothing outside. The same notebooks run in the full image in tests/docker/test_full_image.py.

MINICOLAB_TEST_RUNTIME names the environment to use; without it the installed default environment is used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from support.examples import CHECKS, EXAMPLES, Place, place_fashion_data
from tests.unit.runtime.harness import start_runtime, stop

INDEX: list[dict[str, Any]] = yaml.safe_load((EXAMPLES / "index.yaml").read_text())["examples"]

# -- what every example must be -----------------------------------------------------------------------------------


def test_the_index_names_every_example_once_and_in_order() -> None:
    slugs = [entry["slug"] for entry in INDEX]
    assert sorted(slugs) == sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))
    assert [entry["order"] for entry in INDEX] == sorted({entry["order"] for entry in INDEX})
    for entry in INDEX:
        assert set(entry) == {"slug", "title", "summary", "order", "accelerator"}
        assert entry["accelerator"] in ("NONE", "GPU")
        assert entry["summary"].endswith((".", "#@param."))


@pytest.mark.parametrize("slug", [entry["slug"] for entry in INDEX])
def test_an_example_is_a_valid_notebook_without_outputs(slug: str) -> None:
    notebook = nbformat.read(EXAMPLES / f"{slug}.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


# -- running them ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def environment() -> tuple[Path, ...]:
    """The default runtime environment (the folder with `bin/python`), and the layers over it, topmost last."""
    named = os.environ.get("MINICOLAB_TEST_RUNTIME")
    if named:
        return (Path(named),)
    from hub.setup.runtime_environment import environment_for

    _, found = environment_for("default")
    if not found.is_complete():
        pytest.skip("the default runtime environment is not installed; run 'make setup'")
    return (found.env, found.code)


def stacked_environment(folder: Path, layers: tuple[Path, ...]) -> Path:
    """Make an environment in `folder` that sees everything in `layers` and takes what is installed; return its Python."""
    subprocess.run([layers[0] / "bin" / "python", "-m", "venv", "--without-pip", folder], check=True)
    packages = next((folder / "lib").glob("python3*")) / "site-packages"
    sites = [next((layer / "lib").glob("python3*")) / "site-packages" for layer in reversed(layers)]
    (packages / "base.pth").write_text(
        "".join(f"import site; site.addsitedir({str(site)!r})\n" for site in sites)
    )
    for name in ("pip", "pip3"):
        script = folder / "bin" / name
        script.write_text(
            f"#!{folder}/bin/python\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
    return folder / "bin" / "python"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def place(folder: Path, environment: tuple[Path, ...]) -> Iterator[Place]:
    """A runtime in a sandbox: everything outside its folder read-only, `/content` and the home folder private."""
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        pytest.skip("bubblewrap is not installed")
    python = stacked_environment(folder / "env", environment)
    sandbox = [bubblewrap, "--die-with-parent"]
    for entry in sorted(Path("/").iterdir()):
        if entry.name in ("proc", "dev", "content"):
            continue
        if entry.is_symlink():
            sandbox += ["--symlink", str(entry.readlink()), str(entry)]
        else:
            sandbox += ["--ro-bind", str(entry), str(entry)]
    (folder / "content").mkdir()
    sandbox += ["--proc", "/proc", "--dev", "/dev", "--bind", str(folder), str(folder)]
    sandbox += [
        "--bind",
        str(folder / "content"),
        "/content",
        "--bind",
        "/tmp",
        "/tmp",
        "--chdir",
        "/content",
    ]
    passed_on = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    running = start_runtime(
        folder,
        [*sandbox, str(python)],
        **passed_on,
        MINICOLAB_ROOT="/content",
        PATH=f"{python.parent}:{os.environ['PATH']}",
    )

    async def consent(request: dict[str, Any]) -> None:
        """Do what control and the supervisor do: the Drive appears in the runtime, or goes."""
        point = folder / request["content"]["request"]["mountpoint"].lstrip("/")
        if request["metadata"]["colab_request_type"] == "request_auth":
            (point / "MyDrive").mkdir(parents=True)
        else:
            shutil.move(point / "MyDrive", folder / "drive-after")

    yield Place(running, folder / "content", consent, folder / "drive-after")
    stop(running)


SLOW = {"fashion_mnist": (pytest.mark.slow, pytest.mark.timeout(1200))}


@pytest.mark.full_runtime
@pytest.mark.parametrize("slug", [pytest.param(slug, marks=SLOW.get(slug, ())) for slug in CHECKS])
async def test_an_example_runs_top_to_bottom(
    place: Place, folder: Path, slug: str, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if slug == "fashion_mnist":
        what = place_fashion_data(folder / "home" / ".keras" / "datasets" / "fashion-mnist")
        record_property("data", what)
        with capsys.disabled():
            print(f"\n[{slug} runs on {what}]")
    await CHECKS[slug](place)
    if slug == "importing_libraries":
        assert list((folder / "env").glob("lib/python3*/site-packages/matplotlib_venn"))


def test_every_example_is_run() -> None:
    assert set(CHECKS) == {entry["slug"] for entry in INDEX}


def test_examples_carry_no_trace_of_the_machine_they_were_made_on() -> None:
    for path in EXAMPLES.glob("*.ipynb"):
        text = json.dumps(json.loads(path.read_text()))
        for trace in ("/tmp", "/root", "/home/", "index-url"):
            assert trace not in text, (path.name, trace)
