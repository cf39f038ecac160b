"""The firmware configuration device: a guest asks it how many processors and how much memory there are.

QEMU docs/specs/fw_cfg: a 16-bit selector at port 0x510, an 8-bit data port at 0x511 that gives the selected item byte
by byte, and a DMA interface of a big-endian 64-bit address at 0x514.  An item that is not there reads as zeros, and so
does what lies behind an item's end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvmscope.vmm.devices.device import Device, DeviceField, DeviceState, DeviceView, GuestRam, Range

__all__ = ["FwCfg", "Key"]

_SELECTOR: Final = Range(0x510, 2, access=2)
"""Selector (16-bit writes) and data (bytes); QEMU gives data at both ports."""
_DMA: Final = Range(0x514, 8)
_DMA_SIGNATURE: Final = b"QEMU CFG"


class Key:
    """Selectors of the items (QEMU include/standard-headers/linux/qemu_fw_cfg.h and hw/nvram/fw_cfg.h)."""

    SIGNATURE: Final = 0x00
    ID: Final = 0x01
    RAM_SIZE: Final = 0x03
    NB_CPUS: Final = 0x05
    MAX_CPUS: Final = 0x0F
    FILE_DIR: Final = 0x19
    FILE_FIRST: Final = 0x20


_KEY_NAMES: Final = {value: name for name, value in vars(Key).items() if name.isupper()}
_ID_FEATURES: Final = 0b11
"""Bit 0: selector and data port; bit 1: DMA."""
_FILE_NAME: Final = 56
# Bits of the control word of a DMA access.
_ERROR, _READ, _SKIP, _SELECT, _WRITE = (1 << bit for bit in range(5))
_COPY: Final = 1 << 16
"""Bytes moved at once, so that a length of 4 GiB costs no memory."""


class FwCfg(Device):
    """Items by key, read-only.  ``files`` get keys from 0x20 on in the order of their names."""

    name = "fw_cfg"
    ports = (_SELECTOR, _DMA)

    def __init__(self, ram: GuestRam, memory_size: int, vcpus: int, files: Mapping[str, bytes] | None = None) -> None:
        self._ram = ram
        self._items: dict[int, bytes] = {
            Key.SIGNATURE: b"QEMU",
            Key.ID: _ID_FEATURES.to_bytes(4, "little"),
            Key.RAM_SIZE: memory_size.to_bytes(8, "little"),
            Key.NB_CPUS: vcpus.to_bytes(2, "little"),
            Key.MAX_CPUS: vcpus.to_bytes(2, "little"),
        }
        ordered = sorted((files or {}).items())
        directory = len(ordered).to_bytes(4, "big")
        for key, (path, content) in enumerate(ordered, Key.FILE_FIRST):
            name = path.encode("ascii")
            if len(name) >= _FILE_NAME:
                raise ValueError(f"fw_cfg file name of more than {_FILE_NAME - 1} characters: {path}")
            self._items[key] = content
            directory += (
                len(content).to_bytes(4, "big") + key.to_bytes(2, "big") + bytes(2) + name.ljust(_FILE_NAME, b"\0")
            )
        self._items[Key.FILE_DIR] = directory
        self._key = 0
        self._offset = 0
        self._dma_high = 0

    def port_read(self, port: int, size: int) -> int:
        """The next byte of the item, or the signature of the DMA interface."""
        if port >= _DMA.first:
            offset = port - _DMA.first
            return int.from_bytes(_DMA_SIGNATURE[offset : offset + size], "little")
        if size != 1:
            return (1 << 8 * size) - 1
        return self._take(1)[0]

    def port_write(self, port: int, size: int, value: int) -> None:
        """Select an item, or start a DMA access with the lower half of its address.  The data port takes no writes."""
        if port == _SELECTOR.first and size == 2:
            self._select(value)
        elif size == 4 and port >= _DMA.first and port % 4 == 0:
            half = int.from_bytes(value.to_bytes(4, "little"), "big")
            if port == _DMA.first:
                self._dma_high = half
            else:
                address, self._dma_high = self._dma_high << 32 | half, 0
                self._transfer(address)

    def _select(self, key: int) -> None:
        self._key, self._offset = key, 0

    def _take(self, size: int) -> bytes:
        item = self._items.get(self._key, b"")
        taken = item[self._offset : self._offset + size]
        self._offset = min(self._offset + size, len(item))
        return taken.ljust(size, b"\0")

    def _transfer(self, descriptor: int) -> None:
        """Obey the descriptor: control, length (32 bits each) and address (64), all big-endian."""
        head = self._ram.read(descriptor, 16)
        control, length = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big")
        address = int.from_bytes(head[8:], "big")
        if control & _SELECT:
            self._select(control >> 16)
        if control & _READ:
            while length:
                size = min(length, _COPY)
                # Behind the item's end there is nothing but zeros, which must be written too.
                self._ram.write(address, self._take(size))
                address, length = address + size, length - size
            result = 0
        elif control & _WRITE:
            result = _ERROR
        else:
            if control & _SKIP:
                self._take(min(length, len(self._items.get(self._key, b""))))
            result = 0
        self._ram.write(descriptor, result.to_bytes(4, "big"))

    def view(self) -> DeviceView:
        """The selected item and what the guest is told."""
        item = self._items.get(self._key, b"")
        memory, vcpus = (int.from_bytes(self._items[key], "little") for key in (Key.RAM_SIZE, Key.NB_CPUS))
        fields = (
            DeviceField(
                "selector", f"{self._key:#06x}", _KEY_NAMES.get(self._key, "" if item else "not there, reads 0")
            ),
            DeviceField("offset", str(self._offset), f"of {len(item)} bytes"),
            DeviceField("RAM_SIZE", f"{memory:#x}", f"{memory >> 20} MiB"),
            DeviceField("NB_CPUS", str(vcpus)),
        )
        return DeviceView(self.name, "ports 0x510-0x51b", fields)

    def save(self) -> DeviceState:
        """Where the guest reads; the items never change."""
        return (self._key, self._offset, self._dma_high)

    def restore(self, state: DeviceState) -> None:
        """Read on from there."""
        key, offset, high = state
        assert isinstance(key, int)
        assert isinstance(offset, int)
        assert isinstance(high, int)
        self._key, self._offset, self._dma_high = key, offset, high
