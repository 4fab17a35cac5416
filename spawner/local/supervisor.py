"""`python -m spawner.local.supervisor FOLDER`: owns all processes of one runtime.

It builds the sandbox, starts the runtime's server inside, says on stdout how far it is (one JSON object a line, until ready),
answers on `FOLDER/supervisor.sock`, and holds the limits: CLOCK_BOOTTIME deadlines, whatever happens to the services. When it
ends, for any reason, nothing of the runtime is left running.

The event loop is imported only once the sandbox is starting: while its Python comes up, so does ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from spawner.local.launch import launch
from spawner.remove_tree import StillMounted, remove_tree


def say(event: dict[str, Any]) -> None:
    """Tell whoever started us; when nobody listens any more, go on."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")
    if event["event"] == "ready":
        # Nobody listens any more; and what would be written there must not fill a pipe.
        null = os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def main() -> int:
    folder = Path(sys.argv[1])
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    say({"event": "phase", "phase": "sandbox"})
    try:
        launched = launch(folder)
    except (OSError, StopIteration) as error:
        message = f"The private machine could not be made: {error or 'its environment is not whole'}"
        say({"event": "failed", "code": "sandbox_failed", "message": message})
        with contextlib.suppress(OSError, StillMounted):
            remove_tree(folder)
        return 1
    say({"event": "phase", "phase": "server"})
    from spawner.local.sandboxed import Sandboxed
    from spawner.supervisor.life import live

    return live(Sandboxed(launched), say)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # nothing is left to tidy, and somebody waits for our end
