"""What the page's RAM, disk and GPU meters show, in the shape Colab's own endpoint has."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import psutil

from minicolab_runtime.memory import MemoryGauge
from minicolab_runtime.outputs import Json

log = logging.getLogger(__name__)

NVIDIA_SMI_TIMEOUT = 1.0  # seconds; a meter must not wait for a sick driver
_QUERY = "index,name,memory.used,memory.total,utilization.gpu,utilization.memory"


async def read_resources(gauge: MemoryGauge, root: Path, kernels: dict[str, int]) -> Json:
    """Return memory, disks and GPUs. `kernels` maps kernel ids to process ids."""
    memory = gauge.read()
    disk = shutil.disk_usage(root)
    return {
        "memory": {
            "totalBytes": memory.limit,
            "freeBytes": max(0, memory.limit - memory.used),
            "limited": memory.limited,
            "kernels": [
                {"uuid": kernel_id, "usedBytes": _tree_bytes(pid)} for kernel_id, pid in kernels.items()
            ],
        },
        "disks": [{"filesystem": {"label": "kernel", "totalBytes": disk.total, "usedBytes": disk.used}}],
        "gpus": await _gpus(),
    }


def _tree_bytes(pid: int) -> int:
    """Return the resident bytes of a process and everything it started."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total


async def _gpus() -> list[Json]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    process = await asyncio.create_subprocess_exec(
        program,
        f"--query-gpu={_QUERY}",
        "--format=csv,noheader,nounits",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(NVIDIA_SMI_TIMEOUT):
            answer, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        log.warning("nvidia-smi did not answer within %s s", NVIDIA_SMI_TIMEOUT)
        return []
    return parse_nvidia_smi(answer.decode("utf-8", "replace"))


def parse_nvidia_smi(text: str) -> list[Json]:
    """Return the GPUs in nvidia-smi's CSV; a field that reads `[N/A]` becomes 0."""
    gpus: list[Json] = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 6:
            continue
        used, total, busy, memory_busy = (
            float(f) if f.replace(".", "", 1).isdigit() else 0.0 for f in fields[2:]
        )
        gpus.append(
            {
                "name": fields[1],
                "memoryUsedBytes": int(used * 1024 * 1024),
                "memoryTotalBytes": int(total * 1024 * 1024),
                "gpuUtilization": busy / 100,
                "memoryUtilization": memory_busy / 100,
                "everUsed": used > 0,
            }
        )
    return gpus
