"""Which processes lately used an accelerator, by NVIDIA's management library. `python -S -m spawner.supervisor.gpu_use SECONDS`

Asked in a process of its own, for a broken driver may hang or crash who asks it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import time
from pathlib import Path

ANSWER_SECONDS = 5.0
MOST_DEVICES, MOST_SAMPLES = 64, 4096


class Sample(ctypes.Structure):
    """nvmlProcessUtilizationSample_t"""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("time_stamp", ctypes.c_ulonglong),
        ("sm", ctypes.c_uint),
        ("memory", ctypes.c_uint),
        ("encoder", ctypes.c_uint),
        ("decoder", ctypes.c_uint),
    )


async def users(seconds: float) -> frozenset[int]:
    """Return the processes that used an accelerator within the last `seconds`; none when nobody can say."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-S", "-m", "spawner.supervisor.gpu_use", str(seconds)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
            try:
                text, _ = await process.communicate()
            except BaseException:
                process.kill()
                raise
        return frozenset(int(pid) for pid in json.loads(text))
    except (OSError, ValueError, TimeoutError):
        return frozenset()


def read(seconds: float) -> list[int]:
    """Ask the driver. Raise OSError when there is none."""
    library = ctypes.CDLL("libnvidia-ml.so.1")
    if library.nvmlInit_v2() != 0:
        return []
    count, found = ctypes.c_uint(), set()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    since = ctypes.c_ulonglong(int((time.clock_gettime(time.CLOCK_REALTIME) - seconds) * 1e6))
    for index in range(min(count.value, MOST_DEVICES)):
        device, samples, size = ctypes.c_void_p(), (Sample * MOST_SAMPLES)(), ctypes.c_uint(MOST_SAMPLES)
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != 0:
            continue
        if library.nvmlDeviceGetProcessUtilization(device, samples, ctypes.byref(size), since) != 0:
            continue
        used = samples[: min(size.value, MOST_SAMPLES)]
        found |= {int(one.pid) for one in used if one.sm or one.memory or one.encoder or one.decoder}
    return sorted(found)


if __name__ == "__main__":
    try:
        print(json.dumps(read(float(sys.argv[1]))))  # noqa: T201
    except (OSError, AttributeError):
        print("[]")  # noqa: T201  # no driver, or one too old to tell
