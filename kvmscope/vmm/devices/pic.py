"""The mask registers of the two 8259A interrupt controllers.

The machine raises no interrupts, so the controllers are what a guest that masks them all needs: OCW1 at ports 0x21
and 0xa1, which reads back what was written.  The command ports 0x20 and 0xa0 are not claimed.
"""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range

__all__ = ["PicMask"]

_PORTS: Final = {0x21: "IMR master", 0xA1: "IMR slave"}


class PicMask(Device):
    """Interrupt mask registers; 0 after reset, as after ICW1."""

    name = "pic"
    ports = tuple(Range(port, 1, access=1) for port in _PORTS)

    def __init__(self) -> None:
        self._masks = dict.fromkeys(_PORTS, 0)

    def port_read(self, port: int, size: int) -> int:
        """The mask as written."""
        return self._masks[port]

    def port_write(self, port: int, size: int, value: int) -> None:
        """Latch the mask."""
        self._masks[port] = value

    def view(self) -> DeviceView:
        """Both masks."""
        fields = tuple(
            DeviceField(name, f"{self._masks[port]:#04x}", f"{self._masks[port].bit_count()} of 8 lines masked")
            for port, name in _PORTS.items()
        )
        return DeviceView(self.name, "ports 0x21, 0xa1", fields)

    def save(self) -> DeviceState:
        """Both masks."""
        return tuple(self._masks.values())

    def restore(self, state: DeviceState) -> None:
        """Put both masks back."""
        for port, mask in zip(_PORTS, state, strict=True):
            assert isinstance(mask, int)
            self._masks[port] = mask
