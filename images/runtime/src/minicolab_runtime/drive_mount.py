"""`google.colab.drive`: the texts and the flow.

From a minicolab page the page asks for consent and mounts; from any other client a link is printed and the code that it leads to
is pasted here. Either way the Drive has arrived when `<mountpoint>/MyDrive` is there.
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from minicolab_runtime import page
from minicolab_runtime.control import Control, ControlError

MARKER = "MyDrive"  # the folder that is there when, and only when, the Drive is mounted
_POLL_SECONDS = 0.05

_mounted: dict[str, str | None] = {}  # mount point -> access token of the pasted-code flow (None: by a page)


def mount(mountpoint: str, force_remount: bool, timeout_ms: int, readonly: bool) -> None:
    """Mount the user's Drive. Raise ValueError, page.MessageError or AuthorizationError with Colab's words."""
    if " " in mountpoint:
        raise ValueError("Mountpoint must not contain a space.")
    mountpoint = os.path.abspath(Path(mountpoint).expanduser())  # noqa: PTH100  # a symlink must stay one
    deadline = time.monotonic() + timeout_ms / 1000
    if is_mounted(mountpoint):
        if not force_remount:
            print(
                f"Drive already mounted at {mountpoint}; to attempt to forcibly remount, "
                f'call drive.mount("{mountpoint}", force_remount=True).'
            )
            return
        _unmount(mountpoint, deadline)
    _check(mountpoint)
    if page.supported():
        remaining = max(0.1, deadline - time.monotonic())
        request = {"authType": "dfs_ephemeral", "mountpoint": mountpoint, "readonly": readonly}
        if page.ask("request_auth", request, timeout_sec=remaining) is None:
            raise ValueError(
                f"mount failed: no answer to the consent dialog within {timeout_ms / 1000:.0f} s"
            )
        token = None
    else:
        token = _mount_by_code(mountpoint, readonly)
    _await(mountpoint, True, deadline, "mount failed: timeout; Drive did not appear in the runtime")
    _mounted[mountpoint] = token
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms: int) -> None:
    """Write out what is still buffered and take every mounted Drive away. Raise ValueError when that fails."""
    points = mountpoints()
    if not points:
        print("Drive not mounted, so nothing to flush and unmount.")
        return
    deadline = time.monotonic() + timeout_ms / 1000
    for mountpoint in points:
        _unmount(mountpoint, deadline)


def is_mounted(mountpoint: str) -> bool:
    """Return whether the Drive is visible at `mountpoint`."""
    return Path(mountpoint, MARKER).is_dir()


def mountpoints() -> list[str]:
    """Return where the Drive is mounted in this runtime, also by an earlier process of this kernel."""
    found = {point for point in _mounted if is_mounted(point)}
    for line in _mount_table():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4].endswith("/" + MARKER):
            found.add(str(Path(_unescape(fields[4])).parent))
    if is_mounted("/content/drive"):
        found.add("/content/drive")
    return sorted(found)


def _check(mountpoint: str) -> None:
    path = Path(mountpoint)
    if path.is_symlink():
        raise ValueError("Mountpoint must not be a symlink")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError("Mountpoint must not already contain files")
    if path.exists() and not path.is_dir():
        raise ValueError("Mountpoint must either be a directory or not exist")
    if not path.parent.exists():
        raise ValueError("Mountpoint must be in a directory that exists")


def _mount_by_code(mountpoint: str, readonly: bool) -> str:
    """Let the user paste an authorization code, mount with it, and return the access token."""
    from google.colab.errors import AuthorizationError

    try:
        control = Control.from_environment()
        token = control.sign_in(_paste_code)
        control.mount(token, mountpoint, readonly=readonly)
    except ControlError as error:
        raise AuthorizationError(str(error)) from None
    return token


def _paste_code(url: str) -> str:
    print(f"Go to this URL in a browser: {url}\n")
    return input("Enter your authorization code:\n")


def _unmount(mountpoint: str, deadline: float) -> None:
    _flush(mountpoint)
    remaining = max(0.1, deadline - time.monotonic())
    token = _mounted.get(mountpoint)
    if page.supported():
        if page.ask("unmount_drive", {"mountpoint": mountpoint}, timeout_sec=remaining) is None:
            raise ValueError("flush_and_unmount timed out")
    else:
        try:
            control = Control.from_environment()
            control.unmount(token or control.sign_in(_paste_code), mountpoint)
        except ControlError as error:
            raise ValueError(f"flush_and_unmount failed: {error}") from None
    _await(mountpoint, False, deadline, "flush_and_unmount timed out")
    _mounted.pop(mountpoint, None)


def _await(mountpoint: str, wanted: bool, deadline: float, complaint: str) -> None:
    """Wait until the Drive is there, or gone. A bind made outside this namespace raises no event that could be awaited."""
    while is_mounted(mountpoint) is not wanted:
        if time.monotonic() >= deadline:
            raise ValueError(complaint)
        time.sleep(_POLL_SECONDS)


def _flush(mountpoint: str) -> None:
    """Ask the system to write the Drive's file system out (syncfs), so that nothing is lost when it goes."""
    try:
        folder = os.open(Path(mountpoint, MARKER), os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        ctypes.CDLL(None, use_errno=True).syncfs(folder)
    finally:
        os.close(folder)


def _mount_table() -> list[str]:
    try:
        return Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []


def _unescape(field: str) -> str:
    """Return a mountinfo path as it is: blanks and the like are written as octal there."""
    return field.encode("latin-1", "backslashreplace").decode("unicode_escape")
