"""Tables as a tree, and mappings joined to ranges."""

from __future__ import annotations

from kvmscope.x86.paging import iter_mappings, mapped_ranges, root_table, table_entries
from tests.x86.support import CR0, LA57, LONG, NX, PAE, PSE, Memory, long_tables


def identity() -> Memory:
    """2 MiB in 4 KiB pages, then 2 MiB pages up to 1 GiB, as the boot tables are."""
    memory = long_tables(pde=0x4063)
    for i in range(512):
        memory.put(0x4000 + 8 * i, i << 12 | 0x63)
        if i:
            memory.put(0x3000 + 8 * i, i << 21 | 0xE3)
    return memory


def test_entries_of_each_level() -> None:
    memory = identity()
    memory.put(0x1000 + 8 * 511, 0x2063)
    root = root_table(CR0, 0x1000, PAE, LONG)
    assert root is not None
    top = table_entries(memory, root)
    assert top is not None
    assert [(e.level, e.index, e.first, e.last) for e in top] == [
        ("PML4E", 0, 0, (1 << 39) - 1),
        ("PML4E", 511, 0xFFFF_FF80_0000_0000, 0xFFFF_FFFF_FFFF_FFFF),
    ]
    assert top[0].child is not None
    pdptes = table_entries(memory, top[0].child)
    assert pdptes is not None
    assert pdptes[0].child is not None
    pdes = table_entries(memory, pdptes[0].child)
    assert pdes is not None
    assert len(pdes) == 512
    assert not pdes[0].leaf
    assert pdes[1].leaf
    assert pdes[1].child is None
    assert pdes[1].target == 0x200000
    assert pdes[511].last == (1 << 30) - 1
    assert pdes[511].flags == ("P", "RW", "A", "D", "PS")


def test_ranges_join_equal_rights() -> None:
    memory = identity()
    memory.put(0x4038, 0x7061)
    memory.put(0x4040, 0x8063 | NX)
    memory.put(0x4048, 0x20063)
    memory.put(0x4050, 0)
    scan = mapped_ranges(memory, root_table(CR0, 0x1000, PAE, LONG))
    assert not scan.truncated
    assert scan.tables == 4
    assert [(r.linear, r.size, r.physical, r.rights, r.page_size) for r in scan.ranges] == [
        (0x0, 0x7000, 0x0, "rwx s", 0x1000),
        (0x7000, 0x1000, 0x7000, "r-x s", 0x1000),
        (0x8000, 0x1000, 0x8000, "rw- s", 0x1000),
        (0x9000, 0x1000, 0x20000, "rwx s", 0x1000),
        (0xB000, 0x200000 - 0xB000, 0xB000, "rwx s", 0x1000),
        (0x200000, (1 << 30) - 0x200000, 0x200000, "rwx s", 0x200000),
    ]


def test_accessed_and_dirty_do_not_split_ranges() -> None:
    memory = identity()
    memory.put(0x4038, 0x7003)
    scan = mapped_ranges(memory, root_table(CR0, 0x1000, PAE, LONG))
    assert [(r.linear, r.accessed, r.dirty) for r in scan.ranges] == [(0, None, None), (0x200000, True, True)]


def test_rights_of_upper_levels_count() -> None:
    memory = long_tables(pdpte=0x3065 | NX)
    mapping = next(iter_mappings(memory, root_table(CR0, 0x1000, PAE, LONG)))
    assert (mapping.writable, mapping.user, mapping.executable) == (False, True, False)


def test_entries_with_reserved_bits_map_nothing() -> None:
    memory = long_tables(pte=0x7067 | 1 << 45)
    root = root_table(CR0, 0x1000, PAE, LONG)
    assert list(iter_mappings(memory, root)) == []
    memory = long_tables(pde=0x4067 | 1 << 45)
    scan = mapped_ranges(memory, root)
    assert (scan.ranges, scan.tables) == ((), 3)


def test_a_recursive_tree_is_bounded() -> None:
    memory = Memory()
    for i in range(512):
        memory.put(0x1000 + 8 * i, 0x1067)
    scan = mapped_ranges(memory, root_table(CR0, 0x1000, LA57, LONG), max_tables=20)
    assert scan.truncated
    assert scan.tables == 20


def test_tables_outside_of_ram_are_listed() -> None:
    scan = mapped_ranges(long_tables(pde=0x4000_0067), root_table(CR0, 0x1000, PAE, LONG))
    assert scan.unbacked == (0x4000_0000,)
    root = root_table(CR0, 0x4000_0000, PAE, LONG)
    assert root is not None
    assert table_entries(Memory(), root) is None


def test_32bit_and_pae() -> None:
    memory = Memory()
    memory.put(0x1004, 0x00C000E7, 4)
    memory.put(0x1008, 0x2067, 4)
    memory.put(0x2004, 0x5067, 4)
    scan = mapped_ranges(memory, root_table(CR0, 0x1000, PSE, 0))
    assert [(r.linear, r.physical, r.size) for r in scan.ranges] == [
        (0x400000, 0xC00000, 0x400000),
        (0x801000, 0x5000, 0x1000),
    ]
    memory = Memory()
    memory.put(0x1020 + 24, 0x2001)
    memory.put(0x2000, 0x2000E7)
    scan = mapped_ranges(memory, root_table(CR0, 0x1020, PAE, 0))
    assert [(r.linear, r.physical, r.size) for r in scan.ranges] == [(0xC0000000, 0x200000, 0x200000)]
    registers = root_table(CR0, 0x1020, PAE, 0, pdptes=(0x2001, 0, 0, 0))
    assert [r.linear for r in mapped_ranges(memory, registers).ranges] == [0]


def test_no_tree_without_paging() -> None:
    assert root_table(0x11, 0x1000, 0, 0) is None
    assert mapped_ranges(Memory(), None).ranges == ()
