"""The drives that are visible inside one runtime: bound into its namespaces after consent, and taken away again.

Every path is resolved below the runtime's content folder without following any link its user may have put there. On the plain
rung there is no namespace to bind in: a drive is a link there, which keeps nobody from anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from spawner.supervisor import linux

FOLDER, LINK = "MyDrive", "My Drive"
LONGEST_TARGET = 1024


class Refused(Exception):
    """A request that can not be met; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Drives:
    """The drives of one runtime: target → read-only. `keeper` None: there is no namespace to bind in, so drives are links."""

    def __init__(self, content: Path, keeper: int | None) -> None:
        self._content = content
        self._keeper = keeper
        self._turn = asyncio.Lock()
        self.mounted: dict[str, bool] = {}

    async def mount(self, source: str, target: str, *, readonly: bool) -> None:
        """Make the folder `source` visible at `<target>/MyDrive` and `<target>/My Drive`. Raise Refused."""
        async with self._turn:
            target, inside = _below_content(target)
            if not os.path.isabs(source) or not os.path.isdir(source):
                raise Refused("no_such_drive", "The drive to mount does not exist.")
            if self.mounted.get(target) is readonly:
                return
            if target in self.mounted:
                await self._unmount(target, inside)
            for other in self.mounted:
                if target.startswith(f"{other}/") or other.startswith(f"{target}/"):
                    raise Refused("bad_mountpoint", f"A drive is mounted at {other} already.")
            self._make_place(source, target, inside)
            if self._keeper is not None:
                await self._in_namespace("mount", source, f"{inside}/{FOLDER}", readonly)
            self.mounted[target] = readonly

    async def unmount(self, target: str) -> None:
        """Take a drive away. Raise Refused."""
        async with self._turn:
            target, inside = _below_content(target)
            if target not in self.mounted:
                raise Refused("not_mounted", f"No drive is mounted at {target}.")
            await self._unmount(target, inside)

    async def _unmount(self, target: str, inside: str) -> None:
        if self._keeper is not None:
            await self._in_namespace("umount", "", f"{inside}/{FOLDER}", False)
        del self.mounted[target]
        content = os.open(self._content, os.O_RDONLY | os.O_DIRECTORY)
        try:
            place = linux.open_beneath(content, inside, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return  # its user took the folder away meanwhile: then there is nothing to tidy
        finally:
            os.close(content)
        # Whatever does not let itself be removed is the user's own by now.
        with contextlib.suppress(OSError):
            os.unlink(LINK, dir_fd=place)
        with contextlib.suppress(OSError):
            if self._keeper is None:
                os.unlink(FOLDER, dir_fd=place)
            else:
                os.rmdir(FOLDER, dir_fd=place)
        os.close(place)

    def _make_place(self, source: str, target: str, inside: str) -> None:
        """Make the empty folder to mount over, or on the plain rung the link."""
        content = os.open(self._content, os.O_RDONLY | os.O_DIRECTORY)
        try:
            place = _make_folders(content, inside)
            try:
                _must_be_empty(place)
                if self._keeper is None:
                    os.symlink(source, FOLDER, dir_fd=place)
                else:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(FOLDER, 0o755, dir_fd=place)
                os.symlink(FOLDER, LINK, dir_fd=place)
            finally:
                os.close(place)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "this is no path"
            raise Refused("bad_mountpoint", f"The drive can not be mounted at {target}: {why}.") from error
        finally:
            os.close(content)

    async def _in_namespace(self, verb: str, source: str, path: str, readonly: bool) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-S", "-m", "spawner.supervisor.nsmount", str(self._keeper), str(self._content)),
            *(verb, source, path, "1" if readonly else "0"),
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        _, problem = await process.communicate()
        if process.returncode != 0:
            why = problem.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
            done = "mounted" if verb == "mount" else "taken away"
            raise Refused("mount_failed", f"The drive could not be {done}: {why}")


def _below_content(target: str) -> tuple[str, str]:
    """Return the mountpoint in its one spelling, and the same relative to /content. Raise Refused."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    good = target.startswith("/content/") and ".." not in parts and len(parts) > 1 and "\0" not in target
    if not good or len(target) > LONGEST_TARGET:
        raise Refused("bad_mountpoint", "The mountpoint must be a folder below /content.")
    return "/" + "/".join(parts), "/".join(parts[1:])


def _make_folders(folder: int, path: str) -> int:
    """Return a descriptor of `path` below `folder`, making what is missing and following no link."""
    here = os.dup(folder)
    try:
        for part in path.split("/"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=here)
            below = linux.open_beneath(here, part, os.O_RDONLY | os.O_DIRECTORY)
            os.close(here)
            here = below
    except OSError:
        os.close(here)
        raise
    return here


def _must_be_empty(place: int) -> None:
    """Raise Refused when the folder holds more than what an earlier mount left: an empty MyDrive and a link to it."""
    for name in os.listdir(place):
        if name == LINK:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=place)
                continue
        if name == FOLDER:
            with contextlib.suppress(OSError):
                if os.path.islink(f"/proc/self/fd/{place}/{name}"):
                    os.unlink(name, dir_fd=place)
                else:
                    os.rmdir(name, dir_fd=place)
                continue
        raise Refused("mountpoint_not_empty", "Mountpoint must not already contain files")
