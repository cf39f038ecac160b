"""DMA remapping: root and context entries, second-level paging (VT-d specification, sections 3.4, 3.7, 9.1, 9.3, 9.8)."""

from __future__ import annotations

from typing import Final

from kvmscope.vmm.devices.device import GuestRam
from kvmscope.vmm.devices.iommu.faults import Reason, RemapFault

__all__ = ["translate"]

_PRESENT: Final = 1 << 0
_FPD: Final = 1 << 1
_READ: Final = 1 << 0
_WRITE: Final = 1 << 1
_LARGE: Final = 1 << 7
_SNOOP: Final = 1 << 11
_TRANSIENT: Final = 1 << 62
_MULTI_LEVEL: Final = 0
_PASS_THROUGH: Final = 2
_LEVELS: Final = {1: 3, 2: 4}
"""Address width field of a context entry to paging levels: 39 and 48 bits (SAGAW)."""
_LARGEST_LEVEL: Final = 3
"""2 MiB and 1 GiB pages (SLLPS)."""


def translate(ram: GuestRam, root_table: int, source: int, address: int, write: bool, address_bits: int) -> int:
    """Physical address of an untranslated request of ``source``.

    ``address_bits`` is the host's address width: higher bits of table addresses are reserved.  Nothing is cached: each
    request walks.
    """
    too_high = (1 << 52) - (1 << address_bits)
    low, high = _entry(ram, root_table + 16 * (source >> 8))
    if not low & _PRESENT:
        raise RemapFault(Reason.ROOT_NOT_PRESENT)
    if low & (0xFFE | 0xFFF << 52 | too_high) or high:
        raise RemapFault(Reason.ROOT_RESERVED)
    low, high = _entry(ram, _table(low) + 16 * (source & 0xFF))
    fpd = bool(low & _FPD)
    if not low & _PRESENT:
        raise RemapFault(Reason.CONTEXT_NOT_PRESENT, fpd)
    kind, levels = low >> 2 & 3, _LEVELS.get(high & 7)
    # A context that passes through has no table: the bits of its address are ignored.
    unused = 0 if kind == _PASS_THROUGH else 0xFFF << 52 | too_high
    if low & (0xFF0 | unused) or high & ~0xFFFF7F:
        raise RemapFault(Reason.CONTEXT_RESERVED, fpd)
    if kind not in (_MULTI_LEVEL, _PASS_THROUGH) or levels is None:
        raise RemapFault(Reason.CONTEXT_INVALID, fpd)
    if address >> 12 + 9 * levels:
        raise RemapFault(Reason.ADDRESS_TOO_WIDE, fpd)
    if kind == _PASS_THROUGH:
        return address
    return _walk(ram, _table(low), levels, address, write, too_high, fpd)


def _walk(ram: GuestRam, table: int, levels: int, address: int, write: bool, too_high: int, fpd: bool) -> int:
    for level in range(levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        entry = int.from_bytes(ram.read(table + 8 * (address >> shift & 0x1FF), 8), "little")
        if not entry & (_WRITE if write else _READ):
            raise RemapFault(Reason.WRITE_REFUSED if write else Reason.READ_REFUSED, fpd)
        leaf = level == 1 or bool(entry & _LARGE)
        reserved = too_high
        if leaf:
            # Without snoop control and device TLBs the SNP and TM bits are reserved; so is the address inside the page.
            reserved |= _SNOOP | _TRANSIENT | (1 << shift) - (1 << 12)
            if level > _LARGEST_LEVEL:
                reserved |= _LARGE
        if entry & reserved:
            raise RemapFault(Reason.PAGING_RESERVED, fpd)
        if leaf:
            return _table(entry) | address & (1 << shift) - 1
        table = _table(entry)
    raise AssertionError("level 1 is a leaf")


def _entry(ram: GuestRam, address: int) -> tuple[int, int]:
    data = ram.read(address, 16)
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")


def _table(entry: int) -> int:
    return entry & 0x000F_FFFF_FFFF_F000
