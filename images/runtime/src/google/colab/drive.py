"""Your Drive inside the runtime.

from google.colab import drive
drive.mount('/content/drive')
"""

from __future__ import annotations

from minicolab_runtime import drive_mount


def mount(
    mountpoint: str, force_remount: bool = False, timeout_ms: int = 120_000, readonly: bool = False
) -> None:
    """Mount your Drive at `mountpoint`, after you consent: the files appear in `MyDrive` (and `My Drive`) below it.

    Raises ValueError when the mount point cannot be used or nothing happened within `timeout_ms` milliseconds, and
    MessageError or AuthorizationError when access was refused.
    """
    drive_mount.mount(mountpoint, force_remount, timeout_ms, readonly)


def flush_and_unmount(timeout_ms: int = 24 * 60 * 60 * 1000) -> None:
    """Write out all changes and take the Drive away. Raises ValueError when that takes longer than `timeout_ms`."""
    drive_mount.flush_and_unmount(timeout_ms)
