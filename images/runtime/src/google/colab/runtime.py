"""The runtime this notebook runs on."""

from __future__ import annotations

import sys

from google.colab import errors
from minicolab_runtime import page


def unassign() -> None:
    """Disconnect and delete this runtime: everything in it that is not in your Drive is gone.

    Raises RuntimeManagementError outside a minicolab runtime.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what was printed before is to be seen afterwards
    try:
        page.send("unassign")  # the runtime's server listens for this and ends itself
    except page.MessageError:
        raise errors.RuntimeManagementError("Unable to find the runtime management service.") from None
