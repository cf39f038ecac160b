"""Page tables as a tree: the present entries of one table, and all mappings joined to ranges of equal rights.

Everything is lazy and bounded: a guest may point a table at itself, which makes a tree of 512 ** 4 leaves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kvmscope.x86.paging.formats import (
    CR4_PGE,
    DEFAULT_FEATURES,
    DEFAULT_MAXPHYADDR,
    Format,
    Leaf,
    PageMemory,
    PagingFeatures,
    entry_flags,
    make_format,
)

__all__ = [
    "Mapping",
    "MappingScan",
    "Table",
    "TableEntry",
    "iter_mappings",
    "mapped_ranges",
    "root_table",
    "table_entries",
]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the tree, with the rights that the entries above it leave."""

    format: Format
    depth: int
    """Index in ``format.levels``; 0 is the root."""
    base: int
    """Physical address."""
    linear: int
    """First linear address that the table covers, canonical."""
    writable: bool = True
    user: bool = True
    executable: bool = True
    pge: bool = False
    values: tuple[int, ...] | None = None
    """PDPTE registers standing for the table's memory (PAE paging)."""

    @property
    def name(self) -> str:
        """Name of its entries: ``PML4E``, ..."""
        return self.format.levels[self.depth].name

    @property
    def entries(self) -> int:
        """Number of entries, present or not."""
        return self.format.levels[self.depth].index_mask + 1


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One present entry with the linear range it covers (``first`` to ``last``, inclusive)."""

    level: str
    index: int
    address: int
    value: int
    first: int
    last: int
    flags: tuple[str, ...]
    leaf: bool
    target: int
    """Physical base of the page or of the next table."""
    reserved: int
    """Reserved bits that are set: any access through the entry faults."""
    writable: bool
    """Rights of this entry together with those above it."""
    user: bool
    executable: bool
    child: Table | None
    """The table it points to; None for a page and for a malformed entry."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A run of linear addresses mapped to equally long physical ones with equal rights.

    ``accessed`` and ``dirty`` are None in a joined range whose pages differ.
    """

    linear: int
    physical: int
    size: int
    page_size: int
    writable: bool
    user: bool
    executable: bool
    global_: bool
    pkey: int
    accessed: bool | None
    dirty: bool | None

    @property
    def last(self) -> int:
        """Last linear address."""
        return self.linear + self.size - 1

    @property
    def rights(self) -> str:
        """As ``rwx u g``: r always, then w or -, x or -, u or s, g or nothing."""
        text = f"r{'w' if self.writable else '-'}{'x' if self.executable else '-'} {'u' if self.user else 's'}"
        return text + (" g" if self.global_ else "")


@dataclass(frozen=True, slots=True)
class MappingScan:
    """All mappings as joined ranges; ``truncated`` when the tree holds more tables than were to be read."""

    ranges: tuple[Mapping, ...]
    truncated: bool
    tables: int
    """Tables read."""
    unbacked: tuple[int, ...] = ()
    """Bases of tables that lie outside of RAM (the first few)."""


def root_table(
    cr0: int,
    cr3: int,
    cr4: int,
    efer: int,
    *,
    maxphyaddr: int = DEFAULT_MAXPHYADDR,
    features: PagingFeatures = DEFAULT_FEATURES,
    pdptes: Sequence[int] | None = None,
) -> Table | None:
    """The table that CR3 points to; None without paging."""
    fmt = make_format(cr0, cr4, efer, maxphyaddr, features)
    if fmt is None:
        return None
    values = tuple(pdptes) if pdptes is not None and not fmt.levels[0].has_rights else None
    return Table(fmt, 0, cr3 & fmt.root_mask, 0, pge=bool(cr4 & CR4_PGE), values=values)


def _values(memory: PageMemory, table: Table) -> tuple[int, ...] | None:
    if table.values is not None:
        return table.values
    count, size = table.entries, table.format.entry_size
    data = memory.read(table.base, count * size)
    return None if data is None else struct.unpack(f"<{count}{'Q' if size == 8 else 'I'}", data)


def table_entries(memory: PageMemory, table: Table) -> list[TableEntry] | None:
    """Present entries of one table in order of index; None when the table is not (wholly) in RAM."""
    values = _values(memory, table)
    if values is None:
        return None
    fmt, level = table.format, table.format.levels[table.depth]
    bits = fmt.mode.linear_bits
    extend = (1 << 64) - (1 << bits) if bits > 32 else 0
    out: list[TableEntry] = []
    for index, value in enumerate(values):
        if not value & 1:
            continue
        first = table.linear | index << level.shift
        if extend and first >> bits - 1 & 1:
            first |= extend
        leaf = level.leaf is Leaf.ALWAYS or (level.leaf is Leaf.BY_PS and bool(value & 0x80))
        target = fmt.leaf_target(level, value) if leaf else value & level.table_mask
        reserved = value & (level.leaf_reserved if leaf else level.reserved)
        writable, user, executable = table.writable, table.user, table.executable
        if level.has_rights:
            writable &= bool(value & 2)
            user &= bool(value & 4)
            executable &= not (fmt.entry_size == 8 and value >> 63)
        child = None
        if not leaf and not reserved:
            child = Table(fmt, table.depth + 1, target, first, writable, user, executable, table.pge)
        out.append(
            TableEntry(
                level.name,
                index,
                table.base + index * fmt.entry_size,
                value,
                first,
                first + (1 << level.shift) - 1,
                entry_flags(fmt, level, value, leaf),
                leaf,
                target,
                reserved,
                writable,
                user,
                executable,
                child,
            )
        )
    return out


def _leaf_mapping(table: Table, entry: TableEntry) -> Mapping:
    size = entry.last - entry.first + 1
    ignores_keys = table.format.mode.linear_bits <= 32
    return Mapping(
        entry.first,
        entry.target,
        size,
        size,
        entry.writable,
        entry.user,
        entry.executable,
        bool(table.pge and entry.value >> 8 & 1),
        0 if ignores_keys else entry.value >> 59 & 0xF,
        bool(entry.value >> 5 & 1),
        bool(entry.value >> 6 & 1),
    )


def iter_mappings(memory: PageMemory, root: Table | None) -> Iterator[Mapping]:
    """Every mapped page in order of linear address; unbounded when tables recurse: take what you need.

    Entries with reserved bits set and tables outside of RAM map nothing.
    """
    return (mapping for _, mapping in _scan(memory, root) if mapping is not None)


def _scan(memory: PageMemory, root: Table | None) -> Iterator[tuple[Table, Mapping | None]]:
    """Depth first: (table, None) when a table is entered, (table, mapping) for each leaf."""
    if root is None:
        return
    stack: list[Table | tuple[Table, TableEntry]] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            yield item[0], _leaf_mapping(*item)
            continue
        yield item, None
        entries = table_entries(memory, item)
        if entries is None:
            continue
        if all(entry.child is None for entry in entries):
            for entry in entries:
                if not entry.reserved:
                    yield item, _leaf_mapping(item, entry)
            continue
        for entry in reversed(entries):
            if entry.child is not None:
                stack.append(entry.child)
            elif not entry.reserved:
                stack.append((item, entry))


def _joined(left: Mapping, right: Mapping) -> Mapping | None:
    """``left`` grown by ``right``, if that continues it."""
    if (
        left.linear + left.size != right.linear
        or left.physical + left.size != right.physical
        or left.page_size != right.page_size
        or (left.writable, left.user, left.executable, left.global_, left.pkey)
        != (right.writable, right.user, right.executable, right.global_, right.pkey)
    ):
        return None
    return replace(
        left,
        size=left.size + right.size,
        accessed=left.accessed if left.accessed == right.accessed else None,
        dirty=left.dirty if left.dirty == right.dirty else None,
    )


def mapped_ranges(memory: PageMemory, root: Table | None, *, max_tables: int = 4096) -> MappingScan:
    """All mappings joined where linear and physical addresses run on with equal page size, rights and key.

    Reads at most ``max_tables`` tables (4096 of 4 KiB entries cover 8 GiB) and says when there were more.
    """
    ranges: list[Mapping] = []
    unbacked: list[int] = []
    tables = 0
    for table, mapping in _scan(memory, root):
        if mapping is None:
            if tables == max_tables:
                return MappingScan(tuple(ranges), True, tables, tuple(unbacked))
            tables += 1
            if table.values is None and len(unbacked) < 8:
                size = table.entries * table.format.entry_size
                if memory.read(table.base, size) is None:
                    unbacked.append(table.base)
            continue
        joined = _joined(ranges[-1], mapping) if ranges else None
        if joined is None:
            ranges.append(mapping)
        else:
            ranges[-1] = joined
    return MappingScan(tuple(ranges), False, tables, tuple(unbacked))
