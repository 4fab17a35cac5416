"""Drive folders bound somewhere and taken away again, so that no way out of any step can lose a file.

What was bound is unmounted first, deepest first; mountinfo proves it; then the place is removed by rmdir alone, which can not take
a file. Nothing is remembered: what is bound is what mountinfo says.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
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
    with source(root, folder) as opened:
        attach(opened, place, readonly=readonly)


@contextlib.contextmanager
def source(root: Path, folder: str, *, owner: int | None = None) -> Iterator[int]:
    """Give a descriptor of a folder that may be bound, opened with `owner`'s rights. Raise OSError.

    It may take as long as the file system lets it.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with system.files_of(owner):
            opened = open_beneath(top, folder, os.O_PATH | os.O_DIRECTORY)
        try:
            if system.mount_id(opened) != system.mount_id(top):
                raise OSError(errno.EXDEV, f"{folder} lies on another mount than {root}")
            yield opened
        finally:
            os.close(opened)
    finally:
        os.close(top)


def attach(opened: int, place: Path, *, readonly: bool) -> None:
    """Make an open folder visible at `place`. Raise OSError."""
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o755)
    target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        system.bind(opened, target, readonly=readonly)
    finally:
        os.close(target)


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
