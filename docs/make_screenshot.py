"""Make docs/screenshot.png: start a service, run a notebook in Chromium, take a picture.

.venv/bin/python docs/make_screenshot.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent)]

from support.browser import open_browser, sign_in  # noqa: E402  # found by the line above
from support.service import running  # noqa: E402

CELLS = [
    (
        "markdown",
        "# A first look\nThis notebook lives in **my Drive** and runs on a machine of its own. Text, code, pictures and "
        "formulas such as $\\hat f(\\omega)=\\int f(t)\\,e^{-i\\omega t}\\,dt$ share one document.\n## A picture",
    ),
    (
        "code",
        "import numpy as np, matplotlib.pyplot as plt\nt = np.linspace(0, 2, 500)\n"
        "plt.figure(figsize=(7, 2.4))\nfor k in (1, 3, 5):\n    plt.plot(t, np.sin(k * np.pi * t) / k, label=f'k={k}')\nplt.legend(loc='upper right');",
    ),
    ("markdown", "## Parameters"),
    (
        "code",
        '#@title Training { run: "auto" }\nlearning_rate = 0.01 #@param {type:"number"}\nepochs = 12 #@param {type:"slider", min:1, max:50, step:1}\n'
        'optimizer = "adam" #@param ["adam", "sgd"]\nprint(f"{optimizer}, {epochs} epochs at {learning_rate}")',
    ),
]


def main() -> None:
    cells = [
        {
            "cell_type": kind,
            "id": f"c{i}",
            "metadata": {},
            "source": source,
            **({"outputs": [], "execution_count": None} if kind == "code" else {}),
        }
        for i, (kind, source) in enumerate(CELLS)
    ]
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": cells,
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(Path(scratch) / "state") as service,
        open_browser() as browser,
    ):
        service.add_user("ada", admin=True)
        file = service.make_file("ada", "A first look.ipynb", content=notebook)
        context, page = sign_in(browser, service, "ada")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(f"{service.app}/d/{file['id']}")
        page.wait_for_selector(".jp-CodeCell")
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+F9")
        page.wait_for_selector(".jp-OutputArea-output:has-text('epochs at')", timeout=60_000)
        page.wait_for_selector(".mc-meter .mc-track", timeout=30_000)
        page.locator(".jp-Notebook").evaluate("node => node.scrollTo(0, 0)")
        page.wait_for_selector(".mc-save:has-text('All changes saved')", timeout=30_000)
        page.screenshot(path=HERE / "screenshot.png")
        context.close()


if __name__ == "__main__":
    main()
