"""The command `minicolab`."""

from __future__ import annotations

import argparse
import sys

from hub.cli import (
    cluster_secrets,
    config,
    database,
    end_runtimes,
    images,
    limits,
    serve,
    setup,
    status,
    up,
    users,
)


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog="minicolab", description="A self-hosted Colab.")
    commands = top.add_subparsers(dest="command", required=True)
    groups = (
        up,
        serve,
        status,
        users,
        limits,
        database,
        config,
        cluster_secrets,
        end_runtimes,
        images,
        setup,
    )
    for group in groups:
        group.add_parsers(commands)
    return top


def main() -> None:
    """Run one command and end with its exit code."""
    arguments = parser().parse_args()
    try:
        code = arguments.run(arguments)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    raise SystemExit(code)


if __name__ == "__main__":
    main()
