"""Task-state segments as field tables (SDM vol. 3A sections 7.2.1, 7.6 and 7.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["TSS16", "TSS32", "TSS64", "TSS_LAYOUTS", "TssField", "TssLayout", "decode_tss", "port_allowed"]


@dataclass(frozen=True, slots=True)
class TssField:
    """One field: byte ``offset`` and ``size`` in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TssLayout:
    """A TSS format; ``size`` is that of the fixed part and ``minimum_limit`` the smallest limit LTR's user may rely on."""

    bits: int
    size: int
    fields: tuple[TssField, ...]

    @property
    def minimum_limit(self) -> int:
        """Smallest valid limit: size - 1 (0x2b, 0x67)."""
        return self.size - 1

    def field(self, name: str) -> TssField:
        """The field called ``name``; KeyError if there is none."""
        for found in self.fields:
            if found.name == name:
                return found
        raise KeyError(name)


def _fields(*rows: tuple[str, int, int]) -> tuple[TssField, ...]:
    return tuple(TssField(*row) for row in rows)


TSS16: Final = TssLayout(
    16,
    44,
    tuple(
        TssField(name, 2 * i, 2)
        for i, name in enumerate(
            [
                "link",
                "sp0",
                "ss0",
                "sp1",
                "ss1",
                "sp2",
                "ss2",
                "ip",
                "flags",
                "ax",
                "cx",
                "dx",
                "bx",
                "sp",
                "bp",
                "si",
                "di",
                "es",
                "cs",
                "ss",
                "ds",
                "ldt",
            ]
        )
    ),
)
TSS32: Final = TssLayout(
    32,
    104,
    (
        *_fields(("link", 0, 2), ("esp0", 4, 4), ("ss0", 8, 2), ("esp1", 12, 4), ("ss1", 16, 2)),
        *_fields(("esp2", 20, 4), ("ss2", 24, 2)),
        *(
            TssField(name, 28 + 4 * i, 4)
            for i, name in enumerate(["cr3", "eip", "eflags", "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"])
        ),
        *(TssField(name, 72 + 4 * i, 2) for i, name in enumerate(["es", "cs", "ss", "ds", "fs", "gs", "ldt"])),
        # Bit 0 of the word at 100 is T: raise #DB when a switch to the task completes.
        *_fields(("trap", 100, 2), ("iomap", 102, 2)),
    ),
)
TSS64: Final = TssLayout(
    64,
    104,
    (
        *(TssField(f"rsp{i}", 4 + 8 * i, 8) for i in range(3)),
        *(TssField(f"ist{i + 1}", 36 + 8 * i, 8) for i in range(7)),
        TssField("iomap", 102, 2),
    ),
)
TSS_LAYOUTS: Final[Mapping[int, TssLayout]] = {16: TSS16, 32: TSS32, 64: TSS64}
"""By the descriptor's `bits`."""


def decode_tss(data: bytes, bits: int) -> dict[str, int]:
    """Field values of a TSS; fields that lie beyond ``data`` are left out."""
    return {
        f.name: int.from_bytes(data[f.offset : f.offset + f.size], "little")
        for f in TSS_LAYOUTS[bits].fields
        if f.offset + f.size <= len(data)
    }


def port_allowed(data: bytes, port: int, size: int) -> bool:
    """Whether a 32-bit or 64-bit TSS's I/O permission bitmap lets ``size`` bytes at ``port`` through.

    ``data`` is the whole segment up to its limit.  The processor reads two bytes of the map whatever the port, so a map
    that ends exactly at the limit refuses its last eight ports (SDM vol. 1 section 19.5.2).
    """
    if len(data) < TSS32.size:
        return False
    position = int.from_bytes(data[102:104], "little") + (port >> 3)
    if position + 2 > len(data):
        return False
    bits = int.from_bytes(data[position : position + 2], "little")
    return not bits >> (port & 7) & (1 << size) - 1
