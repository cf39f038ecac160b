"""isa-debug-exit: a write ends the guest, its value being the verdict (QEMU hw/misc/debugexit.c)."""

from __future__ import annotations

from collections.abc import Callable

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range

__all__ = ["DebugExit"]


class DebugExit(Device):
    """Four ports at 0xf4.  Reads give 0; QEMU's process status would be ``value << 1 | 1``."""

    name = "debug-exit"
    ports = (Range(0xF4, 4),)

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit
        self.value: int | None = None

    def port_read(self, port: int, size: int) -> int:
        """Always 0."""
        return 0

    def port_write(self, port: int, size: int, value: int) -> None:
        """End the guest."""
        self.value = value
        self._on_exit(value)

    def view(self) -> DeviceView:
        """The value written, and what QEMU would exit with."""
        if self.value is None:
            field = DeviceField("value", "-", "not written yet")
        else:
            field = DeviceField("value", f"{self.value:#x}", f"QEMU exit status {(self.value << 1 | 1) & 0xFF}")
        return DeviceView(self.name, "port 0xf4-0xf7", (field,))

    def save(self) -> DeviceState:
        """The value, if any."""
        return () if self.value is None else (self.value,)

    def restore(self, state: DeviceState) -> None:
        """Put the value back."""
        value = state[0] if state else None
        assert not isinstance(value, bytes)
        self.value = value
