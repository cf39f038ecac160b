"""Memory as pointers: each word with what it points to, link by link, until text, code or a dead end."""

from __future__ import annotations

from typing import Final

from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.memory import Target, row_digits
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.render.text import CHANGED, UNCHANGED, hex_spans, row
from kvmscope.ui.view import Space, View
from kvmscope.x86.state import GPR_NAMES, Seg

__all__ = ["telescope_rows", "word_size"]

_DEPTH: Final = 4
_SMALLEST_POINTER: Final = 0x1000
"""Numbers below are taken for numbers: everything maps in an identity map."""
_TEXT: Final = 24


def word_size(view: View) -> int:
    """Bytes of a pointer in the running mode."""
    return view.snapshot.cpu.mode // 8


def telescope_rows(view: View, width: int, height: int, anchor: int, target: Target) -> list[Row]:
    """Exactly ``height`` rows, one word each, from ``anchor`` on."""
    reader = Reader(view)
    size = word_size(view)
    digits = row_digits(anchor)
    names: dict[int, list[str]] = {}
    for number, name in enumerate(GPR_NAMES):
        base = reader.segment_base(Seg.SS if number in (4, 5) else Seg.DS)
        names.setdefault(reader.cpu.gpr[number] + base & reader.address_mask, []).append(name)
    rows: list[Row] = []
    for line in range(height):
        address = anchor + line * size & reader.address_mask
        rows.append(_word(reader, width, address, size, digits, target, names.get(address, [])))
    return rows


def _word(reader: Reader, width: int, address: int, size: int, digits: int, target: Target, names: list[str]) -> Row:
    physical = address if target.space is Space.PHYSICAL else reader.physical(address)
    data = None if physical is None else reader.memory.read(physical, size)
    old = reader.old_bytes(physical, data) if data is not None and physical is not None else None
    who = ",".join(names)
    head = [
        CHANGED if old is not None else UNCHANGED,
        *hex_spans(address, digits, None, "addr"),
        Span(f" {address - target.address & 0xFFFF:+05x} " if width >= 60 and target.register else " ", "comment"),
        Span(f"{who[:7]:<7} " if width >= 60 else "› " if address == target.address else "  ", "accent"),
    ]
    if data is None or physical is None:
        return row(
            width,
            (*head, Span("··  not mapped" if physical is None else "▒▒  not RAM: not read", "comment")),
            key=Key(Kind.WALK, address, "", address),
        )
    value = int.from_bytes(data, "little")
    key = Key(Kind.MEMORY, value & reader.address_mask, f"{value:#x}", value & reader.address_mask)
    was = int.from_bytes(old, "little") if old is not None else None
    spans = [*head, *hex_spans(value, 2 * size, was, "value", key)]
    return row(width, [*spans, *_chain(reader, value, size)])


def _chain(reader: Reader, value: int, size: int) -> list[Span]:
    """`` → 402008 <table+8> "Hello"``: what each link points to."""
    spans: list[Span] = []
    seen: set[int] = set()
    for depth in range(_DEPTH):
        words = reader.symbols.words(value)
        if words:
            spans.append(Span(f" {words}", "symbol"))
        text = _text(reader, value, size) if value >= _SMALLEST_POINTER else ""
        if text:
            spans.append(Span(f" {text}", "string"))
            break
        if value < _SMALLEST_POINTER or value > reader.address_mask or value in seen or size < 4:
            break
        if words and value < 1 << 47 and _is_code(reader, value):
            break
        seen.add(value)
        found = reader.word(value, size)
        if found is None or depth == _DEPTH - 1:
            break
        spans += (Span(" → ", "operator"), Span(f"{found:x}", "value" if found else "zero"))
        value = found
    return spans


def _is_code(reader: Reader, address: int) -> bool:
    return any(s.executable and s.address <= address < s.end for s in reader.view.image.sections)


def _text(reader: Reader, address: int, size: int) -> str:
    """The text that stands at ``address`` in quotes, when it is one: four printable characters or more."""
    data = reader.read_some(address & reader.address_mask, _TEXT)
    end = next((i for i, byte in enumerate(data) if not 32 <= byte < 127), len(data))
    if end < 4 or (end < len(data) and data[end] not in b"\0\n\r\t"):
        return ""
    return f'"{data[:end].decode("ascii")}"' + ("…" if end == len(data) == _TEXT else "")
