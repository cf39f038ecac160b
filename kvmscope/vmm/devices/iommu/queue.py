"""Descriptors of the invalidation queue (VT-d specification, section 6.5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Wait", "decode"]

_CONTEXT, _IOTLB, _INTERRUPT_ENTRY, _WAIT = 1, 2, 4, 5
# Reserved bits of the low and high quadword.
_RESERVED: Final = {
    _CONTEXT: (0xFFFC_0000_0000_FFC0, 0xFFFF_FFFF_FFFF_FFFF),
    _IOTLB: (0xFFFF_FFFF_0000_FF00, 0x0000_0000_0000_0F80),
    _INTERRUPT_ENTRY: (0xFFFF_0000_07FF_FFE0, 0xFFFF_FFFF_FFFF_FFFF),
    _WAIT: (0x0000_0000_FFFF_FF80, 0x0000_0000_0000_0003),
}


@dataclass(frozen=True, slots=True)
class Wait:
    """An invalidation wait descriptor: tell software that all before it is done."""

    event: bool
    """Interrupt."""
    status: tuple[int, int] | None
    """(physical address, data) of a DWORD to write."""


def decode(low: int, high: int) -> Wait | bool:
    """A wait; True for an invalidation, of which there is nothing to do; False for an invalid descriptor.

    This unit caches no entry (an implementation need not), so an invalidation is over when it is read.  Device TLBs do
    not exist: their descriptors are invalid.
    """
    kind = low & 0xF
    if kind not in _RESERVED or low & _RESERVED[kind][0] or high & _RESERVED[kind][1]:
        return False
    if kind in (_CONTEXT, _IOTLB):
        # Granularity 0 is reserved.
        return bool(low >> 4 & 3)
    if kind == _INTERRUPT_ENTRY:
        return True
    return Wait(bool(low >> 4 & 1), (high, low >> 32) if low >> 5 & 1 else None)
