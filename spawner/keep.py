"""/content of a runtime that ended: set aside, packed, and put into a later one.

Setting aside is a rename, so that no end waits for it. It is packed when somebody asks for it, and removed when they say so.
Nothing here follows a link or crosses a mount; drives were mounted in the runtime's own namespace, which is gone by then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from spawner.remove_tree import StillMounted, mounts_below, remove_tree

if TYPE_CHECKING:
    from storage_mount.beneath import Folder

LEFT_OUT = frozenset({"sample_data"})
CHUNK_BYTES = 1 << 20
EMPTY = "/content was empty"
IN_THE_WAY = frozenset({errno.EEXIST, errno.ELOOP, errno.EXDEV, errno.ENOTDIR, errno.EISDIR})
LEVEL = 1  # of gzip: a person may wait for it

Put = Callable[
    [list[str], IO[bytes], int], None
]  # takes the parts of a file's path, what is in it, and its mode


def set_aside(content: Path, place: Path, most_bytes: int) -> str:
    """Move `content` to `place` when it holds something, and not more than `most_bytes`; return why not, "" when it was moved."""
    mounted = mounts_below(content)
    if mounted:
        return f"{mounted[0]} was still mounted"
    if reason := why_not(content, most_bytes):
        return reason
    try:
        content.rename(place)
    except OSError as error:
        return f"/content could not be moved: {error.strerror}"
    return ""


def why_not(content: Path, most_bytes: int) -> str:
    """Return why `content` is not kept, "" when it is: it holds something, and not more than `most_bytes`."""
    total, files = 0, 0
    for _, status in _files(content):
        total, files = total + status.st_size, files + 1
        if total > most_bytes:
            return f"/content holds more than the {_size(most_bytes)} that are kept"
    return "" if files else EMPTY


def pack(place: Path, archive: Path) -> Path:
    """Pack what was set aside at `place` into `archive`, whole or not at all; return the archive. Raise OSError."""
    if archive.exists():
        return archive
    draft = archive.with_suffix(".draft")
    with draft.open("wb") as file:
        pack_into(place, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(archive)
    return archive


def pack_into(place: Path, out: IO[bytes]) -> None:
    """Write an archive of what lies at `place`. Raise OSError."""
    import gzip  # not at the top: every supervisor imports this module, and few of them pack
    import tarfile

    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=LEVEL, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for path, status in _files(place):
            name = str(path.relative_to(place))
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime = stat.S_IMODE(status.st_mode) & 0o755, int(status.st_mtime)
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                entry.size = os.fstat(fd).st_size
                tar.addfile(entry, file)


def forget(*places: Path) -> None:
    """Remove folders and files that were kept."""
    for place in places:
        if place.is_dir() and not place.is_symlink():
            with contextlib.suppress(OSError, StillMounted):
                remove_tree(place)
        else:
            place.unlink(missing_ok=True)


def restore(archive: Path, content: Path, owner: int | None = None) -> int:
    """Put the files of an archive into `content`; what is there already stays. Return how many files were put there.

    `owner` is whose they are to be, when not ours.

    Raise OSError, or tarfile.TarError for what is no archive. Nothing of it leaves `content`, whatever runs there meanwhile.
    """
    from storage_mount.beneath import Folder

    folder = Folder(content)
    with archive.open("rb") as file:
        return unpack(file, lambda parts, source, mode: _put(folder, parts, source, mode, owner))


def unpack(archive: IO[bytes], put: Put) -> int:
    """Give every file of an archive to `put`; return how many it took. What it finds in the way is left out.

    Raise what `put` raises, or tarfile.TarError for what is no archive.
    """
    import tarfile

    count = 0
    with tarfile.open(fileobj=archive, mode="r|gz") as tar:
        for entry in tar:
            parts = [part for part in entry.name.split("/") if part not in ("", ".")]
            if not entry.isreg() or not parts or ".." in parts:
                continue
            source = tar.extractfile(entry)
            assert source is not None
            try:
                put(parts, source, 0o755 if entry.mode & 0o100 else 0o644)
                count += 1
            except OSError as error:
                if error.errno not in IN_THE_WAY:
                    raise
    return count


def _put(folder: Folder, parts: list[str], source: IO[bytes], mode: int, owner: int | None) -> None:
    for depth in range(1, len(parts)):
        above = "/".join(parts[:depth])
        with contextlib.suppress(FileExistsError):
            folder.make_folder(above)
            if owner is not None:
                with folder.open_folder(above) as made:
                    os.fchown(made, owner, owner)
    path = "/".join(parts)
    folder.write(path, chunks(source), replace=False)
    fd, _ = folder.open_file(path)
    try:
        if owner is not None:
            os.fchown(fd, owner, owner)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is in a file."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _files(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the regular files below `top` on its own file system."""
    device = top.stat(follow_symlinks=False).st_dev
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if status.st_dev != device or (folder == top and entry.name in LEFT_OUT):
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting.append(Path(entry.path))
            elif stat.S_ISREG(status.st_mode):
                yield Path(entry.path), status


def _size(count: int) -> str:
    for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + f" {name}"
    return f"{count} bytes"
