"""Drive folders bound somewhere and taken away again, so that no way out of any step can lose a file.

What was bound is unmounted first, deepest first; mountinfo proves it; then the place is removed by rmdir alone, which can not take
a file. Nothing is remembered: what is bound is what mountinfo says.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from storage_mount.beneath import open_beneath
from storage_mount.plugin import mountinfo, system
from storage_mount.plugin.mountinfo import Mount

_ROUNDS = 8  # a mount may have appeared upon another meanwhile


def mounts() -> tuple[Mount, ...]:
    """Return everything that is mounted here."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return mountinfo.parse(text)


def mounts_below(path: Path) -> tuple[Mount, ...]:
    """Return the mounts at `path` and below it."""
    return mountinfo.below(mounts(), str(path))


def bind(root: Path, folder: str, place: Path, *, readonly: bool) -> None:
    """Make `folder`, a path below `root`, visible at `place`, which is made when it is missing. Raise OSError.

    No link on the way to the folder is followed and no other mount entered. `place` lies where only we write. Flags are set before
    anybody sees the mount.
    """
    source = _open_source(root, folder)
    try:
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o755)
        target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            system.bind(source, target, readonly=readonly)
        finally:
            os.close(target)
    finally:
        os.close(source)


def unbind(place: Path) -> None:
    """Take everything that is mounted at `place` and below away, and then the empty place. Raise OSError.

    Nothing that is already so is an error; what is not empty is not ours to remove and raises.
    """
    unmount(place)
    with contextlib.suppress(FileNotFoundError):
        place.rmdir()


def unmount(place: Path) -> None:
    """Take everything that is mounted at `place` and below away, and prove it. Raise OSError."""
    for _ in range(_ROUNDS):
        left = mountinfo.deepest_first(mounts_below(place))
        if not left:
            return
        for mount in left:
            try:
                system.detach(mount.point)
            except OSError as error:
                # Gone already: it went with another of the same peer group.
                if error.errno not in (errno.EINVAL, errno.ENOENT):
                    raise
    left = mounts_below(place)
    if left:
        raise OSError(errno.EBUSY, f"still mounted: {', '.join(mount.point for mount in left)}")


def _open_source(root: Path, folder: str) -> int:
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        source = open_beneath(top, folder, os.O_PATH | os.O_DIRECTORY)
        if system.mount_id(source) != system.mount_id(top):
            os.close(source)
            raise OSError(errno.EXDEV, f"{folder} lies on another mount than {root}")
        return source
    finally:
        os.close(top)
