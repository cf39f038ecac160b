"""The disassembly around RIP (or the address looked at), one row an instruction, with labels in rows of their own.

The window stays where it is while the current instruction is inside of it: stepping then repaints two rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.branches import branch_target, taken
from kvmscope.ui.render.listing import Entry, entries_before, entries_from
from kvmscope.ui.render.lookahead import look_ahead
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.render.syntax import operand_spans
from kvmscope.ui.render.text import BLANK, CHANGED, clip, row, width_of
from kvmscope.ui.view import View
from kvmscope.x86.state import Seg

__all__ = ["disassembly_rows", "place_window", "scroll_window"]

_FOOTER_FROM = 8
"""Lines from which on one is spent on the look-ahead."""
_WIDE, _BYTES = 96, 58
"""Cells from which on the nearest label, and the bytes, have a column."""


class _Branch(NamedTuple):
    """Rows between the current branch and its target: first and last of the arrow, and where it points."""

    source: int
    target: int
    will: bool


def place_window(view: View, anchor: int | None, height: int) -> int:
    """First address to show: ``anchor`` while the address looked at is well inside of the window, else a new one."""
    reader = Reader(view)
    target = view.snapshot.cpu.pc if view.focus.code is None else view.focus.code
    room = _room(height)
    if anchor is not None and anchor <= target <= anchor + 16 * room:
        shown = _fill(reader, anchor, room)
        at = next((i for i, (address, entry) in enumerate(shown) if entry is not None and address == target), -1)
        if 0 <= at < max(1, room - 2):
            return anchor
    before = entries_before(reader, target, max(0, room // 3), view.snapshot.cpu.mode)
    return before[0].address if before else target


def scroll_window(view: View, anchor: int, lines: int) -> int:
    """``anchor`` moved by ``lines`` instructions."""
    reader = Reader(view)
    bits = view.snapshot.cpu.mode
    if lines > 0:
        found = entries_from(reader, anchor, lines + 1, bits)
        return found[-1].address if len(found) > 1 else found[0].end & reader.address_mask
    before = entries_before(reader, anchor, -lines, bits)
    if before:
        return before[0].address
    return max(0, anchor + lines)


def _room(height: int) -> int:
    return height - 1 if height >= _FOOTER_FROM else height


def _fill(reader: Reader, anchor: int, room: int) -> list[tuple[int, Entry | None]]:
    """``room`` rows: (address, entry), or (address, None) for the label that stands there."""
    out: list[tuple[int, Entry | None]] = []
    for entry in entries_from(reader, anchor, room, reader.cpu.mode):
        if reader.symbols.at(entry.address) is not None and len(out) < room - 1:
            out.append((entry.address, None))
        out.append((entry.address, entry))
        if len(out) >= room:
            break
    return out[:room]


def disassembly_rows(view: View, width: int, height: int, anchor: int) -> list[Row]:
    """Exactly ``height`` rows from ``anchor`` on; the last one tells what the next instruction touches."""
    reader = Reader(view)
    room = _room(height)
    shown = _fill(reader, anchor, room)
    pc = reader.cpu.pc
    digits = max(4, max((len(f"{address:x}") for address, _ in shown), default=4))
    branch = _branch_of(reader, shown, pc)
    # As many byte columns as the longest instruction on screen takes.
    longest = max((len(e.data) for _, e in shown if e is not None and e.kind != "zeros"), default=4)
    columns = 0 if width < _BYTES else max(4, min(longest, 8 if width < 100 else 11))
    rows: list[Row] = []
    current: Entry | None = None
    for i, (address, entry) in enumerate(shown):
        arrow = _arrow_at(branch, i)
        if entry is None:
            name = reader.symbols.at(address) or ""
            spans = (Span(" "), arrow, Span(" "), Span(f"{name}:", "label"))
            rows.append(row(width, spans, key=Key(Kind.CODE, address, "", address)))
            continue
        if address == pc:
            current = entry
        rows.append(_entry_row(reader, entry, width, digits, columns, arrow))
    rows += [BLANK] * (room - len(rows))
    if room < height:
        if current is None and (found := entries_from(reader, pc, 1, reader.cpu.mode)):
            current = found[0]
        rows.append(look_ahead(reader, current, width) if current is not None else BLANK)
    return rows


def _branch_of(reader: Reader, shown: list[tuple[int, Entry | None]], pc: int) -> _Branch | None:
    """The arrow of the current instruction, when it is a direct branch and both ends are on screen."""
    at = {address: i for i, (address, entry) in enumerate(shown) if entry is not None}
    if pc not in at:
        return None
    entry = shown[at[pc]][1]
    if entry is None:
        return None
    target = branch_target(entry.mnemonic, entry.operands)
    if target is None:
        return None
    target = target + reader.segment_base(Seg.CS) & reader.address_mask
    if target not in at or target == pc:
        return None
    return _Branch(at[pc], at[target], taken(entry.mnemonic, reader.cpu, entry.data) is not False)


def _arrow_at(branch: _Branch | None, i: int) -> Span:
    if branch is None:
        return Span(" ")
    low, high = min(branch[:2]), max(branch[:2])
    if not low <= i <= high:
        return Span(" ")
    style = "accent" if branch.will else "rule"
    if i == low:
        return Span("╭", style)
    return Span("╰" if i == high else "│", style)


def _entry_row(reader: Reader, entry: Entry, width: int, digits: int, columns: int, arrow: Span) -> Row:
    view = reader.view
    here = entry.address == reader.cpu.pc
    old: bytes | None = None
    if reader.changes and entry.data:
        where = reader.physical(entry.address)
        old = None if where is None else reader.old_bytes(where, entry.data)
    target = branch_target(entry.mnemonic, entry.operands)
    if target is not None:
        target = target + reader.segment_base(Seg.CS) & reader.address_mask
    if old is not None and arrow.text == " ":
        arrow = CHANGED
    point = "▶" if here else "→" if arrow.text in ("╭", "╰") else " "
    return _draw(
        entry,
        width,
        digits,
        columns,
        arrow,
        point,
        entry.address in view.breakpoints,
        here,
        view.in_past,
        old,
        reader.symbols.words(entry.address) if width >= _WIDE else "",
        target,
        _symbol(reader, entry, target),
        _link(view, entry.address),
    )


def _link(view: View, address: int) -> str:
    """`` :12`` in a source of ours, `` vm.c:12`` in an image's."""
    place = view.image.place_at(address)
    if place is not None:
        return f" {place}"
    line = view.image.line_at(address)
    return f" :{line}" if line is not None else ""


def _symbol(reader: Reader, entry: Entry, target: int | None) -> str:
    """The label that the instruction's target or an immediate of it names."""
    if target is not None:
        return reader.symbols.words(target)
    if entry.kind != "code":
        return ""
    for span in operand_spans(entry.operands):
        if span.style == "num" and span.text.startswith("0x"):
            words = reader.symbols.words(int(span.text, 16))
            if words:
                return words
    return ""


@lru_cache(maxsize=2048)
def _draw(
    entry: Entry,
    width: int,
    digits: int,
    columns: int,
    arrow: Span,
    point: str,
    breakpoint_: bool,
    here: bool,
    past: bool,
    old: bytes | None,
    near: str,
    target: int | None,
    symbol: str,
    link: str,
) -> Row:
    spans = [Span("●", "breakpoint") if breakpoint_ else Span(" "), arrow]
    spans.append(Span(point, ("past" if past else "gutter_current") if here else arrow.style))
    spans.append(Span(f"{entry.address:0{digits}x} ", "addr"))
    if width >= _WIDE:
        spans += (Span(near[:15].ljust(16), "dim" if here else "comment"),)
    if columns:
        spans += _bytes(entry.data, old, columns) if entry.kind != "zeros" else [Span(" " * (3 * columns + 2))]
    if entry.kind == "zeros":
        spans.append(Span(f"{entry.mnemonic} {entry.operands}", "zero"))
    elif entry.kind == "gone":
        spans += (Span("·· ", "bad"), Span(entry.operands, "comment"))
    else:
        style = {"code": "mnemonic", "data": "directive"}.get(entry.kind, "bad")
        spans.append(Span(f"{entry.mnemonic:<6} " if entry.operands or symbol else entry.mnemonic, style))
        spans += operand_spans(entry.operands) if entry.kind != "data" else (Span(entry.operands, "bytes"),)
    if symbol:
        spans.append(Span(f" {symbol}", "symbol"))
    if target is not None:
        spans.append(Span(" ↑" if target <= entry.address else " ↓", "operator"))
    room = width - len(link)
    if link and width_of(spans) <= room:
        spans = [*spans, Span(" " * (room - width_of(spans))), Span(link, "comment")]
    key = Key(Kind.CODE, entry.address, "", entry.address)
    return Row(clip(spans, width), key, "current" if here else "")


def _bytes(data: bytes, old: bytes | None, most: int) -> list[Span]:
    """The first ``most`` bytes, changed ones marked; ``+`` when there are more."""
    spans: list[Span] = []
    shown = data[:most]
    for i, byte in enumerate(shown):
        changed = old is not None and old[i] != byte
        spans.append(Span(f"{byte:02x}", "changed" if changed else "bytes"))
        spans.append(Span(" "))
    if old is None:
        spans = [Span(shown.hex(" ") + " " * bool(shown), "bytes")]
    rest = 3 * (most - len(shown))
    spans.append(Span("+ " if len(data) > most else " " * rest + "  ", "bytes"))
    return spans
