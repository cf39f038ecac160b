"""Walks against the rules of SDM vol. 3A chapter 4, one row a rule."""

from __future__ import annotations

import pytest

from kvmscope.x86.paging import PagingFeatures, PagingMode, load_pdptes, translate, walk
from tests.x86.support import CR0, LA57, LONG, NX, PAE, PGE, PKE, PKS, PSE, SMAP, SMEP, Memory, long_tables

WP = 1 << 16
P, W, U, RSVD, I, PK = 1, 2, 4, 8, 16, 32  # noqa: E741 - the manual's letters


def test_reason_names_the_entry_and_the_bit() -> None:
    found = walk(long_tables(pte=0x7025), CR0, 0x1000, PAE, LONG, 0x7123, write=True)
    assert found.physical is None
    assert found.mapped == 0x7123
    assert found.fault is not None
    assert found.fault.error_code == P | W
    assert found.fault.reason == "PTE at 0x4038 = 0x7025: R/W = 0, CR0.WP = 1"
    assert [(s.level, s.index, s.address, s.target) for s in found.steps] == [
        ("PML4E", 0, 0x1000, 0x2000),
        ("PDPTE", 0, 0x2000, 0x3000),
        ("PDE", 0, 0x3000, 0x4000),
        ("PTE", 7, 0x4038, 0x7000),
    ]
    assert found.steps[3].flags == ("P", "US", "A")


# pte, cr0, cr4, efer, access -> error code (None: allowed)
RIGHTS = [
    # User and supervisor pages, section 4.6.1
    (0x7063, CR0, PAE, LONG, {"cpl": 0}, None),
    (0x7063, CR0, PAE, LONG, {"cpl": 3}, P | U),
    (0x7063, CR0, PAE, LONG, {"cpl": 3, "user": False}, None),
    (0x7067, CR0, PAE, LONG, {"cpl": 3, "write": True}, None),
    (0x7065, CR0, PAE, LONG, {"cpl": 3, "write": True}, P | W | U),
    (0x7061, CR0, PAE, LONG, {"cpl": 3, "write": True}, P | W | U),
    # CR0.WP
    (0x7061, CR0, PAE, LONG, {"write": True}, P | W),
    (0x7061, CR0 & ~WP, PAE, LONG, {"write": True}, None),
    (0x7065, CR0 & ~WP, PAE, LONG, {"cpl": 3, "write": True}, P | W | U),
    # Fetches: I/D is reported only where SMEP or NXE makes it meaningful
    (0x7063 | NX, CR0, PAE, LONG, {"fetch": True}, P | I),
    (0x7063 | NX, CR0, PAE, LONG, {}, None),
    (0x7063, CR0, PAE, LONG, {"fetch": True, "cpl": 3}, P | U | I),
    (0x7063, CR0, PAE, LONG & ~0x800, {"fetch": True, "cpl": 3}, P | U),
    (0x7063, CR0, PAE | SMEP, LONG & ~0x800, {"fetch": True, "cpl": 3}, P | U | I),
    # SMEP
    (0x7067, CR0, PAE | SMEP, LONG, {"fetch": True}, P | I),
    (0x7067, CR0, PAE, LONG, {"fetch": True}, None),
    (0x7067, CR0, PAE | SMEP, LONG, {"fetch": True, "cpl": 3}, None),
    (0x7067, CR0, PAE | SMEP, LONG, {}, None),
    # SMAP: data only; AC lifts it for explicit accesses, not for implicit ones; WP does not matter
    (0x7067, CR0, PAE | SMAP, LONG, {}, P),
    (0x7067, CR0, PAE | SMAP, LONG, {"write": True}, P | W),
    (0x7067, CR0 & ~WP, PAE | SMAP, LONG, {"write": True}, P | W),
    (0x7067, CR0, PAE | SMAP, LONG, {"ac": True}, None),
    (0x7067, CR0, PAE | SMAP, LONG, {"ac": True, "implicit": True}, P),
    (0x7067, CR0, PAE | SMAP, LONG, {"cpl": 3, "user": False, "ac": True}, P),
    (0x7067, CR0, PAE | SMAP, LONG, {"cpl": 3}, None),
    (0x7067, CR0, PAE | SMAP, LONG, {"fetch": True}, None),
    (0x7063, CR0, PAE | SMAP, LONG, {}, None),
    # Not present: nothing but W, U and I
    (0x7066, CR0, PAE, LONG, {}, 0),
    (0x7066 | NX | 1 << 51, CR0, PAE, LONG & ~0x800, {"write": True, "cpl": 3}, W | U),
    (0, CR0, PAE, LONG, {"fetch": True}, I),
    # Reserved bits come before rights
    (0x7067 | NX, CR0, PAE, LONG & ~0x800, {}, P | RSVD),
    (0x7067 | 1 << 40, CR0, PAE, LONG, {}, P | RSVD),
    (0x7067 | 1 << 51, CR0, PAE, LONG, {"write": True}, P | W | RSVD),
    (0x7067 | 1 << 52, CR0, PAE, LONG, {}, None),
    (0x7067 | 1 << 62, CR0, PAE, LONG, {}, None),
    # Protection keys: PKRU for user pages whatever the mode, not for fetches; WD heeds WP for the supervisor
    (0x7067 | 3 << 59, CR0, PAE | PKE, LONG, {"pkru": 1 << 6}, P | PK),
    (0x7067 | 3 << 59, CR0, PAE | PKE, LONG, {"pkru": 1 << 6, "cpl": 3}, P | U | PK),
    (0x7067 | 3 << 59, CR0, PAE | PKE, LONG, {"pkru": 1 << 6, "cpl": 3, "fetch": True}, None),
    (0x7067 | 3 << 59, CR0, PAE | PKE, LONG, {"pkru": 2 << 6, "cpl": 3}, None),
    (0x7067 | 3 << 59, CR0, PAE | PKE, LONG, {"pkru": 2 << 6, "cpl": 3, "write": True}, P | W | U | PK),
    (0x7067 | 3 << 59, CR0, PAE | PKE, LONG, {"pkru": 2 << 6, "write": True}, P | W | PK),
    (0x7067 | 3 << 59, CR0 & ~WP, PAE | PKE, LONG, {"pkru": 2 << 6, "write": True}, None),
    (0x7067 | 3 << 59, CR0 & ~WP, PAE | PKE, LONG, {"pkru": 2 << 6, "write": True, "cpl": 3}, P | W | U | PK),
    (0x7067 | 3 << 59, CR0, PAE, LONG, {"pkru": 1 << 6}, None),
    (0x7063 | 3 << 59, CR0, PAE | PKE, LONG, {"pkru": 1 << 6}, None),
    (0x7065 | 3 << 59, CR0, PAE | PKE, LONG, {"pkru": 1 << 6, "cpl": 3, "write": True}, P | W | U | PK),
    # Protection keys of supervisor pages
    (0x7063 | 2 << 59, CR0, PAE | PKS, LONG, {"pkrs": 1 << 4}, P | PK),
    (0x7063 | 2 << 59, CR0, PAE | PKS, LONG, {"pkrs": 2 << 4, "write": True}, P | W | PK),
    (0x7063 | 2 << 59, CR0 & ~WP, PAE | PKS, LONG, {"pkrs": 2 << 4, "write": True}, None),
    (0x7067 | 2 << 59, CR0, PAE | PKS, LONG, {"pkrs": 1 << 4}, None),
]


@pytest.mark.parametrize(("pte", "cr0", "cr4", "efer", "access", "expected"), RIGHTS)
def test_rights(pte: int, cr0: int, cr4: int, efer: int, access: dict[str, int], expected: int | None) -> None:
    found = walk(long_tables(pte), cr0, 0x1000, cr4, efer, 0x7123, **access)
    assert (found.fault.error_code if found.fault else None) == expected
    assert (found.physical is None) == (expected is not None)


@pytest.mark.parametrize("level", ["pml4e", "pdpte", "pde"])
def test_rights_accumulate(level: str) -> None:
    def entry(flags: int) -> dict[str, int]:
        return {level: {"pml4e": 0x2000, "pdpte": 0x3000, "pde": 0x4000}[level] | flags}

    found = walk(long_tables(**entry(0x65)), CR0, 0x1000, PAE, LONG, 0x7000, write=True)
    assert found.fault is not None
    assert f"{level.upper()} at" in found.fault.reason
    assert not walk(long_tables(**entry(0x63)), CR0, 0x1000, PAE, LONG, 0x7000).user
    assert not walk(long_tables(**entry(0x67 | NX)), CR0, 0x1000, PAE, LONG, 0x7000).executable
    assert not walk(long_tables(**entry(0x47)), CR0, 0x1000, PAE, LONG, 0x7000).accessed


@pytest.mark.parametrize(
    ("entries", "features", "bits"),
    [
        ({"pml4e": 0x20E7}, {}, "bit 7"),
        ({"pml4e": 0x2067 | 1 << 45}, {}, "bit 45"),
        ({"pdpte": 0x3067 | 1 << 40}, {}, "bit 40"),
        ({"pdpte": 0xE7 | 1 << 29}, {}, "bit 29"),
        ({"pdpte": 0xE7 | 1 << 13}, {}, "bit 13"),
        ({"pdpte": 0xE7}, {"page1gb": False}, "bit 7"),
        ({"pde": 0xE7 | 1 << 20}, {}, "bit 20"),
        ({"pde": 0xE7 | 1 << 13 | 1 << 14}, {}, "bits 14, 13"),
        ({"pde": 0xE7 | 1 << 12}, {"pat": False}, "bit 12"),
        ({"pte": 0x70E7}, {"pat": False}, "bit 7"),
    ],
)
def test_reserved_bits_are_named(entries: dict[str, int], features: dict[str, bool], bits: str) -> None:
    found = walk(long_tables(**entries), CR0, 0x1000, PAE, LONG, 0x7000, features=PagingFeatures(**features))
    assert found.fault is not None
    assert found.fault.error_code == P | RSVD
    assert f"reserved {bits} set" in found.fault.reason
    assert found.fault.level == next(iter(entries)).upper()


@pytest.mark.parametrize(
    ("entries", "size", "physical"),
    [
        ({"pdpte": 0x400000E7}, 1 << 30, 0x40007123),
        ({"pdpte": 0x400000E7 | 1 << 12}, 1 << 30, 0x40007123),
        ({"pde": 0x002000E7}, 1 << 21, 0x207123),
        ({"pde": 0x002000E7 | 1 << 12}, 1 << 21, 0x207123),
        ({"pte": 0x70E7}, 1 << 12, 0x7123),
    ],
)
def test_page_sizes(entries: dict[str, int], size: int, physical: int) -> None:
    found = walk(long_tables(**entries), CR0, 0x1000, PAE, LONG, 0x7123)
    assert (found.page_size, found.physical) == (size, physical)


def test_global_and_dirty() -> None:
    found = walk(long_tables(pte=0x7167), CR0, 0x1000, PAE | PGE, LONG, 0x7000)
    assert found.global_
    assert found.dirty
    found = walk(long_tables(pte=0x7127), CR0, 0x1000, PAE, LONG, 0x7000)
    assert not found.global_
    assert not found.dirty


@pytest.mark.parametrize(
    ("linear", "cr4", "stack", "vector"),
    [
        (0x7FFF_FFFF_F000, PAE, False, 14),
        (0x8000_0000_0000, PAE, False, 13),
        (0x8000_0000_0000, PAE, True, 12),
        (0xFFFF_7FFF_FFFF_FFFF, PAE, False, 13),
        (0xFFFF_8000_0000_0000, PAE, False, 14),
        (0x8000_0000_0000, LA57, False, 14),
        (0x00FF_FFFF_FFFF_FFFF, LA57, False, 14),
        (0x0100_0000_0000_0000, LA57, False, 13),
        (0xFEFF_FFFF_FFFF_FFFF, LA57, True, 12),
    ],
)
def test_canonical(linear: int, cr4: int, stack: bool, vector: int) -> None:
    found = walk(Memory(), CR0, 0x1000, cr4, LONG, linear, stack=stack)
    assert found.fault is not None
    assert found.fault.vector == vector
    assert found.fault.error_code == 0
    assert bool(found.steps) == (vector == 14)


def test_five_levels() -> None:
    memory = long_tables()
    memory.put(0x5000 + 8 * 3, 0x1067)
    linear = 3 << 48 | 0x7123
    found = walk(memory, CR0, 0x5000, LA57, LONG, linear)
    assert [s.level for s in found.steps] == ["PML5E", "PML4E", "PDPTE", "PDE", "PTE"]
    assert found.physical == translate(memory, CR0, 0x5000, LA57, LONG, linear) == 0x7123


def test_no_paging_is_the_identity() -> None:
    found = walk(Memory(), 0x11, 0, 0, 0, 0x1_2345_6789)
    assert (found.mode, found.physical, found.steps) == (PagingMode.NONE, 0x23456789, ())


# 32-bit paging, section 4.3

FOUR_MEGABYTES = [
    # pde, cr4, maxphyaddr, pse36 -> physical of linear 0x00401234 or None (reserved)
    (0x00C000E7, PSE, 40, True, 0x00C01234),
    (0x00C020E7, PSE, 40, True, 0x1_00C01234),
    (0x00DFE0E7, PSE, 40, True, 0xFF_00C01234),
    (0x00E000E7, PSE, 40, True, None),
    (0x00C200E7, PSE, 36, True, None),
    (0x00C1E0E7, PSE, 36, True, 0xF_00C01234),
    (0x00C020E7, PSE, 40, False, None),
    (0x00C010E7, PSE, 40, True, 0x00C01234),
]


@pytest.mark.parametrize(("pde", "cr4", "maxphyaddr", "pse36", "physical"), FOUR_MEGABYTES)
def test_pse_pages(pde: int, cr4: int, maxphyaddr: int, pse36: bool, physical: int | None) -> None:
    memory = Memory()
    memory.put(0x1004, pde, 4)
    features = PagingFeatures(pse36=pse36)
    found = walk(memory, CR0, 0x1000, cr4, 0, 0x00401234, maxphyaddr=maxphyaddr, features=features)
    assert found.physical == physical
    assert translate(memory, CR0, 0x1000, cr4, 0, 0x00401234, maxphyaddr, features) == physical
    if physical is None:
        assert found.fault is not None
        assert found.fault.error_code == P | RSVD


def test_ps_is_ignored_without_pse() -> None:
    memory = Memory()
    memory.put(0x1004, 0x20E7, 4)
    memory.put(0x2004, 0x5067, 4)
    found = walk(memory, CR0, 0x1000, 0, 0, 0x00401234)
    assert found.physical == 0x5234
    assert [s.size for s in found.steps] == [4, 4]


def test_32bit_fetch_has_no_i_bit() -> None:
    memory = Memory()
    memory.put(0x1004, 0x2067, 4)
    found = walk(memory, CR0, 0x1000, 0, 0x800, 0x00401234, fetch=True)
    assert found.fault is not None
    assert found.fault.error_code == 0


# PAE paging, section 4.4


def pae_tables() -> Memory:
    memory = Memory()
    memory.put(0x1020, 0x2001)
    memory.put(0x2000, 0x3067)
    memory.put(0x3008, 0x5067)
    return memory


def test_pae() -> None:
    memory = pae_tables()
    found = walk(memory, CR0, 0x1020, PAE, 0x800, 0x1234, cpl=3, write=True)
    assert found.physical == 0x5234
    assert found.steps[0].flags == ("P",)
    memory.put(0x3008, 0x5067 | 1 << 55)
    found = walk(memory, CR0, 0x1020, PAE, 0x800, 0x1234)
    assert found.fault is not None
    assert "reserved bit 55" in found.fault.reason


def test_pae_pdpte_registers_stand_for_memory() -> None:
    memory = pae_tables()
    registers, why = load_pdptes(memory, 0x1020)
    assert registers == (0x2001, 0, 0, 0)
    assert why == ""
    memory.put(0x1020, 0)
    assert walk(memory, CR0, 0x1020, PAE, 0, 0x1234, pdptes=registers).physical == 0x5234
    assert translate(memory, CR0, 0x1020, PAE, 0, 0x1234, pdptes=registers) == 0x5234
    assert walk(memory, CR0, 0x1020, PAE, 0, 0x1234).physical is None


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 40, 63])
def test_reserved_bits_of_pdptes(bit: int) -> None:
    memory = pae_tables()
    memory.put(0x1020, 0x2001 | 1 << bit)
    registers, why = load_pdptes(memory, 0x1020)
    assert registers is None
    assert f"reserved bit {bit} set" in why
    found = walk(memory, CR0, 0x1020, PAE, 0x800, 0x1234)
    assert found.fault is not None
    assert found.fault.error_code == P | RSVD
    memory.put(0x1020, 0x2000 | 1 << bit)
    assert load_pdptes(memory, 0x1020)[0] is not None


def test_a_table_outside_of_ram_is_said_and_not_guessed() -> None:
    found = walk(long_tables(pde=0x4000_0067), CR0, 0x1000, PAE, LONG, 0x7000)
    assert found.fault is None
    assert found.physical is None
    assert found.unbacked == 0x4000_0038
    assert "outside of RAM" in found.reason
