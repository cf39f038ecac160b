"""Paging modes and entry formats as tables (SDM vol. 3A sections 4.1, 4.3, 4.4 and 4.5).

A mode is a chain of `Level`; a level says which linear-address bits index its table, whether an entry may or must
map a page, and which bits a present entry may not have set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

__all__ = [
    "CR0_PG",
    "CR0_WP",
    "CR4_LA57",
    "CR4_PAE",
    "CR4_PGE",
    "CR4_PKE",
    "CR4_PKS",
    "CR4_PSE",
    "CR4_SMAP",
    "CR4_SMEP",
    "DEFAULT_FEATURES",
    "DEFAULT_MAXPHYADDR",
    "EFER_LMA",
    "EFER_NXE",
    "ENTRY_BITS",
    "Format",
    "Leaf",
    "Level",
    "PageMemory",
    "PagingFeatures",
    "PagingMode",
    "entry_flags",
    "is_canonical",
    "make_format",
    "paging_mode",
]

CR0_WP: Final = 1 << 16
CR0_PG: Final = 1 << 31
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_PGE: Final = 1 << 7
CR4_LA57: Final = 1 << 12
CR4_SMEP: Final = 1 << 20
CR4_SMAP: Final = 1 << 21
CR4_PKE: Final = 1 << 22
CR4_PKS: Final = 1 << 24
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11

DEFAULT_MAXPHYADDR: Final = 40
"""Physical-address width of the shipped CPU profiles, which is that of the embedded engine's page walker."""


class PageMemory(Protocol):
    """Physical memory as the walker reads it."""

    def read(self, physical: int, size: int, /) -> bytes | None:
        """``size`` bytes, or None when any of them is not backed."""
        ...


class PagingMode(StrEnum):
    """What CR0.PG, CR4.PAE, EFER.LMA and CR4.LA57 select (SDM vol. 3A section 4.1.1)."""

    NONE = "none"
    BITS32 = "32-bit"
    PAE = "PAE"
    LEVEL4 = "4-level"
    LEVEL5 = "5-level"

    @property
    def linear_bits(self) -> int:
        """Width of the linear addresses that are translated."""
        return {"4-level": 48, "5-level": 57}.get(self.value, 32)


class Leaf(StrEnum):
    """Whether an entry maps a page: never, always, or when its PS bit says so."""

    NEVER = "never"
    BY_PS = "PS"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class PagingFeatures:
    """CPUID features that change the meaning of page-table entries."""

    page1gb: bool = True
    """1-GByte pages (CPUID 80000001h EDX[26]); without it PS is reserved in a PDPTE."""
    pse36: bool = True
    """40-bit addresses of 4-MByte pages (CPUID 1 EDX[17])."""
    pat: bool = True
    """PAT (CPUID 1 EDX[16]); without it the PAT bit is reserved."""


DEFAULT_FEATURES: Final = PagingFeatures()


@dataclass(frozen=True, slots=True)
class Level:
    """One level of tables.

    ``reserved`` are the bits that a present entry pointing to a table may not have set, ``leaf_reserved`` those of one
    mapping a page; both already depend on MAXPHYADDR, EFER.NXE and the CPU's features.
    """

    name: str
    shift: int
    """Lowest linear-address bit that indexes the table; the entry covers 1 << shift bytes."""
    index_mask: int
    leaf: Leaf
    reserved: int
    leaf_reserved: int
    table_mask: int
    """Bits of the entry that are the next table's physical address."""
    page_mask: int
    """Bits of a leaf entry that are the page's physical address (PSE-36 bits apart)."""
    has_rights: bool = True
    """False for the PDPTEs of PAE paging, which have no R/W, U/S, A and XD."""


@dataclass(frozen=True, slots=True)
class Format:
    """A paging mode with its levels from the root down."""

    mode: PagingMode
    levels: tuple[Level, ...]
    entry_size: int
    root_mask: int
    """Bits of CR3 that locate the root table."""
    plan: tuple[tuple[int, int, bool, bool, int, int, int], ...]
    """The levels for `translate`: shift, index mask, may map, must map, reserved, leaf_reserved, table mask."""
    canonical_bits: int = 0
    """Width that linear addresses must be canonical for; 0 where they have 32 bits."""
    pse36: bool = False
    """4-MByte pages take physical-address bits 39:32 from entry bits 20:13."""

    def leaf_target(self, level: Level, value: int) -> int:
        """Physical base of the page that the leaf entry ``value`` of ``level`` maps."""
        base = value & level.page_mask
        if self.pse36 and level.leaf is Leaf.BY_PS:
            base |= (value >> 13 & 0xFF) << 32
        return base


def _span(high: int, low: int) -> int:
    """Mask of bits ``high``:``low``; empty when high < low."""
    return (1 << high + 1) - (1 << low) if high >= low else 0


def paging_mode(cr0: int, cr4: int, efer: int) -> PagingMode:
    """The paging mode that these registers select (SDM vol. 3A figure 4-1)."""
    if not cr0 & CR0_PG:
        return PagingMode.NONE
    if not cr4 & CR4_PAE:
        return PagingMode.BITS32
    if not efer & EFER_LMA:
        return PagingMode.PAE
    return PagingMode.LEVEL5 if cr4 & CR4_LA57 else PagingMode.LEVEL4


def is_canonical(linear: int, bits: int = 48) -> bool:
    """True when bits 63:``bits`` of ``linear`` all equal bit ``bits`` - 1."""
    top = linear >> bits - 1
    return top == 0 or top == (1 << 65 - bits) - 1


def _plan(levels: tuple[Level, ...]) -> tuple[tuple[int, int, bool, bool, int, int, int], ...]:
    return tuple(
        (
            level.shift,
            level.index_mask,
            level.leaf is not Leaf.NEVER,
            level.leaf is Leaf.ALWAYS,
            level.reserved,
            level.leaf_reserved,
            level.table_mask,
        )
        for level in levels
    )


def _format_32bit(cr4: int, maxphyaddr: int, features: PagingFeatures) -> Format:
    """32-bit paging (SDM vol. 3A section 4.3, table 4-4): M = min(40, MAXPHYADDR), or 32 without PSE-36."""
    pse = bool(cr4 & CR4_PSE)
    width = min(40, maxphyaddr) if features.pse36 else 32
    large_reserved = _span(21, width - 19) | (0 if features.pat else 1 << 12)
    pte_reserved = 0 if features.pat else 1 << 7
    levels = (
        Level("PDE", 22, 0x3FF, Leaf.BY_PS if pse else Leaf.NEVER, 0, large_reserved, _span(31, 12), _span(31, 22)),
        Level("PTE", 12, 0x3FF, Leaf.ALWAYS, 0, pte_reserved, 0, _span(31, 12)),
    )
    return Format(PagingMode.BITS32, levels, 4, _span(31, 12), _plan(levels), pse36=pse and features.pse36)


def _format_64bit_entries(mode: PagingMode, efer: int, maxphyaddr: int, features: PagingFeatures) -> Format:
    """PAE, 4-level and 5-level paging (SDM vol. 3A sections 4.4.2 and 4.5.4)."""
    no_xd = 0 if efer & EFER_NXE else 1 << 63
    address = _span(maxphyaddr - 1, 12)
    # PAE paging reserves everything from MAXPHYADDR to bit 62, the IA-32e modes ignore bits 62:52.
    high = _span(62 if mode is PagingMode.PAE else 51, maxphyaddr) | no_xd
    no_pat_large = 0 if features.pat else 1 << 12
    no_pat_small = 0 if features.pat else 1 << 7

    def upper(name: str, shift: int) -> Level:
        return Level(name, shift, 0x1FF, Leaf.NEVER, high | 1 << 7, 0, address, 0)

    lower = (
        Level(
            "PDE", 21, 0x1FF, Leaf.BY_PS, high, high | _span(20, 13) | no_pat_large, address, address & ~_span(20, 0)
        ),
        Level("PTE", 12, 0x1FF, Leaf.ALWAYS, 0, high | no_pat_small, 0, address),
    )
    if mode is PagingMode.PAE:
        # Table 4-8: bits 2:1, 8:5 and 63:MAXPHYADDR are reserved whatever EFER.NXE says.
        reserved = _span(2, 1) | _span(8, 5) | _span(63, maxphyaddr)
        pdpte = Level("PDPTE", 30, 3, Leaf.NEVER, reserved, 0, address, 0, has_rights=False)
        return Format(mode, (pdpte, *lower), 8, _span(31, 5), _plan((pdpte, *lower)))
    if features.page1gb:
        gigabyte = high | _span(29, 13) | no_pat_large
        pdpte = Level("PDPTE", 30, 0x1FF, Leaf.BY_PS, high, gigabyte, address, address & ~_span(29, 0))
    else:
        pdpte = upper("PDPTE", 30)
    levels: tuple[Level, ...] = (upper("PML4E", 39), pdpte, *lower)
    if mode is PagingMode.LEVEL5:
        levels = (upper("PML5E", 48), *levels)
    return Format(mode, levels, 8, address, _plan(levels), canonical_bits=mode.linear_bits)


_MODE_CR4: Final = CR4_PSE | CR4_PAE | CR4_LA57
_MODE_EFER: Final = EFER_LMA | EFER_NXE
_CACHE: dict[tuple[int, int, int, PagingFeatures], Format] = {}


def make_format(
    cr0: int,
    cr4: int,
    efer: int,
    maxphyaddr: int = DEFAULT_MAXPHYADDR,
    features: PagingFeatures = DEFAULT_FEATURES,
) -> Format | None:
    """The entry formats in force, None without paging.  Cached: the few distinct ones are built once."""
    if not cr0 & CR0_PG:
        return None
    key = (cr4 & _MODE_CR4, efer & _MODE_EFER, maxphyaddr, features)
    found = _CACHE.get(key)
    if found is None:
        mode = paging_mode(cr0, cr4, efer)
        if mode is PagingMode.BITS32:
            found = _format_32bit(cr4, maxphyaddr, features)
        else:
            found = _format_64bit_entries(mode, efer, maxphyaddr, features)
        _CACHE[key] = found
    return found


ENTRY_BITS: Final = (
    ("P", 0, "present"),
    ("RW", 1, "writable"),
    ("US", 2, "user-accessible"),
    ("PWT", 3, "write-through (PAT index bit 0)"),
    ("PCD", 4, "cache-disable (PAT index bit 1)"),
    ("A", 5, "accessed"),
    ("D", 6, "dirty"),
    ("PS", 7, "page size: maps a large page"),
    ("PAT", 7, "PAT index bit 2 (bit 12 in a large page)"),
    ("G", 8, "global, where CR4.PGE = 1"),
    ("NX", 63, "no execute, where EFER.NXE = 1"),
)
"""(name, bit, meaning) of the flag bits of an entry; which apply depends on the level (`entry_flags`)."""


def entry_flags(fmt: Format, level: Level, value: int, leaf: bool) -> tuple[str, ...]:
    """Names of the flags set in an entry, in bit order: ``("P", "RW", "A", "D", "NX", "pkey=3")``.

    D, G and PAT exist in leaf entries only; a not-present entry has no flags.
    """
    if not value & 1:
        return ()
    if not level.has_rights:
        return tuple(name for name, bit in (("P", 0), ("PWT", 3), ("PCD", 4)) if value >> bit & 1)
    names = [name for name, bit, _ in ENTRY_BITS[:6] if value >> bit & 1]
    if leaf:
        if value >> 6 & 1:
            names.append("D")
        small = level.leaf is Leaf.ALWAYS
        if not small:
            names.append("PS")
        if value >> (7 if small else 12) & 1:
            names.append("PAT")
        if value >> 8 & 1:
            names.append("G")
    elif value >> 7 & 1:
        names.append("PS")
    if fmt.entry_size == 8:
        if leaf and fmt.mode is not PagingMode.PAE and value >> 59 & 0xF:
            names.append(f"pkey={value >> 59 & 0xF}")
        if value >> 63:
            names.append("NX")
    return tuple(names)
