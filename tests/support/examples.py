"""The example notebooks, run top to bottom, unmodified, on whatever runtime, and what each of them must have done.

Fashion-MNIST is learnt from 900 real images where the machine has them (`../shared/data`), else from a small generated stand-in;
either is put where Keras keeps the data set.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import shutil
import struct
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from tests.unit.runtime.harness import Runtime, Socket, text_of

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
REAL_IMAGES = ROOT.parent / "shared" / "data" / "fashion-mnist-900"
DATA_FILES = {
    "train-labels-idx1-ubyte.gz",
    "train-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
}


@dataclass(frozen=True)
class Place:
    """Where examples run. `content` is its /content as this machine sees it.

    `consent(request)` does what is done when a user agrees to what a `colab_request` asks: the Drive appears, or goes. `drive` is
    where its files lie then.
    """

    runtime: Runtime
    content: Path
    consent: Callable[[dict[str, Any]], Awaitable[None]]
    drive: Path


async def run_notebook(place: Place, slug: str, *, expect_error: str | None = None) -> list[list[Any]]:
    """Run an example's code cells in order; return each cell's messages. An error fails, but the one that is expected."""
    notebook = nbformat.read(EXAMPLES / f"{slug}.ipynb", as_version=4)
    ran: list[list[Any]] = []
    kernel_id = await place.runtime.start_session(f"ex-{slug}/{slug}.ipynb")
    async with place.runtime.http() as http:
        page = await place.runtime.connect(http, kernel_id)
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            messages = await run_cell(place, page, cell.source, cell.id)
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


async def run_cell(place: Place, page: Socket, source: str, cell_id: str) -> list[Any]:
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
                await place.consent(message)
                await page.reply(message, data={})
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return messages


def pictures(ran: list[list[Any]]) -> int:
    return sum("image/png" in (m["content"].get("data") or {}) for messages in ran for m in messages)


def printed(ran: list[list[Any]]) -> str:
    return "".join(text_of(messages) for messages in ran)


# -- what each must have done ---------------------------------------------------------------------------------------


async def overview(place: Place) -> None:
    ran = await run_notebook(place, "overview")
    assert "['a.txt']" in printed(ran)
    assert "number 3" in printed(ran)
    assert pictures(ran) == 1


async def markdown_guide(place: Place) -> None:
    await run_notebook(place, "markdown_guide")


async def forms(place: Place) -> None:
    await run_notebook(place, "forms")


async def widgets(place: Place) -> None:
    await run_notebook(place, "widgets")


async def importing_libraries(place: Place) -> None:
    """A missing library is installed and draws."""
    ran = await run_notebook(place, "importing_libraries")
    assert pictures(ran) == 1
    assert "matplotlib-venn" in printed(ran)


async def drive(place: Place) -> None:
    """The Drive appears after consent and keeps what is written."""
    ran = await run_notebook(place, "drive")
    said = printed(ran)
    assert "Mounted at /content/drive\n" in said
    assert "Hello from a runtime!" in said
    assert "All changes made in this session are in your Drive." in said
    assert (place.drive / "hello.txt").read_text() == "Hello from a runtime!"
    assert (place.drive / "squares.csv").read_text().startswith("n,square")


async def gpu_tensorflow(place: Place) -> None:
    """TensorFlow tells the truth about a GPU."""
    if has_gpu():
        assert "Found GPU at: /device:GPU:0" in printed(await run_notebook(place, "gpu_tensorflow"))
    else:
        await run_notebook(place, "gpu_tensorflow", expect_error="SystemError: GPU device not found")


async def gpu_pytorch(place: Place) -> None:
    """PyTorch runs with and without a GPU."""
    ran = await run_notebook(place, "gpu_pytorch")
    assert ("device='cuda:0'" in text_of(ran[0])) is has_gpu()
    assert "loss 0.0" in text_of(ran[1])


async def fashion_mnist(place: Place) -> None:
    """The model trains, is saved, loaded and plotted: the loaded one is the one that was trained, and it has learnt."""
    ran = await run_notebook(place, "fashion_mnist")
    said = printed(ran)
    assert "Epoch 17/17" in said
    assert "Colab only includes TensorFlow 2.x" in said
    assert (place.content / "fashion_mnist.h5").stat().st_size > 1_000_000
    assert pictures(ran) == 1
    kernel_id = (await place.runtime.json("api/kernels"))[0]["id"]
    async with place.runtime.http() as http:
        page = await place.runtime.connect(http, kernel_id)
        check = (
            "same = all((a == b).all() for a, b in zip(model.get_weights(), cpu_model.get_weights()))\n"
            "guess = cpu_model.predict(x_test, verbose=0).argmax(-1)\n"
            "print(same, float((guess == y_test).mean()))"
        )
        same, accuracy = text_of(await run_cell(place, page, check, "check")).split()
        assert same == "True", "the weights that were loaded are not those that were saved"
        assert float(accuracy) > 0.6, f"accuracy {accuracy}"
        script = (
            "import keras\n"
            "m = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])\n"
            "m.save_weights('plain.h5'); m.load_weights('plain.h5'); m.save_weights('new.weights.h5')\n"
            "print('script ok')\n"
        )
        (place.content / "script.py").write_text(script)
        assert "script ok" in text_of(await run_cell(place, page, "!python /content/script.py", "script"))


CHECKS: dict[str, Callable[[Place], Awaitable[None]]] = {
    check.__name__: check
    for check in (
        overview,
        markdown_guide,
        forms,
        widgets,
        importing_libraries,
        drive,
        gpu_tensorflow,
        gpu_pytorch,
        fashion_mnist,
    )
}


def has_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    return program is not None and subprocess.run([program, "-L"], capture_output=True).stdout.startswith(
        b"GPU"
    )


# -- data -----------------------------------------------------------------------------------------------------------


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
