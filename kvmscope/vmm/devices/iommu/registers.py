"""Registers of a remapping unit (VT-d specification, section 10.4): offsets, writable bits, capabilities."""

from __future__ import annotations

from typing import Final

__all__ = [
    "FAULT_RECORD",
    "FSTS_BITS",
    "GCMD_BITS",
    "IOTLB",
    "LENGTH",
    "Reg",
    "capabilities",
    "extended_capabilities",
    "writable",
]

FAULT_RECORD: Final = 0x220
"""CAP.FRO * 16: the one fault recording register, 128 bits."""
_INVALIDATE_ADDRESS: Final = 0xF0
"""ECAP.IRO * 16."""
IOTLB: Final = _INVALIDATE_ADDRESS + 8
LENGTH: Final = FAULT_RECORD + 16


class Reg:
    """Offsets."""

    VER: Final = 0x00
    CAP: Final = 0x08
    ECAP: Final = 0x10
    GCMD: Final = 0x18
    GSTS: Final = 0x1C
    RTADDR: Final = 0x20
    CCMD: Final = 0x28
    FSTS: Final = 0x34
    FECTL: Final = 0x38
    FEDATA: Final = 0x3C
    FEADDR: Final = 0x40
    FEUADDR: Final = 0x44
    IQH: Final = 0x80
    IQT: Final = 0x88
    IQA: Final = 0x90
    ICS: Final = 0x9C
    IECTL: Final = 0xA0
    IEDATA: Final = 0xA4
    IEADDR: Final = 0xA8
    IEUADDR: Final = 0xAC
    IRTA: Final = 0xB8


GCMD_BITS: Final = (
    (31, "TE"),
    (30, "RTP"),
    (26, "QIE"),
    (25, "IRE"),
    (24, "IRTP"),
    (23, "CFI"),
)
FSTS_BITS: Final = ((0, "PFO"), (1, "PPF"), (4, "IQE"), (5, "ICE"), (6, "ITE"))


def capabilities() -> int:
    """CAP: 64 Ki domains, 39 and 48 bits of guest address, 2 MiB and 1 GiB pages, one fault record.

    No caching mode, no write buffer to flush, no protected memory regions, no advanced fault log, no posted interrupts.
    """
    domains, widths, guest_bits, page_sizes, address_mask = 6, 0b00110, 48, 0b0011, 18
    drains = 0b11
    return (
        domains
        | widths << 8
        | guest_bits - 1 << 16
        | (FAULT_RECORD >> 4) << 24
        | page_sizes << 34
        | 1 << 39  # page-selective invalidation
        | address_mask << 48
        | drains << 54
    )


def extended_capabilities(x2apic: bool) -> int:
    """ECAP: coherent, queued invalidation, interrupt remapping, pass-through; x2APIC destinations where asked for."""
    coherent, queued, remapping, pass_through, handles = 1 << 0, 1 << 1, 1 << 3, 1 << 6, 0xF << 20
    return coherent | queued | remapping | x2apic << 4 | pass_through | (_INVALIDATE_ADDRESS >> 4) << 8 | handles


def writable(x2apic: bool) -> bytes:
    """A one for each bit that takes what is written; what has effects of its own on a write is not among them."""
    page = 0xFFFFFFFF_FFFFF000
    masks = {
        Reg.RTADDR: (8, page),  # legacy mode only: the mode bits read 0
        Reg.CCMD: (8, 0xE0000003_FFFFFFFF),
        Reg.FECTL: (4, 0x80000000),
        Reg.FEDATA: (4, 0xFFFF),
        Reg.FEADDR: (4, 0xFFFFFFFC),
        Reg.FEUADDR: (4, 0xFFFFFFFF if x2apic else 0),
        Reg.IQT: (8, 0x7FFF0),
        Reg.IQA: (8, page | 0x7),
        Reg.IECTL: (4, 0x80000000),
        Reg.IEDATA: (4, 0xFFFF),
        Reg.IEADDR: (4, 0xFFFFFFFC),
        Reg.IEUADDR: (4, 0xFFFFFFFF if x2apic else 0),
        Reg.IRTA: (8, page | 0xF | (0x800 if x2apic else 0)),
        _INVALIDATE_ADDRESS: (8, page | 0x7F),
        IOTLB: (8, 0xB003FFFF_00000000),
    }
    out = bytearray(LENGTH)
    for offset, (size, mask) in masks.items():
        out[offset : offset + size] = mask.to_bytes(size, "little")
    return bytes(out)
