"""Interrupt remapping: requests in remappable format and the table's entries (VT-d specification, sections 5.1, 9.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmscope.vmm.devices.device import GuestRam
from kvmscope.vmm.devices.interrupts import DeliveryMode, Message
from kvmscope.vmm.devices.iommu.faults import Reason, RemapFault

__all__ = ["RemapTable", "compatible", "redirection_request", "remap"]

_REMAPPABLE: Final = 1 << 4
_SUBHANDLE_VALID: Final = 1 << 3
_PRESENT: Final = 1 << 0
_FPD: Final = 1 << 1
_LOGICAL: Final = 1 << 2
_LEVEL: Final = 1 << 4
_RESERVED_LOW: Final = 0xFF00F000
"""Bits 14:12 and 31:24; and bit 15, posted interrupts, which this unit has not."""
_RESERVED_HIGH: Final = ~0xFFFFF & (1 << 64) - 1
_RESERVED_MODES: Final = (3, 6)
# Function bits left out of the comparison, by source-id qualifier.
_QUALIFIER_MASK: Final = (0xFFFF, 0xFFFB, 0xFFF9, 0xFFF8)
_VERIFY_NONE, _VERIFY_SOURCE, _VERIFY_BUS, _VERIFY_RESERVED = range(4)


@dataclass(frozen=True, slots=True)
class RemapTable:
    """What the IRTA register says."""

    base: int
    entries: int
    extended: bool
    """x2APIC destinations of 32 bits; compatibility format is always blocked."""


def compatible(address: int) -> bool:
    """The request is in compatibility format: an MSI as without remapping."""
    return not address & _REMAPPABLE


def redirection_request(entry: int) -> tuple[int, int]:
    """(address, data) of the interrupt request that an I/O APIC makes of a redirection entry.

    The same bits serve both formats: bits 63:48 are destination and reserved bits, or index[14:0] and the format bit;
    bit 11 is the destination mode, or index[15].
    """
    address = 0xFEE00000 | (entry >> 48 & 0xFFFF) << 4 | (entry >> 11 & 1) << 2
    return address, entry & 0x7FF | (entry >> 15 & 1) << 15


def remap(ram: GuestRam, table: RemapTable, source: int | None, address: int, data: int) -> Message:
    """The message that the table makes of a request in remappable format.

    ``source`` None bears no source-id that could be verified: so does QEMU's I/O APIC, and kvm-unit-tests put the id of the
    device at the pin into the entry.  The redirection hint is of no effect: with a fixed delivery mode every processor
    addressed is interrupted.
    """
    index = address >> 5 & 0x7FFF | (address >> 2 & 1) << 15
    if address & _SUBHANDLE_VALID:
        if data >> 16:
            raise RemapFault(Reason.REQUEST_RESERVED, index=index)
        index += data & 0xFFFF
    if index >= table.entries:
        raise RemapFault(Reason.INDEX_TOO_HIGH, index=index & 0xFFFF)
    raw = ram.read(table.base + 16 * index, 16)
    low, high = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")
    fpd = bool(low & _FPD)
    if not low & _PRESENT:
        raise RemapFault(Reason.IRTE_NOT_PRESENT, fpd, index)
    mode, destination, verify = low >> 5 & 7, low >> 32, high >> 18 & 3
    narrow = 0 if table.extended else 0xFFFF00FF
    if (
        low & _RESERVED_LOW
        or high & _RESERVED_HIGH
        or mode in _RESERVED_MODES
        or verify == _VERIFY_RESERVED
        or destination & narrow
    ):
        raise RemapFault(Reason.IRTE_RESERVED, fpd, index)
    if source is not None and not _verified(source, high & 0xFFFF, high >> 16 & 3, verify):
        raise RemapFault(Reason.SOURCE_REFUSED, fpd, index)
    return Message(
        vector=low >> 16 & 0xFF,
        mode=DeliveryMode(mode),
        destination=destination if table.extended else destination >> 8,
        logical=bool(low & _LOGICAL),
        level=bool(low & _LEVEL),
    )


def _verified(source: int, wanted: int, qualifier: int, verify: int) -> bool:
    if verify == _VERIFY_SOURCE:
        return not (source ^ wanted) & _QUALIFIER_MASK[qualifier]
    if verify == _VERIFY_BUS:
        return wanted >> 8 <= source >> 8 <= wanted & 0xFF
    return True
