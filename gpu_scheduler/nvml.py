"""The accelerators of this machine, by NVIDIA's management library (nvidia-ml-py)."""

from __future__ import annotations

import pynvml

from gpu_scheduler.model import Device, Inventory
from gpu_scheduler.policy import flavor_name

LOST_FLAVOR = "GPU"  # a device that does not even say what it is


class NvmlInventory:
    """Asks the driver. Without a driver the inventory is empty and says so."""

    def read(self) -> Inventory:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return Inventory((), f"This machine has no NVIDIA driver ({error}).")
        try:
            count = pynvml.nvmlDeviceGetCount()
            devices = tuple(self._device(index) for index in range(count))
            return Inventory(devices, "" if devices else "The NVIDIA driver knows no device.")
        except pynvml.NVMLError as error:
            return Inventory((), f"The NVIDIA driver does not answer ({error}).")
        finally:
            pynvml.nvmlShutdown()

    def _device(self, index: int) -> Device:
        """Return the device. One that does not answer every question is unhealthy, and never granted."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid, title = _text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle))
        except pynvml.NVMLError as error:
            return Device(f"unknown-{index}", LOST_FLAVOR, f"Does not answer ({error})", "", 0, False)
        try:
            # The number in /dev is the driver's own; it differs from the index where a device is hidden or lost.
            node = f"/dev/nvidia{int(pynvml.nvmlDeviceGetMinorNumber(handle))}"
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
        except pynvml.NVMLError:
            return Device(uuid, flavor_name(title), title, "", 0, False)
        return Device(uuid, flavor_name(title), title, node, memory, True)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
