"""Devices, one file each, all on the bus; `kvmscope.vmm.chipset` makes and wires them."""

from __future__ import annotations

from kvmscope.vmm.devices.bus import Bus
from kvmscope.vmm.devices.device import Device, DeviceState, Range

__all__ = ["Bus", "Device", "DeviceState", "Range"]
