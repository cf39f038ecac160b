"""GDT, LDT, IDT (or IVT) and TSS as they stand in memory: decoded words, what is wrong, and which selectors are loaded.

Gates that are alike make one row: the boot stubs, and runs of empty ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.reader import Reader, Symbols
from kvmscope.ui.render.text import CHANGED, UNCHANGED, fold_header, hex_spans, message, row
from kvmscope.ui.view import View
from kvmscope.vmm.boot.layout import stub_address
from kvmscope.x86.descriptors import Descriptor, iter_table
from kvmscope.x86.exceptions import mnemonic
from kvmscope.x86.state import SEGMENT_NAMES, Seg
from kvmscope.x86.tss import TSS_LAYOUTS

__all__ = ["PARTS", "descriptor_rows"]

PARTS: Final = ("gdt", "idt", "tss", "ldt")
_VECTORS: Final = 256
_STUBS: Final = "boot stubs: the machine stops"


@dataclass(frozen=True, slots=True)
class _Slot:
    """One descriptor with where it stands and what stood there before the last command."""

    index: int
    found: Descriptor
    address: int
    old: int | None


def descriptor_rows(view: View, width: int, folded: frozenset[str]) -> list[Row]:
    """All rows of the panel; the caller windows them."""
    reader = Reader(view)
    cpu = view.snapshot.cpu
    real = not cpu.cr0 & 1
    rows: list[Row] = []
    for part in PARTS:
        if real and part != "idt":
            continue
        title, body = _part(reader, part, width, real)
        changed = any(line.spans and line.spans[0] == CHANGED for line in body)
        rows.append(fold_header(width, part, title, folded=part in folded, changed=changed))
        if part not in folded:
            rows += body
    if real:
        rows.append(message(width, "real-address mode: selectors name no descriptors", "comment"))
    return rows


def _part(reader: Reader, part: str, width: int, real: bool) -> tuple[str, Sequence[Row]]:
    cpu = reader.cpu
    if part == "gdt":
        title = f"GDT {cpu.gdtr.base:x} limit {cpu.gdtr.limit:x}"
        return title, _segment_table(reader, width, cpu.gdtr.base, cpu.gdtr.limit, 0)
    if part == "ldt":
        ldtr = cpu.segments[Seg.LDTR]
        if not ldtr.selector & 0xFFFC or not ldtr.present:
            return "LDT none", []
        title = f"LDT {ldtr.base:x} limit {ldtr.limit:x}"
        return title, _segment_table(reader, width, ldtr.base, ldtr.limit, 4)
    if part == "idt":
        name = "IVT" if real else "IDT"
        title = f"{name} {cpu.idtr.base:x} limit {cpu.idtr.limit:x}"
        return title, _vectors(reader, width) if real else _gates(reader, width)
    return _task(reader, width)


def _table_bytes(reader: Reader, base: int, size: int) -> tuple[bytes, bytes | None] | None:
    """(bytes, bytes before the last command if others) of a table; None when its memory cannot be read."""
    data = reader.read(base, size)
    if data is None:
        return None
    return data, _before(reader, base, data) if reader.changes else None


def _slots(data: bytes, before: bytes | None, base: int, long: bool, *, idt: bool) -> list[_Slot]:
    step = 16 if long and idt else 8
    slots = []
    for index, found in iter_table(data, long=long, idt=idt):
        old = None
        if before is not None:
            was = int.from_bytes(before[index * step : index * step + found.size], "little")
            old = was if was != found.raw else None
        slots.append(_Slot(index, found, base + index * step, old))
    return slots


def _before(reader: Reader, base: int, data: bytes) -> bytes | None:
    """The table's bytes before the last command; None when they are the same."""
    out = bytearray(data)
    changed = False
    position = 0
    while position < len(data):
        chunk = min(len(data) - position, 0x1000 - (base + position & 0xFFF))
        where = reader.physical(base + position)
        old = None if where is None else reader.old_bytes(where, data[position : position + chunk])
        if old is not None:
            out[position : position + chunk] = old
            changed = True
        position += chunk
    return bytes(out) if changed else None


def _selected(reader: Reader, ti: int) -> Mapping[int, tuple[str, ...]]:
    """Which segment registers hold which descriptor of the GDT (``ti`` 0) or LDT (4)."""
    out: dict[int, tuple[str, ...]] = {}
    for name, segment in zip(SEGMENT_NAMES, reader.cpu.segments, strict=True):
        if segment.selector & 4 == ti and segment.selector & 0xFFFC:
            index = segment.selector >> 3
            out[index] = (*out.get(index, ()), name)
    return out


def _segment_table(reader: Reader, width: int, base: int, limit: int, ti: int) -> tuple[Row, ...]:
    found = _table_bytes(reader, base, min(limit, 0xFFFF) + 1)
    if found is None:
        return (message(width, "✗ not mapped, or not RAM", "error"),)
    users = tuple(sorted(_selected(reader, ti).items()))
    return _segment_rows(*found, base, bool(reader.cpu.efer >> 10 & 1), users, ti, width)


@lru_cache(maxsize=16)
def _segment_rows(
    data: bytes,
    before: bytes | None,
    base: int,
    long: bool,
    users: tuple[tuple[int, tuple[str, ...]], ...],
    ti: int,
    width: int,
) -> tuple[Row, ...]:
    """A table's rows, kept by its contents: it may hold 8192 descriptors."""
    by_index = dict(users)
    who = max((len(",".join(names)) for names in by_index.values()), default=0)
    rows: list[Row] = []
    empty: list[_Slot] = []
    for slot in _slots(data, before, base, long, idt=False):
        if slot.found.raw == 0 and slot.old is None:
            empty.append(slot)
            continue
        _flush_empty(rows, empty, width, ti)
        rows.append(_segment_row(slot, ",".join(by_index.get(slot.index, ())), who, ti, width))
    _flush_empty(rows, empty, width, ti)
    return tuple(rows)


def _flush_empty(rows: list[Row], empty: list[_Slot], width: int, ti: int) -> None:
    if not empty:
        return
    first, last = empty[0].index << 3 | ti, empty[-1].index << 3 | ti
    text = f"{first:04x}" if first == last else f"{first:04x}-{last:04x}"
    rows.append(row(width, (Span(f" {text:<10} ", "zero"), Span("null", "zero"))))
    empty.clear()


def _segment_row(slot: _Slot, users: str, longest: int, ti: int, width: int) -> Row:
    found = slot.found
    spans = [CHANGED if slot.old is not None else UNCHANGED]
    spans.append(Span(f"{slot.index << 3 | ti:04x} ", "name"))
    wide = width >= 70
    if wide:
        spans += (*hex_spans(found.raw & (1 << 64) - 1, 16, _low(slot.old), "bytes"), Span(" "))
    mark = f"◂{users}" if users else ""
    spans.append(Span(f"{mark:<{longest + 2}}" if wide else f"{mark} " if mark else "", "accent"))
    problems = found.problems()
    if problems:
        spans.append(Span(f"✗ {'; '.join(problems)}: ", "error"))
    spans += _words(found)
    return row(width, spans, key=_table_key(slot))


def _low(value: int | None) -> int | None:
    return None if value is None else value & (1 << 64) - 1


def _table_key(slot: _Slot) -> Key:
    return Key(Kind.MEMORY, slot.address, f"{slot.address:#x}", slot.address)


def _words(found: Descriptor) -> list[Span]:
    """``code64 dpl0 xr base 0 limit ffffffff``: kind in the colour of values, the particulars dim."""
    kind = found.kind
    if kind in ("null", "reserved"):
        return [Span(found.describe(), "dim")]
    spans = [Span(f"{kind}{found.bits or ''}", "value")]
    spans.append(Span(f" dpl{found.dpl}", "warn" if found.dpl else "dim"))
    if found.is_gate:
        where = f" {found.selector:04x}" + ("" if kind == "task-gate" else f":{found.offset:08x}")
        return [*spans, Span(where, "value"), Span(f" count {found.count}" if found.count else "", "dim")]
    words: list[str] = []
    if kind == "code":
        words = ["xr" if found.type & 2 else "x", *["conforming"] * (found.type >> 2 & 1)]
    elif kind == "data":
        words = ["rw" if found.type & 2 else "r", *["expand-down"] * (found.type >> 2 & 1)]
    elif kind == "tss":
        words = ["busy" if found.type & 2 else "available"]
    if kind in ("code", "data") and not found.type & 1:
        words.append("not accessed")
    spans.append(Span("".join(f" {word}" for word in words), "dim"))
    for name, value in (("base", found.base), ("limit", found.limit)):
        spans += (Span(f" {name} ", "comment"), Span(f"{value:x}", "dim"))
    return spans


def _gates(reader: Reader, width: int) -> tuple[Row, ...]:
    idtr = reader.cpu.idtr
    long = bool(reader.cpu.efer >> 10 & 1)
    size = min(idtr.limit + 1, _VECTORS * (16 if long else 8))
    found = _table_bytes(reader, idtr.base, size)
    if found is None:
        return (message(width, "✗ not mapped, or not RAM", "error"),)
    return _gate_rows(*found, idtr.base, long, reader.symbols, width)


@lru_cache(maxsize=16)
def _gate_rows(
    data: bytes, before: bytes | None, base: int, long: bool, symbols: Symbols, width: int
) -> tuple[Row, ...]:
    rows: list[Row] = []
    run: list[_Slot] = []
    kind = ""
    for slot in _slots(data, before, base, long, idt=True):
        now = _gate_class(slot)
        if run and (now != kind or not now):
            _flush_gates(rows, run, kind, width)
        kind = now
        if now:
            run.append(slot)
        else:
            rows.append(_gate_row(slot, width, symbols.words(slot.found.offset)))
    _flush_gates(rows, run, kind, width)
    return tuple(rows)


def _gate_class(slot: _Slot) -> str:
    """``stub`` or ``empty`` for gates that need no row of their own."""
    if slot.old is not None:
        return ""
    if slot.found.raw == 0:
        return "empty"
    plain = slot.found.kind == "interrupt-gate" and not slot.found.problems()
    return "stub" if plain and slot.found.offset == stub_address(slot.index) and not slot.found.ist else ""


def _flush_gates(rows: list[Row], run: list[_Slot], kind: str, width: int) -> None:
    if not run:
        return
    first, last = run[0].index, run[-1].index
    text = f"{first:02x}" if first == last else f"{first:02x}-{last:02x}"
    words = _STUBS if kind == "stub" else "empty"
    key = _table_key(run[0])
    rows.append(row(width, (Span(f" {text:<10} ", "comment"), Span(words, "comment")), key=key))
    run.clear()


def _gate_row(slot: _Slot, width: int, symbol: str) -> Row:
    found = slot.found
    spans = [CHANGED if slot.old is not None else UNCHANGED]
    spans += (Span(f"{slot.index:02x} ", "name"), Span(f"{mnemonic(slot.index):<8} ", "value"))
    problems = found.problems()
    if not found.is_gate:
        problems = (*problems, f"{found.kind} is no gate") if found.kind != "null" else ("empty",)
    if problems:
        spans.append(Span(f"✗ {'; '.join(problems)} ", "error"))
    if found.is_gate and found.kind == "task-gate":
        spans += (Span("task ", "dim"), *hex_spans(found.selector, 4))
    elif found.is_gate:
        spans.append(Span(f"{found.kind.removesuffix('-gate')}{found.bits} ", "dim"))
        spans += (*hex_spans(found.selector, 4), Span(":", "operator"))
        spans += hex_spans(found.offset, 8 if found.offset >> 32 == 0 else 16)
    spans.append(Span(f" dpl{found.dpl}" if found.dpl else "", "warn"))
    spans.append(Span(f" ist{found.ist}" if found.ist else "", "warn"))
    spans.append(Span(f" {symbol}" if symbol and found.is_gate else "", "symbol"))
    if width >= 84:
        digits = 2 * found.size
        spans += (Span("  "), *hex_spans(found.raw, digits, slot.old, "bytes"))
    return row(width, spans, key=_table_key(slot))


def _vectors(reader: Reader, width: int) -> tuple[Row, ...]:
    """The interrupt vector table of real-address mode: offset and segment by vector."""
    idtr = reader.cpu.idtr
    found = _table_bytes(reader, idtr.base, min(idtr.limit + 1, 4 * _VECTORS))
    if found is None:
        return (message(width, "✗ not mapped, or not RAM", "error"),)
    return _vector_rows(*found, reader.symbols, width)


@lru_cache(maxsize=16)
def _vector_rows(data: bytes, before: bytes | None, symbols: Symbols, width: int) -> tuple[Row, ...]:
    rows: list[Row] = []
    run: list[int] = []
    kind = ""

    def flush() -> None:
        if run:
            text = f"{run[0]:02x}" if len(run) == 1 else f"{run[0]:02x}-{run[-1]:02x}"
            rows.append(row(width, (Span(f" {text:<10} ", "comment"), Span(kind, "comment"))))
            run.clear()

    for vector in range(len(data) // 4):
        at = 4 * vector
        offset, segment = (int.from_bytes(data[i : i + 2], "little") for i in (at, at + 2))
        changed = before is not None and before[at : at + 4] != data[at : at + 4]
        address = (segment << 4) + offset
        now = _STUBS if address == stub_address(vector) else "0000:0000" if not address else ""
        if run and now != kind:
            flush()
        kind = now
        if now and not changed:
            run.append(vector)
            continue
        old = int.from_bytes(before[at : at + 4], "little") if before is not None else None
        spans = (
            CHANGED if changed else UNCHANGED, Span(f"{vector:02x} ", "name"), Span(f"{mnemonic(vector):<8} "),
            *hex_spans(segment, 4, None if old is None else old >> 16), Span(":", "operator"),
            *hex_spans(offset, 4, None if old is None else old & 0xFFFF), Span(f" {symbols.words(address)}", "symbol"),
        )  # fmt: skip
        rows.append(row(width, spans, key=Key(Kind.CODE, address, "", address)))
    flush()
    return tuple(rows)


def _task(reader: Reader, width: int) -> tuple[str, list[Row]]:
    """The task-state segment that TR names, by its format, with what its I/O map says."""
    cpu = reader.cpu
    tr = cpu.segments[Seg.TR]
    if not tr.selector & 0xFFFC:
        return "TSS none", []
    bits = 64 if cpu.efer >> 10 & 1 else 32 if tr.type & 8 else 16
    title = f"TSS{bits} {tr.base:x} limit {tr.limit:x} selector {tr.selector:x}"
    layout = TSS_LAYOUTS[bits]
    if tr.limit < layout.minimum_limit:
        title += f" ✗ limit below {layout.minimum_limit:x}"
    size = min(tr.limit + 1, layout.size)
    data = reader.read(tr.base, size)
    if data is None:
        return title, [message(width, "✗ not mapped, or not RAM", "error")]
    before = (_before(reader, tr.base, data) if reader.changes else None) or data
    cells: list[tuple[Span, ...]] = []
    longest = max(len(field.name) for field in layout.fields)
    for field in layout.fields:
        end = field.offset + field.size
        if end > len(data):
            continue
        value = int.from_bytes(data[field.offset : end], "little")
        old = int.from_bytes(before[field.offset : end], "little")
        cells.append((
            CHANGED if old != value else UNCHANGED,
            Span(f"{field.name:<{longest}} ", "name"),
            *hex_spans(value, 2 * field.size, old),
            Span(" " * (2 * layout.bits // 8 - 2 * field.size) + " "),
        ))  # fmt: skip
    each = 3 + longest + layout.bits // 4
    columns = max(1, width // each)
    rows: list[Row] = []
    for at in range(0, len(cells), columns):
        line = cells[at : at + columns]
        spans = [span for cell in line for span in cell]
        # A change anywhere in the line is told at its beginning, where the eye looks for it.
        rows.append(row(width, spans, key=Key(Kind.MEMORY, tr.base, f"{tr.base:#x}", tr.base)))
    rows += _io_map(tr.limit, int.from_bytes(data[102:104], "little") if len(data) >= 104 else None, width)
    return title, rows


def _io_map(limit: int, base: int | None, width: int) -> list[Row]:
    if base is None:
        return []
    words = (
        f"I/O map at +{base:x}" if base <= limit else f"I/O map at +{base:x} is beyond the limit: every port is refused"
    )
    return [message(width, words, "comment")]
