"""What this machine holds for containers: a folder for each runtime, with its /content, what was asked of it, and its lock.

/content is a folder, or with a limit a disk (spawner.docker.disk). Hub and control each have an instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from quota.clock import SystemClock
from spawner import ended, keep
from spawner.docker import disk, loop
from spawner.docker.apart import Failed, apart
from spawner.ended import ARCHIVE, CONTENT, Ended
from spawner.model import EndReason, LeftBehind, RuntimeSpec
from spawner.ports import BackendError
from spawner.remove_tree import StillMounted, remove_tree

LOOK_SECONDS = 0.05  # a folder's lock can not be awaited
FOLDER, DISK, DEVICE = "content", "content.disk", "content.device"
MADE, SNAPSHOT_BYTES, ASKED = "made", "snapshot-bytes", "asked.json"
KEPT_DISK = ".disk"


class Folders:
    """Those of one installation below `top`. `disk_bytes` limits what a /content can hold, None: the machine's disk does.

    Ids are taken as they are: whoever asks has looked at them.
    """

    def __init__(self, top: Path, disk_bytes: int | None) -> None:
        self.top, self._disk_bytes = top, disk_bytes
        self.left = Ended(top / ".ended")

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the runtimes that have a folder."""
        for path in self.top.iterdir() if self.top.is_dir() else ():
            if path.is_dir() and not path.name.startswith("."):
                yield path.name

    def exists(self, runtime_id: str) -> bool:
        return (self.top / runtime_id).exists()

    def make_top(self) -> None:
        self.top.mkdir(mode=0o711, parents=True, exist_ok=True)

    # -- make and remove --------------------------------------------------------------------------------------

    def make(self, spec: RuntimeSpec, owner: int) -> None:
        """Make a runtime's folder, whole before it has its name; /content is `owner`'s. Raise FileExistsError, OSError."""
        self.make_top()
        draft, folder = self.top / f".new-{spec.id}", self.top / spec.id
        draft.mkdir(mode=0o711)
        try:
            if self._disk_bytes is not None:
                disk.make(draft / DISK, self._disk_bytes, owner)
            else:
                content = draft / FOLDER
                content.mkdir(mode=0o755)
                if owner != os.geteuid():
                    os.chown(content, owner, owner)
            (draft / MADE).touch(mode=0o600)
            (draft / SNAPSHOT_BYTES).write_text(str(spec.snapshot_bytes))
            if folder.exists():
                raise FileExistsError(str(folder))
            draft.rename(folder)
        except OSError:
            remove_tree(draft)
            raise

    @contextmanager
    def content(self, runtime_id: str) -> Iterator[dict[str, Any]]:
        """Give what the engine is told to mount as /content; it must have done so before the end. Raise OSError."""
        folder = self.top / runtime_id
        if not (folder / DISK).exists():
            yield {"Type": "bind", "Source": str(folder / FOLDER)}
            return
        device, name = loop.attach(folder / DISK)
        link = folder / DEVICE
        try:
            link.symlink_to(name)
            # By this name, which is gone afterwards: the device may one day be another's, and nobody who starts
            # the container again is to get that.
            options = {"type": disk.KIND, "device": str(link), "o": disk.OPTIONS}
            driver = {"Name": "local", "Options": options}
            yield {"Type": "volume", "VolumeOptions": {"NoCopy": True, "DriverConfig": driver}}
        finally:
            link.unlink(missing_ok=True)
            os.close(device)

    def remove(self, runtime_id: str) -> None:
        """Remove what a runtime has here. Raise BackendError when a drive could be below."""
        try:
            remove_tree(self.top / runtime_id)
        except StillMounted as error:
            raise BackendError("stop_failed", f"Runtime {runtime_id} can not be removed: {error}.") from error

    # -- notes ------------------------------------------------------------------------------------------------

    def age(self, runtime_id: str) -> float:
        """Return for how many seconds a runtime's folder has been there. Raise OSError."""
        return SystemClock().now().timestamp() - (self.top / runtime_id / MADE).stat().st_mtime

    def ask(self, runtime_id: str, reason: EndReason) -> None:
        """Note why somebody wants a runtime to end; one without a folder has nothing to be stopped."""
        with contextlib.suppress(OSError):
            asked = json.dumps({"code": reason.code, "message": reason.message})
            (self.top / runtime_id / ASKED).write_text(asked, "utf-8")

    def asked(self, runtime_id: str) -> EndReason | None:
        """Return why somebody asked this runtime to end, for one that has to be killed."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            data = json.loads((self.top / runtime_id / ASKED).read_text("utf-8"))
            return EndReason(data["code"], data["message"])
        return None

    def keep_at_most(self, runtime_id: str, snapshot_bytes: int) -> None:
        with contextlib.suppress(OSError):
            (self.top / runtime_id / SNAPSHOT_BYTES).write_text(str(snapshot_bytes))

    def kept_at_most(self, runtime_id: str) -> int | None:
        """Return how many bytes of /content are kept, None when nobody can say."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.top / runtime_id / SNAPSHOT_BYTES).read_text())
        return None

    # -- /content of the ended --------------------------------------------------------------------------------

    async def set_aside(self, runtime_id: str, most_bytes: int) -> None:
        """Keep /content of a runtime that has ended. A rename: no end waits for it. Raise OSError."""
        self.left.make()
        folder = self.top / runtime_id
        if (folder / DISK).exists():
            (folder / DISK).rename(self.left.path(runtime_id, f".{most_bytes}{KEPT_DISK}"))
            return
        kept = self.left.path(runtime_id, CONTENT)
        if why_not := await asyncio.to_thread(keep.set_aside, folder / FOLDER, kept, most_bytes):
            self.left.put_note(runtime_id, why_not)

    async def left_behind(self, runtime_id: str) -> LeftBehind | None:
        for kept in self._kept_disks(runtime_id):
            most = kept.name.removesuffix(KEPT_DISK).rpartition(".")[2]
            archive = self.left.path(runtime_id, ARCHIVE)
            try:
                if why_not := await apart(disk, "pack", str(kept), str(archive), most):
                    self.left.put_note(runtime_id, why_not)
                kept.unlink(missing_ok=True)
            except Failed as error:  # the next who asks may have more luck
                if not archive.exists():
                    self.left.put_note(runtime_id, f"/content could not be read: {error}")
        return await self.left.left_behind(runtime_id)

    async def forget(self, runtime_id: str) -> None:
        for kept in self._kept_disks(runtime_id):
            kept.unlink(missing_ok=True)
        await self.left.forget(runtime_id)

    def _kept_disks(self, runtime_id: str) -> list[Path]:
        return list((self.top / ".ended").glob(f"{runtime_id}.*{KEPT_DISK}"))

    async def restore(self, runtime_id: str, pid: int, snapshot: Path, owner: int) -> int:
        """Unpack a snapshot into /content of a runtime whose first process is `pid`. Raise BackendError."""
        content = self.top / runtime_id / FOLDER
        if not content.exists():  # it is a disk, which only the container has mounted
            content = Path(f"/proc/{pid}/root/content")
        return await ended.restore(snapshot, content, owner)

    # -- lock -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def locked(self, runtime_id: str) -> AsyncIterator[None]:
        """Hold the lock of a runtime's name: hub and control may want to put the same one away."""
        self.make_top()
        path = self.top / f".lock-{runtime_id}"
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await _lock(fd)
            except asyncio.CancelledError:
                os.close(fd)
                raise
            if _is_still(path, fd):
                break
            os.close(fd)  # who held it has put it away: there may be a new one by now
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)


async def _lock(fd: int) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            await asyncio.sleep(LOOK_SECONDS)


def _is_still(path: Path, fd: int) -> bool:
    """Return whether the file that is open is the one that has this name now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except OSError:
        return False
