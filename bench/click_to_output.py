"""minicolab beside a plain JupyterHub: start, page, click to output, warm cell, memory. Prints medians and ratios."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from jupyter_client_walk import walk  # noqa: E402  # siblings, found by the line above
from page import open_notebook, person  # noqa: E402
from peers import OWN_PROCESSES, Minicolab, PlainHub, tree_pss  # noqa: E402


def measure(peer: PlainHub | Minicolab, user: str) -> tuple[float, float, float]:
    """Return (click to first output s, warm cell s, idle user's PSS MB)."""
    document = peer.document(user)
    started = time.perf_counter()
    url, token = peer.click(user, document)
    result = walk(url, token, started)
    pss = tree_pss(peer.server_pids(user)) / 1e6
    peer.leave(user)
    return result.first_output, result.warm_cell, pss


def measure_page(peer: PlainHub | Minicolab, user: str) -> list[float]:
    """Return the seconds to open a notebook: the first time, and again, with nothing running at either side before."""
    with person(peer.sign_in_page, user) as page:
        took = []
        for _ in range(2):
            took.append(open_notebook(page, peer.notebook_page(user)))
            peer.leave(user)
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--environment", default="minimal", help="runtime of images/catalogue.yaml")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minicolab-bench-") as scratch:
        plain = PlainHub(Path(scratch) / "plain")
        ours = Minicolab(Path(scratch) / "minicolab", OWN_PROCESSES.format(environment=arguments.environment))
        figures: dict[str, dict[str, list[float]]] = {}

        def note(name: str, side: str, value: float) -> None:
            figures.setdefault(name, {}).setdefault(side, []).append(value)

        for repeat in range(3):  # the first start makes databases; the repeated ones count
            for side, peer in (("plain", plain), ("minicolab", ours)):
                took = peer.start()
                if repeat:
                    note("start (s)", side, took)
                if repeat < 2:
                    peer.stop()
        try:
            for peer in (plain, ours):
                peer.add_user("ada")
            for _ in range(arguments.rounds):
                for side, peer in (("plain", plain), ("minicolab", ours)):
                    first, warm, pss = measure(peer, "ada")
                    note("click to first output (s)", side, first)
                    note("warm cell (s)", side, warm)
                    note("idle user PSS (MB)", side, pss)
                    for name, took in zip(
                        ("first page (s)", "page again (s)"), measure_page(peer, "ada"), strict=True
                    ):
                        note(name, side, took)
        finally:
            plain.stop()
            ours.stop()
    report = {}
    print(f"{'':28} {'plain hub':>22} {'minicolab':>22} {'ratio':>7}")
    for name, sides in figures.items():
        a, b = statistics.median(sides["plain"]), statistics.median(sides["minicolab"])
        report[name] = {"plain": sides["plain"], "minicolab": sides["minicolab"], "ratio": a / b}
        spread = {s: f"{statistics.median(v):.3f} ({min(v):.3f}-{max(v):.3f})" for s, v in sides.items()}
        print(f"{name:28} {spread['plain']:>22} {spread['minicolab']:>22} {a / b:7.1f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2), "utf-8")


if __name__ == "__main__":
    main()
