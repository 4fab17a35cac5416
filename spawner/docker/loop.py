"""Loop devices: a file of this machine as a block device. One that nobody has open or mounted goes by itself."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_GET_STATUS64 = 0x4C82, 0x4C0A, 0x4C05
_AUTOCLEAR = 4
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt_type, encrypt_key_size, flags; two names, a key, init.
_INFO = "=QQQQQIIII64s64s32s2Q"
_CONFIG = "=II" + _INFO.removeprefix("=") + "8Q"
_TRIES = 50


def attach(file: Path) -> tuple[int, str]:
    """Return the open device of `file` and its name; the one it has already, else a new one. Raise OSError.

    The device is the file's for as long as the descriptor is open or the device is mounted.
    """
    return _attached(file) or _attach(file)


def _attached(file: Path) -> tuple[int, str] | None:
    status = file.stat()
    for entry in Path("/sys/block").glob("loop*/loop"):
        name = f"/dev/{entry.parent.name}"
        with contextlib.suppress(OSError):
            device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                # Only now: a device that is open does not change its file.
                info = bytearray(struct.calcsize(_INFO))
                fcntl.ioctl(device, _LOOP_GET_STATUS64, info)
                if struct.unpack_from("=QQ", info) == (status.st_dev, status.st_ino):
                    return device, name
            os.close(device)
    return None


def _attach(file: Path) -> tuple[int, str]:
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
                device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
                shown = os.fsencode(file)[-63:]
                info = (0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, shown, b"", b"", 0, 0)
                config = struct.pack(_CONFIG, backing, 0, *info, *([0] * 8))
                try:
                    fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                    return device, name
                except OSError as error:
                    os.close(device)
                    if error.errno != errno.EBUSY:  # somebody else took it first
                        raise
        finally:
            os.close(control)
    finally:
        os.close(backing)
    raise OSError(errno.EBUSY, "no loop device is to be had")
