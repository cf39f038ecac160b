"""Where boot puts what, in guest-physical (= linear) addresses.

The numbers are a contract: reproducers and exported tests rely on them (docs/machine.md has the picture).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "CODE_ORIGIN",
    "DEBUG_EXIT_PORT",
    "GDT_BASE",
    "GDT_CAPACITY",
    "GDT_SLOTS",
    "IDT_BASE",
    "IDT_CAPACITY",
    "IST_TOPS",
    "IVT_BASE",
    "IVT_SIZE",
    "LDT_BASE",
    "LDT_CAPACITY",
    "LDT_SLOTS",
    "PAGE",
    "PAGE_TABLE_POOLS",
    "REAL_STACK_TOP",
    "RING0_STACK_TOP",
    "RING3_STACK_TOP",
    "RSP0_STACK_TOP",
    "SELECTORS",
    "STUB",
    "STUB_BASE",
    "STUB_SIZE",
    "TSS_BASE",
    "TSS_BITMAP_OFFSET",
    "TSS_LIMIT",
    "Selectors",
    "stub_address",
]

PAGE: Final = 4096

IVT_BASE: Final = 0x0
IVT_SIZE: Final = 0x400
GDT_BASE: Final = 0x1000
GDT_CAPACITY: Final = 0x1000
GDT_SLOTS: Final = 16
"""8-byte slots inside the GDT limit when the reproducer declares none beyond."""
IDT_BASE: Final = 0x2000
IDT_CAPACITY: Final = 0x1000
STUB_BASE: Final = 0x3000
STUB_SIZE: Final = 16
STUB: Final = bytes.fromhex("f4ebfd").ljust(STUB_SIZE, b"\x90")
"""``hlt; jmp .-1``: what stands behind a vector for which the guest has no handler of its own."""
TSS_BASE: Final = 0x4000
TSS_BITMAP_OFFSET: Final = 0x68
TSS_LIMIT: Final = TSS_BITMAP_OFFSET + 0x2000
"""8192 bytes of I/O bitmap and the closing byte of ones that the SDM asks for (vol. 1 section 19.5.2)."""
LDT_BASE: Final = 0x6400
LDT_CAPACITY: Final = 0x800
LDT_SLOTS: Final = 8
RING3_STACK_TOP: Final = 0x70000
RING0_STACK_TOP: Final = 0x80000
REAL_STACK_TOP: Final = 0x7C00
"""SS = 0 in real mode, so the usual place of a boot sector's stack."""
RSP0_STACK_TOP: Final = 0x88000
IST_TOPS: Final = (0x8A000, 0x8C000, 0x8E000)
PAGE_TABLE_POOLS: Final = ((0x90000, 0xA0000), (0x100000, 0x200000))
"""(first, end) of the memory that boot's page tables are taken from, in this order; pages of the image are left out."""
CODE_ORIGIN: Final = {"real16": 0x7C00, "prot32": 0x400000, "long64": 0x400000}
"""Where a program is assembled to when its header does not say, by mode."""
DEBUG_EXIT_PORT: Final = 0xF4


@dataclass(frozen=True, slots=True)
class Selectors:
    """Selectors of the boot GDT."""

    code64: int = 0x08
    data: int = 0x10
    user_code32: int = 0x18 | 3
    user_data: int = 0x20 | 3
    user_code64: int = 0x28 | 3
    user_data2: int = 0x30 | 3
    code32: int = 0x38
    code16: int = 0x40
    data16: int = 0x48
    tss: int = 0x50
    ldt: int = 0x60


SELECTORS: Final = Selectors()


def stub_address(vector: int) -> int:
    """Linear address of the boot stub of ``vector``."""
    return STUB_BASE + STUB_SIZE * vector
