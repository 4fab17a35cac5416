"""Every example notebook, run top to bottom, unmodified, through a real kernel of the default runtime environment.

The runtime runs in a sandbox with a private `/content`, on an environment stacked on the shared one, so that `!pip install`
changes nothing outside. Fashion-MNIST is learnt from 900 real images where the machine has them (`../shared/data`), else from a
small generated stand-in; either is put where Keras keeps the data set, in a home folder that is thrown away.

MINICOLAB_TEST_RUNTIME names the environment to use; without it the installed default environment is used.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from tests.unit.runtime.harness import Runtime, Socket, start_runtime, stop, text_of

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
REAL_IMAGES = ROOT.parent / "shared" / "data" / "fashion-mnist-900"
INDEX: list[dict[str, Any]] = yaml.safe_load((EXAMPLES / "index.yaml").read_text())["examples"]
DATA_FILES = {
    "train-labels-idx1-ubyte.gz",
    "train-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
}


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
def runtime(folder: Path, environment: tuple[Path, ...]) -> Iterator[Runtime]:
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
    yield running
    stop(running)


async def run_notebook(runtime: Runtime, slug: str, *, expect_error: str | None = None) -> list[list[Any]]:
    """Run an example's code cells in order; return each cell's messages. An error fails, but the one that is expected."""
    notebook = nbformat.read(EXAMPLES / f"{slug}.ipynb", as_version=4)
    ran: list[list[Any]] = []
    kernel_id = await runtime.start_session(f"ex-{slug}/{slug}.ipynb")
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            messages = await run_cell(runtime, page, cell.source, cell.id)
            ran.append(messages)
            for message in messages:
                if message["msg_type"] == "error":
                    said = f"{message['content']['ename']}: {message['content']['evalue']}"
                    if said == expect_error:
                        return ran
                    raise AssertionError(f"{slug}, cell {cell.id}: {said}\n{text_of(messages, 'stderr')}")
        await page.close()
    assert expect_error is None, f"{slug} ran to its end, but should have stopped with {expect_error}"
    return ran


async def run_cell(runtime: Runtime, page: Socket, source: str, cell_id: str) -> list[Any]:
    """Run one cell as a page would, and be the page that grants access to the Drive."""
    message_id = await page.execute(source, cell=cell_id)
    messages: list[Any] = []
    async with asyncio.timeout(900):
        while True:
            message = await page.receive(900)
            if message["parent_header"].get("msg_id") != message_id:
                continue
            messages.append(message)
            if message["msg_type"] == "colab_request" and "colab_msg_id" in message["metadata"]:
                await grant(runtime, page, message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return messages


async def grant(runtime: Runtime, page: Socket, request: dict[str, Any]) -> None:
    """Say yes to the Drive, and do what control and the supervisor do then: make it appear in the runtime."""
    point = runtime.folder / request["content"]["request"]["mountpoint"].lstrip("/")
    if request["metadata"]["colab_request_type"] == "request_auth":
        (point / "MyDrive").mkdir(parents=True)
    else:
        shutil.move(point / "MyDrive", runtime.folder / "drive-after")
    await page.reply(request, data={})


def pictures(ran: list[list[Any]]) -> int:
    return sum("image/png" in (m["content"].get("data") or {}) for messages in ran for m in messages)


def printed(ran: list[list[Any]]) -> str:
    return "".join(text_of(messages) for messages in ran)


@pytest.mark.full_runtime
async def test_the_overview_runs(runtime: Runtime) -> None:
    ran = await run_notebook(runtime, "overview")
    assert "['a.txt']" in printed(ran)
    assert "number 3" in printed(ran)
    assert pictures(ran) == 1


@pytest.mark.full_runtime
@pytest.mark.parametrize("slug", ["markdown_guide", "forms", "widgets"])
async def test_a_guide_runs(runtime: Runtime, slug: str) -> None:
    await run_notebook(runtime, slug)


@pytest.mark.full_runtime
async def test_a_missing_library_is_installed_and_draws_the_venn_diagram(runtime: Runtime) -> None:
    ran = await run_notebook(runtime, "importing_libraries")
    assert pictures(ran) == 1
    assert "matplotlib-venn" in printed(ran)
    assert list((runtime.folder / "env").glob("lib/python3*/site-packages/matplotlib_venn"))


@pytest.mark.full_runtime
async def test_drive_appears_after_consent_and_keeps_what_is_written(runtime: Runtime) -> None:
    ran = await run_notebook(runtime, "drive")
    said = printed(ran)
    assert "Mounted at /content/drive\n" in said
    assert "Hello from a runtime!" in said
    assert "All changes made in this session are in your Drive." in said
    after = runtime.folder / "drive-after"
    assert (after / "hello.txt").read_text() == "Hello from a runtime!"
    assert (after / "squares.csv").read_text().startswith("n,square")


def has_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    return program is not None and subprocess.run([program, "-L"], capture_output=True).stdout.startswith(
        b"GPU"
    )


@pytest.mark.full_runtime
async def test_the_tensorflow_gpu_check_tells_the_truth(runtime: Runtime) -> None:
    if has_gpu():
        assert "Found GPU at: /device:GPU:0" in printed(await run_notebook(runtime, "gpu_tensorflow"))
    else:
        await run_notebook(runtime, "gpu_tensorflow", expect_error="SystemError: GPU device not found")


@pytest.mark.full_runtime
async def test_the_pytorch_cells_run_with_and_without_a_gpu(runtime: Runtime) -> None:
    ran = await run_notebook(runtime, "gpu_pytorch")
    assert ("device='cuda:0'" in text_of(ran[0])) is has_gpu()
    assert "loss 0.0" in text_of(ran[1])


@pytest.mark.full_runtime
@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_fashion_mnist_trains_saves_loads_and_plots(
    runtime: Runtime, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    what = place_fashion_data(runtime.folder / "home" / ".keras" / "datasets" / "fashion-mnist")
    record_property("data", what)
    with capsys.disabled():
        print(f"\n[fashion_mnist runs on {what}]")
    ran = await run_notebook(runtime, "fashion_mnist")
    said = printed(ran)
    assert "Epoch 17/17" in said
    assert "Colab only includes TensorFlow 2.x" in said
    assert (runtime.root / "fashion_mnist.h5").stat().st_size > 1_000_000
    assert pictures(ran) == 1
    kernel_id = (await runtime.json("api/kernels"))[0]["id"]
    async with runtime.http() as http:
        page = await runtime.connect(http, kernel_id)
        check = (
            "same = all((a == b).all() for a, b in zip(model.get_weights(), cpu_model.get_weights()))\n"
            "guess = cpu_model.predict(x_test, verbose=0).argmax(-1)\n"
            "print(same, float((guess == y_test).mean()))"
        )
        same, accuracy = text_of(await run_cell(runtime, page, check, "check")).split()
        assert same == "True", "the weights that were loaded are not those that were saved"
        assert float(accuracy) > 0.6, f"accuracy {accuracy} on {what}"
        script = runtime.root / "script.py"
        script.write_text(
            "import keras\n"
            "m = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])\n"
            "m.save_weights('plain.h5'); m.load_weights('plain.h5'); m.save_weights('new.weights.h5')\n"
            "print('script ok')\n"
        )
        assert "script ok" in text_of(await run_cell(runtime, page, "!python /content/script.py", "script"))


def place_fashion_data(folder: Path) -> str:
    """Put a small Fashion-MNIST where Keras looks for it; return what it is."""
    folder.mkdir(parents=True)
    if {path.name for path in REAL_IMAGES.glob("*.gz")} >= DATA_FILES:
        for name in DATA_FILES:
            shutil.copy(REAL_IMAGES / name, folder / name)
        return "900 real Fashion-MNIST images, a small part of the data set"
    generator = random.Random(7)
    for prefix, count in (("train", 600), ("t10k", 120)):
        labels = bytes(number % 10 for number in range(count))
        images = b"".join(_silhouette(label, generator) for label in labels)
        _write_gz(folder / f"{prefix}-labels-idx1-ubyte.gz", struct.pack(">II", 2049, count) + labels)
        header = struct.pack(">IIII", 2051, count, 28, 28)
        _write_gz(folder / f"{prefix}-images-idx3-ubyte.gz", header + images)
    return "720 generated pictures, a stand-in that is not Fashion-MNIST"


def _silhouette(label: int, generator: random.Random) -> bytes:
    """Return a 28 x 28 picture: one of ten bar patterns, shifted and noisy."""
    shift, brightness = generator.randrange(3), generator.randrange(150, 230)
    pixels = []
    for y in range(28):
        for x in range(28):
            inside = (x + shift) // 5 % 5 == label % 5 if label < 5 else (y + shift) // 5 % 5 == label % 5
            value = brightness if inside else 20
            pixels.append(max(0, min(255, value + generator.randrange(-15, 16))))
    return bytes(pixels)


def _write_gz(path: Path, data: bytes) -> None:
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(data)


def test_examples_carry_no_trace_of_the_machine_they_were_made_on() -> None:
    for path in EXAMPLES.glob("*.ipynb"):
        text = json.dumps(json.loads(path.read_text()))
        for trace in ("/tmp", "/root", "/home/", "index-url"):
            assert trace not in text, (path.name, trace)
