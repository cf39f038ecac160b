"""Boot's page tables: 4 GiB mapped one to one, plus the declared pages (SDM vol. 3A section 4).

Large pages map everything but the regions that hold the first 2 MiB, the image or a declared page: those have 4 KiB
pages, so that a reproducer can change the rights of one page without touching its neighbours.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kvmscope.errors import ReproducerError
from kvmscope.vmm.boot.layout import PAGE, PAGE_TABLE_POOLS, RING3_STACK_TOP
from kvmscope.vmm.boot.memory import BootMemory, at_line, nearest
from kvmscope.vmm.config import PageInit, Paging

__all__ = ["FLAG_BITS", "PageTables", "build_page_tables"]

_P: Final = 1 << 0
_RW: Final = 1 << 1
_US: Final = 1 << 2
_PS: Final = 1 << 7
_IDENTITY_END: Final = 1 << 32

FLAG_BITS: Final = {
    "P": 0,
    "RW": 1,
    "US": 2,
    "PWT": 3,
    "PCD": 4,
    "A": 5,
    "D": 6,
    "PAT": 7,
    "G": 8,
    "NX": 63,
}
"""Names that a declared page's flags may have besides ``bitN``, and the bit of the 4 KiB page's entry each sets."""


@dataclass(frozen=True, slots=True)
class _Format:
    """One paging mode's tables.  ``shifts``: the lowest address bit each level's index uses, top level first."""

    shifts: tuple[int, ...]
    index_bits: int
    entry_size: int
    linear_bits: int
    bare_top: bool = False
    """The top level's entries have only P (PAE's PDPTEs: R/W and U/S are reserved, SDM vol. 3A table 4-8)."""

    @property
    def large_shift(self) -> int:
        """Size of the large pages used, as a power of two: 2 MiB, or 4 MiB with 32-bit paging."""
        return self.shifts[-2]

    @property
    def address_mask(self) -> int:
        """Bits of an entry that hold an address."""
        return 0xFFFF_F000 if self.entry_size == 4 else 0xF_FFFF_FFFF_F000


_FORMATS: Final = {
    Paging.BITS32: _Format((22, 12), 10, 4, 32),
    Paging.PAE: _Format((30, 21, 12), 9, 8, 32, bare_top=True),
    Paging.LEVEL4: _Format((39, 30, 21, 12), 9, 8, 48),
    Paging.LEVEL5: _Format((48, 39, 30, 21, 12), 9, 8, 57),
}


@lru_cache(maxsize=64)
def _identity_entries(first: int, shift: int, count: int, entry_size: int, flags: int) -> bytes:
    """``count`` leaf entries that map pages of 1 << ``shift`` bytes from ``first`` on to themselves."""
    letter = "I" if entry_size == 4 else "Q"
    return struct.pack(f"<{count}{letter}", *(first + (i << shift) | flags for i in range(count)))


class PageTables:
    """Tables under construction; addresses come from the pools of the layout."""

    def __init__(self, paging: Paging, occupied: frozenset[int]) -> None:
        self._format = _FORMATS[paging]
        self._free = _pool(occupied)
        self._tables: dict[int, bytearray] = {}
        self.root = self._allocate()

    def map_identity(self) -> None:
        """Map the first 4 GiB with large pages."""
        f = self._format
        per_table = 1 << f.index_bits
        for region in range(0, _IDENTITY_END, per_table << f.large_shift):
            table = self._descend(region, f.large_shift, 0)
            self._tables[table][:] = _identity_entries(region, f.large_shift, per_table, f.entry_size, _P | _RW | _PS)

    def split(self, linear: int) -> None:
        """Let the region around ``linear`` have 4 KiB pages with the rights it has now."""
        self._descend(linear, 12, 0)

    def set_entry(self, linear: int, value: int, upper: int = 0) -> None:
        """Write the 4 KiB page's entry of ``linear``; the levels above get ``upper`` beside P and RW."""
        table = self._descend(linear, 12, upper)
        self._put(table, self._index(linear, 12), value)

    def add_flags(self, linear: int, flags: int) -> None:
        """Set ``flags`` in the 4 KiB page's entry of ``linear`` and in every level above."""
        table = self._descend(linear, 12, flags)
        index = self._index(linear, 12)
        self._put(table, index, self._get(table, index) | flags)

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """(physical address, content) of each table."""
        for address, content in self._tables.items():
            yield address, bytes(content)

    def _descend(self, linear: int, shift: int, upper: int) -> int:
        """The table whose entries map pages of 1 << ``shift``, made on the way where it is missing."""
        f = self._format
        table = self.root
        for level, level_shift in enumerate(f.shifts):
            if level_shift == shift:
                return table
            index = self._index(linear, level_shift)
            entry = self._get(table, index)
            flags = _P if f.bare_top and level == 0 else _P | _RW | upper
            if not entry & _P or (level_shift == f.large_shift and entry & _PS):
                below = self._allocate()
                if entry & _P:
                    count = 1 << f.index_bits
                    kept = entry & 0xFFF & ~_PS
                    base = linear >> level_shift << level_shift
                    self._tables[below][:] = _identity_entries(base, 12, count, f.entry_size, kept)
                entry = below
            self._put(table, index, entry | flags)
            table = entry & f.address_mask
        raise AssertionError(f"no level of this paging mode has {1 << shift}-byte entries")

    def _index(self, linear: int, shift: int) -> int:
        return linear >> shift & (1 << self._format.index_bits) - 1

    def _get(self, table: int, index: int) -> int:
        size = self._format.entry_size
        return int.from_bytes(self._tables[table][index * size : (index + 1) * size], "little")

    def _put(self, table: int, index: int, value: int) -> None:
        size = self._format.entry_size
        self._tables[table][index * size : (index + 1) * size] = value.to_bytes(size, "little")

    def _allocate(self) -> int:
        page = next(self._free, None)
        if page is None:
            raise ReproducerError(
                "The declared pages need more page tables than boot has room for",
                "room: " + ", ".join(f"{first:#x}-{end - 1:#x}" for first, end in PAGE_TABLE_POOLS),
                "declare fewer pages, or pages closer together",
            )
        self._tables[page] = bytearray(PAGE)
        return page


def _pool(occupied: frozenset[int]) -> Iterator[int]:
    for first, end in PAGE_TABLE_POOLS:
        for page in range(first, end, PAGE):
            if page // PAGE not in occupied:
                yield page


def build_page_tables(
    memory: BootMemory,
    paging: Paging,
    ring: int,
    image_pages: frozenset[int],
    declared: tuple[PageInit, ...],
) -> int:
    """Write the tables into ``memory`` and return CR3.

    ``image_pages`` are page numbers.  With ring 3, user access goes to the image's pages and the ring-3 stack's page.
    Raises ReproducerError for a page that the paging mode cannot express.
    """
    tables = PageTables(paging, image_pages)
    tables.map_identity()
    tables.split(0)
    for page in sorted(image_pages):
        tables.split(page * PAGE)
    if ring == 3:
        for page in sorted(image_pages | {(RING3_STACK_TOP - 1) // PAGE}):
            tables.add_flags(page * PAGE, _US)
    for page_init in declared:
        _map_declared(tables, paging, page_init)
    for address, content in tables.pages():
        memory.write(address, content, "boot page tables")
    return tables.root


def _map_declared(tables: PageTables, paging: Paging, page: PageInit) -> None:
    flags = _flags(page, paging)
    f = _FORMATS[paging]
    what = f"page {page.linear:#x}"
    if page.linear % PAGE or page.physical % PAGE:
        raise ReproducerError(
            "A declared page begins at a multiple of 4 KiB",
            at_line(page.line, f"linear {page.linear:#x}, physical {page.physical:#x}"),
        )
    if page.count < 1:
        raise ReproducerError("A declared page's count is at least 1", at_line(page.line, what))
    last = page.linear + (page.count - 1) * PAGE
    for linear in (page.linear, last):
        if not _representable(linear, f.linear_bits):
            raise ReproducerError(
                f"{linear:#x} is not a linear address of {paging.value} paging",
                at_line(page.line, what),
                "canonical addresses only" if f.linear_bits > 32 else "below 4 GiB",
            )
    end = page.physical + (page.count - 1) * PAGE
    if page.physical < 0 or end & ~f.address_mask:
        raise ReproducerError(
            f"{end:#x} does not fit in a page-table entry of {paging.value} paging", at_line(page.line, what)
        )
    for i in range(page.count):
        tables.set_entry(page.linear + i * PAGE, page.physical + i * PAGE | flags, _US)


def _representable(linear: int, bits: int) -> bool:
    if linear < 0 or linear >> 64:
        return False
    if bits == 32:
        return linear < 1 << 32
    top = linear >> bits - 1
    return top in (0, (1 << 65 - bits) - 1)


def _flags(page: PageInit, paging: Paging) -> int:
    width = 32 if paging is Paging.BITS32 else 64
    value = 0
    for name in page.flags:
        bit = FLAG_BITS.get(name.upper())
        if bit is None and name.lower().startswith("bit") and name[3:].isdecimal():
            bit = int(name[3:])
        if bit is None:
            hint = nearest(name, [flag.lower() for flag in FLAG_BITS]).upper().replace("DID YOU MEAN", "did you mean")
            raise ReproducerError(
                f"Unknown page flag {name!r}",
                at_line(page.line, f"page {page.linear:#x}"),
                hint or f"flags: {' '.join(FLAG_BITS)}, or bit0 to bit{width - 1}",
            )
        if bit >= width:
            raise ReproducerError(
                f"{name} does not exist: an entry of {paging.value} paging has {width} bits",
                at_line(page.line, f"page {page.linear:#x}"),
            )
        value |= 1 << bit
    if page.pkey:
        if not 0 <= page.pkey <= 15 or paging not in (Paging.LEVEL4, Paging.LEVEL5):
            raise ReproducerError(
                "A protection key is 0 to 15, with 4-level or 5-level paging",
                at_line(page.line, f"page {page.linear:#x}: pkey {page.pkey}"),
            )
        value |= page.pkey << 59
    return value
