"""A ROM at the top of the first 4 GiB, for everything that does not execute from it."""

from __future__ import annotations

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, Range

__all__ = ["Rom"]


class Rom(Device):
    """Reads give its contents; writes are dropped.  The engine maps the same bytes to execute from."""

    name = "rom"

    def __init__(self, address: int, data: bytes) -> None:
        self._address = address
        self._data = data
        self.memory = (Range(address, len(data), access=8),)

    def memory_read(self, address: int, size: int) -> int:
        """Bytes of the ROM."""
        at = address - self._address
        return int.from_bytes(self._data[at : at + size], "little")

    def peek(self, address: int, size: int) -> bytes:
        """The same."""
        at = address - self._address
        return self._data[at : at + size]

    def view(self) -> DeviceView:
        """Where it is."""
        end = self._address + len(self._data)
        where = f"{self._address:#x}-{end - 1:#x}"
        return DeviceView(
            self.name, where, (DeviceField("size", f"{len(self._data):#x}", f"{len(self._data) >> 10} KiB"),)
        )

    def save(self) -> DeviceState:
        """Nothing of it ever changes."""
        return ()

    def restore(self, state: DeviceState) -> None:
        """Nothing to do."""
