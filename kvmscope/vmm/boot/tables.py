"""The boot GDT, LDT and TSS, and the descriptors a header declares (SDM vol. 3A sections 3.5, 7.2)."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from kvmscope.errors import ReproducerError
from kvmscope.vmm.boot.layout import (
    GDT_BASE,
    GDT_CAPACITY,
    GDT_SLOTS,
    IDT_BASE,
    IDT_CAPACITY,
    IST_TOPS,
    LDT_BASE,
    LDT_CAPACITY,
    LDT_SLOTS,
    RSP0_STACK_TOP,
    SELECTORS,
    TSS_BASE,
    TSS_BITMAP_OFFSET,
    TSS_LIMIT,
)
from kvmscope.vmm.boot.memory import BootMemory, Labels, at_line
from kvmscope.vmm.config import DescriptorInit, MachineConfig, Mode
from kvmscope.x86.encode import FIELDS, encode
from kvmscope.x86.tss import TSS32, TSS64, TssLayout

__all__ = ["TableLimits", "gdt_bytes", "write_declared_descriptors", "write_descriptor_tables", "write_tss"]

# Slot, kind, fields; the accessed and busy bits are set as loading the registers would have set them.
_GDT: Final[tuple[tuple[int, str, dict[str, int]], ...]] = (
    (SELECTORS.code64, "code", {"bits": 64}),
    (SELECTORS.data, "data", {}),
    (SELECTORS.user_code32, "code", {"bits": 32, "dpl": 3}),
    (SELECTORS.user_data, "data", {"dpl": 3}),
    (SELECTORS.user_code64, "code", {"bits": 64, "dpl": 3}),
    (SELECTORS.user_data2, "data", {"dpl": 3}),
    (SELECTORS.code32, "code", {"bits": 32}),
    (SELECTORS.code16, "code", {"bits": 16, "limit": 0xFFFF}),
    (SELECTORS.data16, "data", {"limit": 0xFFFF, "b": 0}),
    (SELECTORS.tss, "tss", {"base": TSS_BASE, "limit": TSS_LIMIT, "busy": 1}),
    (SELECTORS.ldt, "ldt", {"base": LDT_BASE, "limit": LDT_SLOTS * 8 - 1}),
)
_TABLES: Final = {
    "gdt": (GDT_BASE, GDT_CAPACITY, 8),
    "ldt": (LDT_BASE, LDT_CAPACITY, 8),
    "idt": (IDT_BASE, IDT_CAPACITY, 8),
}


class TableLimits:
    """Limits of the GDT and LDT in bytes; they grow to hold what is declared."""

    def __init__(self) -> None:
        self.gdt = GDT_SLOTS * 8 - 1
        self.ldt = LDT_SLOTS * 8 - 1


@lru_cache
def gdt_bytes(long: bool) -> bytes:
    """The plain GDT as boot lays it out; ``long``: with the system descriptors of IA-32e mode."""
    table = bytearray(GDT_SLOTS * 8)
    for selector, kind, fields in _GDT:
        raw = encode(kind, fields, long=long)
        table[selector & ~7 : (selector & ~7) + len(raw)] = raw
    return bytes(table)


def write_descriptor_tables(memory: BootMemory, mode: Mode) -> None:
    """Put the plain GDT in place; system descriptors are 16 bytes long in long64, 8 bytes elsewhere."""
    memory.write(GDT_BASE, gdt_bytes(mode is Mode.LONG64), "boot GDT")


def write_declared_descriptors(memory: BootMemory, config: MachineConfig, labels: Labels) -> TableLimits:
    """Apply ``[[descriptor]]`` entries and say how long the tables are now.

    Raises ReproducerError for a slot outside the table, an unknown kind or field, or a value that does not fit.
    """
    limits = TableLimits()
    long = config.mode is Mode.LONG64
    for declared in config.descriptors:
        if declared.table not in _TABLES:
            raise ReproducerError(
                f"Unknown descriptor table {declared.table!r}", at_line(declared.line, "table"), "gdt, ldt or idt"
            )
        base, capacity, slot = _TABLES[declared.table]
        if declared.table == "idt" and long:
            slot = 16
        raw = _encode(declared, labels, long)
        start = declared.index * slot
        if declared.index < 0 or start + len(raw) > capacity:
            raise ReproducerError(
                f"Descriptor {declared.index} does not fit in the boot {declared.table.upper()}",
                at_line(declared.line, f"index {declared.index}, {len(raw)} bytes"),
                f"indices 0 to {capacity // slot - 1} fit",
            )
        memory.write(base + start, raw, f"{declared.table} descriptor {declared.index}", declared.line)
        if declared.table == "gdt":
            limits.gdt = max(limits.gdt, start + len(raw) - 1)
        elif declared.table == "ldt":
            limits.ldt = max(limits.ldt, start + len(raw) - 1)
    if limits.ldt != LDT_SLOTS * 8 - 1:
        _raise_ldt_limit(memory, limits.ldt)
    return limits


def _raise_ldt_limit(memory: BootMemory, limit: int) -> None:
    """Let the GDT's LDT descriptor agree with LDTR (limits below 64 KiB: the low 16 bits)."""
    memory.write(GDT_BASE + SELECTORS.ldt, struct.pack("<H", limit), "boot GDT")


def _encode(declared: DescriptorInit, labels: Labels, long: bool) -> bytes:
    place = f"{declared.table} descriptor {declared.index}"
    if declared.value is not None:
        if declared.size not in (8, 16) or not 0 <= declared.value < 1 << 8 * declared.size:
            raise ReproducerError(
                f"A descriptor's value must fit in {declared.size} bytes",
                at_line(declared.line, f"{place}: {declared.value:#x}"),
                "size = 16 for a system descriptor of 64-bit mode",
            )
        return declared.value.to_bytes(declared.size, "little")
    fields = {
        name: labels.resolve(value, f"{place}, field {name}", declared.line) for name, value in declared.fields.items()
    }
    try:
        return encode(declared.kind, fields, long=long)
    except ValueError as error:
        hint = "kinds: " + ", ".join(FIELDS) if declared.kind not in FIELDS else ""
        raise ReproducerError(f"Wrong {place}", at_line(declared.line, str(error)), hint) from error


@lru_cache
def _tss_bytes(long: bool, cr3: int) -> bytes:
    layout = TSS64 if long else TSS32
    fixed = bytearray(layout.size)
    _set(fixed, layout, "iomap", TSS_BITMAP_OFFSET)
    if long:
        _set(fixed, layout, "rsp0", RSP0_STACK_TOP)
        for number, top in enumerate(IST_TOPS, 1):
            _set(fixed, layout, f"ist{number}", top)
    else:
        _set(fixed, layout, "esp0", RSP0_STACK_TOP)
        _set(fixed, layout, "ss0", SELECTORS.data)
        # A switch away never writes these two: they must be right for the switch back (SDM vol. 3A section 7.2.1).
        _set(fixed, layout, "cr3", cr3)
        _set(fixed, layout, "ldt", SELECTORS.ldt)
    return bytes(fixed) + b"\xff" * (TSS_LIMIT + 1 - layout.size)


def _set(tss: bytearray, layout: TssLayout, name: str, value: int) -> None:
    field = layout.field(name)
    tss[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")


def write_tss(memory: BootMemory, config: MachineConfig, cr3: int) -> None:
    """Put the TSS in place: stacks for ring changes, IST1-3 in long64, and the I/O bitmap (0 allows)."""
    memory.write(TSS_BASE, _tss_bytes(config.mode is Mode.LONG64, cr3), "boot TSS")
    if not config.io_permission:
        return
    bitmap = bytearray(b"\xff" * 0x2000)
    for first, last in config.io_permission:
        if not 0 <= first <= last <= 0xFFFF:
            raise ReproducerError(
                "Wrong port range in io_permission", f"[{first:#x}, {last:#x}]", "[first, last], 0 to 0xffff"
            )
        for port in range(first, last + 1):
            bitmap[port >> 3] &= ~(1 << (port & 7)) & 0xFF
    memory.write(TSS_BASE + TSS_BITMAP_OFFSET, bytes(bitmap), "boot TSS")
