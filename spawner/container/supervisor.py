"""`python -S -m spawner.container.supervisor`: the first process of a runtime's container.

It starts the runtime's server, answers requests on a port of its own, and holds the limits whatever happens to the services. Code
inside can neither kill, stop nor read it: the first process of a pid namespace gets no signal from inside that it does not ask for,
and it forbids others of its own user to look into its memory. When it ends, the kernel ends everything else in the container.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from spawner.container.server import Places, start
from spawner.container.spec import VARIABLE
from spawner.supervisor import linux


def say(event: dict[str, Any]) -> None:
    """Tell the container's log."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def main() -> int:
    linux.forbid_looking_in()
    text = os.environ.pop(VARIABLE, "")
    try:
        spec: dict[str, Any] = json.loads(text)
    except ValueError:
        say(
            {
                "event": "failed",
                "code": "start_failed",
                "message": f"{VARIABLE} is not set or can not be read.",
            }
        )
        return 78
    linux.adopt_orphans()
    try:
        places = Places()
        server = start(spec, places)
        # Only now, beside the server that starts: this takes a tenth of a second.
        from spawner.container.machine import Container
        from spawner.supervisor.life import live

        machine = Container(spec, places, server)
    except (OSError, KeyError, TypeError, ValueError) as error:
        message = f"The machine could not be made: {error}"
        say({"event": "end", "code": "start_failed", "message": message})
        return 1
    say({"event": "phase", "phase": "server"})
    return live(machine, say)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)
