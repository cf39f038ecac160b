"""Devices, one file each, all on the bus."""

from __future__ import annotations

from kvmscope.vmm.devices.bus import Bus
from kvmscope.vmm.devices.debug_exit import DebugExit
from kvmscope.vmm.devices.debugcon import DebugConsole
from kvmscope.vmm.devices.device import Device, DeviceState, Range
from kvmscope.vmm.devices.pic import PicMask
from kvmscope.vmm.devices.testdev import TestDevice
from kvmscope.vmm.devices.uart import Uart16550

__all__ = ["Bus", "DebugConsole", "DebugExit", "Device", "DeviceState", "PicMask", "Range", "TestDevice", "Uart16550"]
