"""Click to first output in containers: minicolab beside JupyterHub with DockerSpawner or KubeSpawner, image present, in the same run.

Both start on the same engine or cluster and take turns: one user alone, then ten at the same moment. A click is the request that starts
the server; the clock ends with the output of `print(1)`, which came through each side's proxy. Prints a line of JSON a measurement,
and at the end one a comparison. As root; `prepare` first builds what the measurement needs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT), str(ROOT / "tests")]

import container_peers  # noqa: E402  # siblings and the tests' engine, found by the line above
from jupyter_client_walk import walk  # noqa: E402
from peers import Minicolab, PlainHub  # noqa: E402

ENGINES = {"docker": container_peers.on_docker, "kubernetes": container_peers.on_kubernetes}


def clicks(peer: PlainHub | Minicolab, users: list[str]) -> list[float]:
    """Let the users click at the same moment; return the seconds to each one's first output."""
    documents = {user: peer.document(user) for user in users}
    together = threading.Barrier(len(users))

    def click(user: str) -> float:
        together.wait()
        started = time.perf_counter()
        url, token = peer.click(user, documents[user])
        return walk(url, token, started, warm_cells=0).first_output

    try:
        with ThreadPoolExecutor(len(users)) as pool:
            return list(pool.map(click, users))
    finally:
        for user in users:
            peer.leave(user)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=(*ENGINES, "prepare"))
    parser.add_argument("--alone", type=int, default=5, metavar="N", help="how often one user clicks alone")
    parser.add_argument("--together", type=int, default=2, metavar="N", help="how often all click at once")
    parser.add_argument("--users", type=int, default=10, metavar="N", help="how many click at once")
    parser.add_argument(
        "--image", choices=container_peers.SINGLE_USER, default="bare", help="of the plain side"
    )
    arguments = parser.parse_args()
    if arguments.engine == "prepare":
        container_peers.prepare(arguments.image)
        return
    users = [f"user{number}" for number in range(arguments.users)]
    took: dict[tuple[int, str], list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="minicolab-bench-") as scratch,
        ENGINES[arguments.engine](Path(scratch), arguments.image) as sides,
    ):
        peers = {"plain": sides.plain, "minicolab": sides.ours}
        for peer in peers.values():
            peer.start()
        try:
            for peer in peers.values():
                for user in users:
                    peer.add_user(user)
                clicks(peer, users[:1])  # what is done once on a node is done
            for group, times in ((users[:1], arguments.alone), (users, arguments.together)):
                for _ in range(times):
                    for side, peer in peers.items():
                        seconds = clicks(peer, group)
                        took.setdefault((len(group), side), []).extend(seconds)
                        tell(arguments.engine, side, len(group), seconds)
        finally:
            for peer in peers.values():
                peer.stop()
    for at_once in sorted({number for number, _ in took}):
        plain, ours = (statistics.median(took[at_once, side]) for side in ("plain", "minicolab"))
        facts = {"engine": arguments.engine, "at_once": at_once, "plain": plain, "minicolab": ours}
        print(json.dumps({**facts, "ratio": round(plain / ours, 2)}), flush=True)


def tell(engine: str, side: str, at_once: int, seconds: list[float]) -> None:
    """Print what was measured."""
    line = {"engine": engine, "side": side, "at_once": at_once, "seconds": [round(s, 3) for s in seconds]}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
