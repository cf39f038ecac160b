"""Guest memory and page tables for the tests."""

from __future__ import annotations


class Memory:
    """RAM from physical address 0; everything above is not backed."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.data = bytearray(size)

    def read(self, physical: int, size: int, /) -> bytes | None:
        if physical < 0 or physical + size > len(self.data):
            return None
        return bytes(self.data[physical : physical + size])

    def put(self, physical: int, value: int, size: int = 8) -> None:
        self.data[physical : physical + size] = value.to_bytes(size, "little")


CR0 = 0x80010011
"""PG WP ET PE."""
LONG = 0xD00
"""EFER: NXE LMA LME."""
PAE = 0x20
LA57 = 0x1020
SMEP, SMAP, PKE, PKS, PGE, PSE = 1 << 20, 1 << 21, 1 << 22, 1 << 24, 1 << 7, 1 << 4
NX = 1 << 63


def long_tables(pte: int = 0x7067, pde: int = 0x4067, pdpte: int = 0x3067, pml4e: int = 0x2067) -> Memory:
    """4-level tables at 0x1000-0x4fff that map linear 0x7000 by ``pte``."""
    memory = Memory()
    for address, value in ((0x1000, pml4e), (0x2000, pdpte), (0x3000, pde), (0x4038, pte)):
        memory.put(address, value)
    return memory
