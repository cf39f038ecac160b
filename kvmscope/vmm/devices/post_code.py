"""Port 0x80: what firmware (and a desperate kernel) writes to say how far it got."""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range

__all__ = ["PostCode"]

_PORT: Final = 0x80


class PostCode(Device):
    """One byte that reads back: port 0x80 is the page register of no DMA channel (82371SB data sheet, section 2.5.1)."""

    name = "post-code"
    ports = (Range(_PORT, 1, access=1),)

    def __init__(self) -> None:
        self._code = 0

    def port_read(self, port: int, size: int) -> int:
        """The last code."""
        return self._code

    def port_write(self, port: int, size: int, value: int) -> None:
        """Keep the code."""
        self._code = value

    def view(self) -> DeviceView:
        """The last code."""
        return DeviceView(self.name, "port 0x80", (DeviceField("code", f"{self._code:#04x}", "last written"),))

    def save(self) -> DeviceState:
        """The code."""
        return (self._code,)

    def restore(self, state: DeviceState) -> None:
        """Put the code back."""
        (code,) = state
        assert isinstance(code, int)
        self._code = code
