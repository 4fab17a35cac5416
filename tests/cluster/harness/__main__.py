"""The harness by hand: `make cluster-up`, `make cluster-token`, `make cluster-down`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cluster.harness import lifecycle, programs, release
from cluster.harness.cluster import Cluster
from cluster.harness.errors import ClusterError, Unavailable
from cluster.harness.foreign import named_by_environment
from hub.settings import cache_folder
from hub.setup.steps import say


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.harness", description=__doc__)
    parser.add_argument("--state", type=Path, default=cache_folder() / "cluster" / "state", metavar="DIR")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the cluster, and minicolab in it; print its link")
    up.add_argument("--port", type=int, default=8100, help="the port on this machine's loopback")
    up.add_argument("--bare", action="store_true", help="without minicolab")
    commands.add_parser("programs", help="build the programs, where that is possible; else say why not")
    token = commands.add_parser("token", help="print an API token of a user, who is made when there is none")
    token.add_argument("user")
    commands.add_parser("status", help="say whether the cluster is up")
    enter = commands.add_parser("exec", help="run a command in the node's namespaces")
    enter.add_argument("line", nargs=argparse.REMAINDER)
    commands.add_parser("down", help="take everything away")
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except ClusterError as error:
        print(f"minicolab cluster: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    state: Path = arguments.state
    match arguments.command:
        case "up":
            cluster = named_by_environment() or lifecycle.up(state)
            say(f"Cluster: KUBECONFIG={cluster.kubeconfig}")
            if not arguments.bare:
                say(f"Ready: {release.install(cluster, state, arguments.port)}")
        case "programs":
            try:
                programs.get_all()
            except Unavailable as reason:
                say(f"• {reason}: tests on a cluster will be skipped")
        case "token":
            print(release.token(_cluster(state), arguments.user))
        case "status":
            found = lifecycle.running(state)
            print(f"up: KUBECONFIG={found.kubeconfig}" if found else "down")
            return 0 if found else 3
        case "exec":
            line = arguments.line[1:] if arguments.line[:1] == ["--"] else arguments.line
            enter = _cluster(state).enter
            os.execvp(enter[0], [*enter, *line])
        case "down":
            foreign = named_by_environment()
            if foreign is not None:
                release.uninstall(foreign, state)
            lifecycle.down(state)
    return 0


def _cluster(state: Path) -> Cluster:
    """Return the cluster that is up. Raise ClusterError when none is."""
    found = named_by_environment() or lifecycle.running(state)
    if found is None:
        raise ClusterError("no cluster is up: make cluster-up")
    return found


if __name__ == "__main__":
    sys.exit(main())
