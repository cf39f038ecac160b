"""Memory as hexadecimal and ASCII, linear or physical, following a register or standing still.

``··`` is not mapped; ``▒▒`` is mapped but not RAM (device memory is shown to be there, never read).  A changed byte has
its changed digits marked and its row begins with ``▸``; ``›`` stands before the byte that the followed register points to.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.render.text import CHANGED, UNCHANGED, clip, printable, width_of
from kvmscope.ui.view import Space, View
from kvmscope.x86.state import GPR_NAMES, Seg

__all__ = ["Target", "bytes_per_row", "memory_rows", "memory_target", "place_memory", "row_digits"]

_UNMAPPED: Final = "··"
_DEVICE: Final = "▒▒"
_SIZES: Final = (32, 16, 8, 4, 2, 1)


class Target(NamedTuple):
    """What the panel looks at."""

    address: int
    space: Space
    register: str
    """The register followed; empty when the address stands still."""

    @property
    def title(self) -> str:
        """``rsp``, ``0x7000`` or ``physical 0x7000``."""
        where = self.register or f"{self.address:#x}"
        return where if self.space is Space.LINEAR else f"physical {where}"


def memory_target(view: View) -> Target:
    """The address looked at: a register's when one is followed, the one chosen, else the stack pointer's."""
    focus = view.focus
    if focus.memory is not None and not focus.memory_register:
        return Target(focus.memory, focus.memory_space, "")
    register = focus.memory_register or "rsp"
    if register == "cr3":
        return Target(view.snapshot.cpu.cr3 & ~0xFFF & (1 << 52) - 1, Space.PHYSICAL, register)
    address = Reader(view).pointer(register)
    if address is None:
        return Target(focus.memory or 0, focus.memory_space, "")
    return Target(address, Space.LINEAR, register)


def row_digits(address: int) -> int:
    """Digits of the addresses of a window that begins at ``address``."""
    return 16 if address >> 47 else 12 if address >> 32 else 8


def _row_width(count: int, digits: int) -> int:
    return 1 + digits + 3 * count + (count - 1) // 8 * (count >= 16) + 1 + count


def bytes_per_row(width: int, digits: int) -> int:
    """The most bytes, a power of two, that fit; 16 at most unless there is room for 32."""
    for count in _SIZES:
        if _row_width(count, digits) <= width:
            return count
    return 1


def place_memory(target: int, anchor: int | None, per_row: int, height: int) -> int:
    """First address to show: ``anchor`` while ``target`` is in the first three quarters of the window."""
    if anchor is not None and anchor % per_row == 0 and 0 <= target - anchor < per_row * max(1, height * 3 // 4):
        return anchor
    return target - target % per_row


def memory_rows(view: View, width: int, height: int, anchor: int, target: Target) -> list[Row]:
    """Exactly ``height`` rows from ``anchor`` on."""
    reader = Reader(view)
    digits = row_digits(anchor)
    per_row = bytes_per_row(width, digits)
    physical_space = target.space is Space.PHYSICAL
    mask = (1 << 52) - 1 if physical_space else reader.address_mask
    pointers = _pointers(reader) if not physical_space else {}
    rows: list[Row] = []
    for line in range(height):
        address = anchor + line * per_row & mask
        physical = address if physical_space else reader.physical(address)
        data = None if physical is None else reader.memory.read(physical, per_row)
        old = None
        if data is not None and physical is not None and reader.changes:
            old = reader.old_bytes(physical, data)
        inside = target.address - address
        pointed = inside if target.register and 0 <= inside < per_row else -1
        names = tuple(name for at, name in pointers.items() if 0 <= at - address < per_row) if pointers else ()
        label = "" if physical_space else _label(reader, address, per_row)
        rows.append(_draw(width, digits, per_row, address, physical, data, old, pointed, names, label))
    return rows


def _pointers(reader: Reader) -> dict[int, str]:
    """Where RSP, RBP, RSI, RDI and RIP point, for the margin."""
    cpu = reader.cpu
    stack = reader.segment_base(Seg.SS)
    mask = reader.address_mask
    out = {cpu.pc: "rip"}
    for number, base in ((7, reader.segment_base(Seg.ES)), (6, reader.segment_base(Seg.DS)), (5, stack), (4, stack)):
        out[cpu.gpr[number] + base & mask] = GPR_NAMES[number]
    return out


def _label(reader: Reader, address: int, size: int) -> str:
    """The first label inside of a row."""
    for at in range(address, address + size):
        name = reader.symbols.at(at)
        if name is not None:
            return name
    return ""


@lru_cache(maxsize=2048)
def _draw(
    width: int,
    digits: int,
    per_row: int,
    address: int,
    physical: int | None,
    data: bytes | None,
    old: bytes | None,
    pointed: int,
    names: tuple[str, ...],
    label: str,
) -> Row:
    text = f"{address:0{digits}x}"
    zeros = len(text) - max(1, len(text.lstrip("0")))
    spans = [CHANGED if old is not None else UNCHANGED]
    spans += (Span(text[:zeros], "zero"), Span(text[zeros:], "addr"))
    ascii_spans: list[Span] = []
    for i in range(per_row):
        if i and i % 8 == 0 and per_row >= 16:
            spans.append(Span(" "))
        spans.append(Span("›", "accent") if i == pointed else Span(" "))
        if data is None or physical is None:
            spans.append(Span(_UNMAPPED if physical is None else _DEVICE, "rule"))
            ascii_spans.append(Span(" "))
            continue
        byte = data[i]
        key = Key(Kind.BYTE, physical + i, f"{byte:02x}", address + i)
        before = byte if old is None else old[i]
        if before == byte:
            spans.append(Span(f"{byte:02x}", "value" if byte else "zero", key))
        else:
            for shift in (4, 0):
                changed = (byte ^ before) >> shift & 15
                spans.append(Span(f"{byte >> shift & 15:x}", "changed" if changed else "value", key))
        style = "changed" if before != byte else "ascii" if 32 <= byte < 127 else "zero"
        if ascii_spans and ascii_spans[-1].style == style:
            ascii_spans[-1] = Span(ascii_spans[-1].text + printable(byte), style)
        else:
            ascii_spans.append(Span(printable(byte), style))
    spans.append(Span("  " if _row_width(per_row, digits) < width else " "))
    spans += ascii_spans
    margin = "  " + " ".join([*names, *([f"{label}:"] if label else [])])
    if margin.strip() and width_of(spans) + 6 <= width:
        spans.append(Span(margin, "symbol"))
    # A row where nothing can be edited can still be pointed at.
    return Row(clip(spans, width), Key(Kind.WALK, address, "", address) if data is None else None)
