"""The runtime this notebook runs on."""

from __future__ import annotations

from google.colab import errors
from minicolab_runtime import page


def unassign() -> None:
    """Disconnect and delete this runtime: everything in it that is not in your Drive is gone.

    Raises RuntimeManagementError outside a minicolab runtime.
    """
    try:
        page.send("unassign")  # the runtime's server listens for this and ends itself
    except page.MessageError:
        raise errors.RuntimeManagementError("Unable to find the runtime management service.") from None
