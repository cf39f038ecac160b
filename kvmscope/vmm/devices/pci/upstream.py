"""What a PCI function's own accesses reach: memory, through the IOMMU where there is one, and the local APICs."""

from __future__ import annotations

from typing import Final, Protocol

from kvmscope.vmm.devices.device import GuestRam
from kvmscope.vmm.devices.interrupts import ApicBus

__all__ = ["MSI_BASE", "MSI_END", "Translator", "Upstream"]

MSI_BASE: Final = 0xFEE00000
MSI_END: Final = 0xFEF00000
_PAGE: Final = 4096


class Translator(Protocol):
    """An IOMMU."""

    def translate(self, source: int, address: int, write: bool) -> int | None:
        """Physical address of one access that does not cross a page; None when it is blocked (and reported)."""

    def interrupt(self, source: int | None, address: int, data: int) -> bool:
        """An interrupt request; ``source`` None: it bears no source-id that could be verified."""


class Upstream:
    """The root complex: a write to 0xfeexxxxx is an interrupt, all else is memory.

    A request goes page by page; what an IOMMU blocks of it does nothing, what comes before and after goes through.
    """

    def __init__(self, ram: GuestRam, apics: ApicBus, iommu: Translator | None = None) -> None:
        self._ram = ram
        self._apics = apics
        self._iommu = iommu

    def interrupt(self, source: int | None, address: int, data: int) -> bool:
        """Send a message of a function or an I/O APIC; False when nobody takes it."""
        if self._iommu is not None:
            return self._iommu.interrupt(source, address, data)
        return self._apics.message_signalled(address, data)

    def read(self, source: int, address: int, size: int) -> bytes | None:
        """Read memory; None when any of it was blocked."""
        parts: list[bytes] = []
        for first, length in _pages(address, size):
            physical = first if self._iommu is None else self._iommu.translate(source, first, False)
            if physical is None:
                return None
            parts.append(self._ram.read(physical, length))
        return b"".join(parts)

    def write(self, source: int, address: int, data: bytes) -> bool:
        """Write memory or send a message; False when any of it was blocked."""
        if MSI_BASE <= address < MSI_END:
            # A message is one DWORD; anything else there is no request that has a meaning.
            return len(data) == 4 and self.interrupt(source, address, int.from_bytes(data, "little"))
        done, whole = 0, True
        for first, length in _pages(address, len(data)):
            physical = first if self._iommu is None else self._iommu.translate(source, first, True)
            if physical is None:
                whole = False
            else:
                self._ram.write(physical, data[done : done + length])
            done += length
        return whole


def _pages(address: int, size: int) -> list[tuple[int, int]]:
    """(address, length) of the parts that do not cross a page."""
    parts = []
    while size:
        length = min(size, _PAGE - address % _PAGE)
        parts.append((address, length))
        address, size = address + length, size - length
    return parts
