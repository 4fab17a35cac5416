"""Where the kernels' unix sockets lie: a path of such a socket may have 107 bytes, however deep the runtime's folder is."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_NAME = "/kernel-00000000-0000-0000-0000-000000000000-ipc-5"
MAX_FOLDER_BYTES = 107 - len(_LONGEST_NAME)


@contextmanager
def socket_folder(runtime_dir: Path) -> Iterator[Path]:
    """Yield a short path to `runtime_dir`: itself, or a link to it that lasts as long as the block."""
    if len(os.fsencode(runtime_dir)) <= MAX_FOLDER_BYTES:
        yield runtime_dir
        return
    link = Path(tempfile.gettempdir(), f"mc-{secrets.token_hex(8)}")
    link.symlink_to(runtime_dir.absolute(), target_is_directory=True)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)
