"""What the next instruction is going to touch: its branch, its effective addresses and what stands there now."""

from __future__ import annotations

import re

from kvmscope.debug.explain.model import Guest
from kvmscope.debug.explain.operands import MemoryOperand, decode, register_value
from kvmscope.ui.line_panel import Key, Kind, Row, Span
from kvmscope.ui.render.branches import branch_target, taken
from kvmscope.ui.render.listing import Entry
from kvmscope.ui.render.reader import Reader
from kvmscope.ui.render.text import hex_spans, row
from kvmscope.x86.state import Seg

__all__ = ["look_ahead"]

_MOST: int = 16
"""Bytes of an operand that are shown as one number; more come as bytes."""
_BRACKETS = re.compile(r"(?:\b[c-gs]s:)?\[[^\]]*\]")
_RETURNS = frozenset({"ret", "retf", "retfq", "iret", "iretd", "iretq"})


def look_ahead(reader: Reader, entry: Entry, width: int) -> Row:
    """One row for the instruction at RIP; empty when there is nothing to foretell."""
    spans: list[Span] = []
    jumps = taken(entry.mnemonic, reader.cpu, entry.data)
    target = branch_target(entry.mnemonic, entry.operands)
    if jumps is not None:
        spans += (Span("✓ taken" if jumps else "✗ not taken", "ok" if jumps else "dim"), Span("  "))
    if target is not None and jumps is not False:
        linear = target + reader.segment_base(Seg.CS) & reader.address_mask
        spans += _arrow(reader, linear)
    guest = Guest(reader.cpu, reader.memory, reader.view.image)
    decoded = decode(guest) if entry.kind == "code" else None
    # Explicit operands come first, in the order written; implied ones (a push's) are not written anywhere.
    written = _BRACKETS.findall(entry.operands)
    for i, operand in enumerate(decoded.memory if decoded is not None else ()):
        spans += _operand(reader, operand, entry.mnemonic, written[i] if i < len(written) else operand.text)
    for name in dict.fromkeys(decoded.registers if decoded is not None else ()):
        value = register_value(guest, name)
        if value is not None:
            words = reader.symbols.words(value)
            spans += (Span(f"{name} = ", "reg"), Span(f"{value:x}"), Span(f" {words}  " if words else "  ", "symbol"))
    if not spans:
        return Row()
    return row(width, (Span(" next ", "comment"), *spans))


def _arrow(reader: Reader, linear: int) -> tuple[Span, ...]:
    words = reader.symbols.words(linear)
    key = Key(Kind.CODE, linear, f"{linear:#x}", linear)
    return (Span("→ ", "operator"), Span(f"{linear:x}", "addr", key), Span(f" {words}  " if words else "  ", "symbol"))


def _return(reader: Reader, mnemonic: str, data: bytes) -> list[Span]:
    """Where a return goes: ``→ 401004 <start+4>``, with the selector for a far one."""
    bits = reader.cpu.mode
    slots = 1 if mnemonic == "ret" else 2 if mnemonic.startswith("retf") else 5 if bits == 64 else 3
    size = len(data) // slots
    offset = int.from_bytes(data[:size], "little")
    if slots == 1:
        return list(_arrow(reader, offset + reader.segment_base(Seg.CS) & reader.address_mask))
    selector = int.from_bytes(data[size : 2 * size], "little") & 0xFFFF
    spans = [Span("→ ", "operator"), Span(f"{selector:04x}:{offset:x}", "addr")]
    real = not reader.cpu.cr0 & 1
    # Elsewhere the base is that of a descriptor, which the return has yet to load.
    words = reader.symbols.words((selector << 4 if real else 0) + offset) if real or bits == 64 else ""
    return [*spans, Span(f" {words}" if words else "", "symbol")]


def _operand(reader: Reader, operand: MemoryOperand, mnemonic: str, text: str) -> list[Span]:
    """``[rax + 8] 402008 = 0000002a <table>``: address and what stands there; ``←`` when it will be written."""
    key = Key(Kind.MEMORY, operand.linear, f"{operand.linear:#x}", operand.linear)
    spans = [Span(f"{text} ", "reg"), Span(f"{operand.linear:x}", "addr", key)]
    words = reader.symbols.words(operand.linear)
    if words:
        spans.append(Span(f" {words}", "symbol"))
    if not operand.access:
        return [*spans, Span("  ")]
    sign = " ← now " if operand.access == "write" else " = "
    physical = reader.physical(operand.linear)
    data = reader.read(operand.linear, operand.size) if 0 < operand.size <= 512 else None
    spans.append(Span(sign, "operator"))
    if data is None:
        spans.append(Span("not mapped" if physical is None else "not RAM: not read", "warn"))
    elif mnemonic in _RETURNS:
        spans += _return(reader, mnemonic, data)
    elif len(data) <= _MOST:
        value = int.from_bytes(data, "little")
        spans += hex_spans(value, 2 * len(data))
        words = reader.symbols.words(value)
        if words:
            spans.append(Span(f" {words}", "symbol"))
    else:
        spans.append(Span(data[:_MOST].hex(" ") + " …"))
    return [*spans, Span("  ")]
