"""The debug console of Bochs and QEMU: a byte written to port 0xe9 is output (QEMU hw/char/debugcon.c)."""

from __future__ import annotations

from collections.abc import Callable

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range

__all__ = ["DebugConsole"]


class DebugConsole(Device):
    """One port.  Reads give 0xe9, by which a guest knows that the console is there."""

    name = "debugcon"
    ports = (Range(0xE9, 1, access=1),)

    def __init__(self, output: Callable[[int], None]) -> None:
        self._output = output
        self._last = -1

    def port_read(self, port: int, size: int) -> int:
        """The console's signature."""
        return 0xE9

    def port_write(self, port: int, size: int, value: int) -> None:
        """Output one byte."""
        self._last = value
        self._output(value)

    def view(self) -> DeviceView:
        """The last byte written."""
        shown = "-" if self._last < 0 else f"{self._last:#04x}"
        meaning = repr(chr(self._last)) if 0x20 <= self._last < 0x7F else ""
        return DeviceView(self.name, "port 0xe9", (DeviceField("last byte", shown, meaning),))

    def save(self) -> DeviceState:
        """The last byte."""
        return (self._last,)

    def restore(self, state: DeviceState) -> None:
        """Put the last byte back."""
        (last,) = state
        assert isinstance(last, int)
        self._last = last
