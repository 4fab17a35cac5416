"""What a container's supervisor is told, in one environment variable. Pure."""

from __future__ import annotations

import base64
import hashlib
import json

from spawner.description import describe as describe_runtime
from spawner.description import server_environment
from spawner.model import RuntimeSpec

VARIABLE = "MINICOLAB_SPEC"
SERVER_PORT = 8888
SUPERVISOR_PORT = 8889
DRIVES = "/drives"


def describe(
    spec: RuntimeSpec,
    supervisor_key: bytes,
    *,
    server_port: int = SERVER_PORT,
    supervisor_port: int = SUPERVISOR_PORT,
    hand_over_seconds: float = 0.0,
) -> str:
    """Return the value of MINICOLAB_SPEC for a runtime. It holds secrets: code inside must not get to see it.

    `hand_over_seconds`: how long it waits at its end for somebody who takes what its cells printed last; 0: that is found elsewhere.
    """
    told = describe_runtime(spec, server_environment(spec, "0.0.0.0", server_port))
    key = base64.b64encode(supervisor_key).decode()
    own = {"supervisor_key": key, "supervisor_port": supervisor_port, "hand_over_seconds": hand_over_seconds}
    return json.dumps({**told, **own})


def bind_name(target: str, *, readonly: bool) -> str:
    """Return the name below /drives for a drive that is to be seen at `target`."""
    return hashlib.sha256(f"{'ro' if readonly else 'rw'} {target}".encode()).hexdigest()[:12]
