"""`python -m spawner.supervisor.nsmount KEEPER CONTENT mount|umount SOURCE PATH RO`: bind a drive inside a runtime's namespaces.

A process of its own, because entering a user namespace needs a single thread. The path is resolved below the runtime's content
folder without following any link the user may have put there.
"""

from __future__ import annotations

import os
import sys

from spawner.supervisor import linux


def bind(keeper: int, content: str, source: str, path: str, readonly: bool) -> None:
    """Bind `source` at `path` (relative to the content folder), which must be an empty folder. Raise OSError."""
    _enter(keeper)
    folder = os.open(content, os.O_RDONLY | os.O_DIRECTORY)
    target = linux.open_beneath(folder, path, os.O_RDONLY | os.O_DIRECTORY)
    linux.bind(source, target, readonly=readonly)


def release(keeper: int, content: str, path: str) -> None:
    """Take a bind away again. Raise OSError."""
    _enter(keeper)
    folder = os.open(content, os.O_RDONLY | os.O_DIRECTORY)
    parent, _, name = path.rpartition("/")
    above = linux.open_beneath(folder, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
    linux.umount(f"/proc/self/fd/{above}/{name}")


def _enter(keeper: int) -> None:
    linux.setns(f"/proc/{keeper}/ns/user", linux.CLONE_NEWUSER)
    linux.setns(f"/proc/{keeper}/ns/mnt", linux.CLONE_NEWNS)


def main() -> int:
    keeper, content, verb, source, path, readonly = sys.argv[1:7]
    try:
        if verb == "mount":
            bind(int(keeper), content, source, path, readonly == "1")
        else:
            release(int(keeper), content, path)
    except OSError as error:
        sys.stderr.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
