"""What the next instruction is going to touch: its branch, its effective addresses and what stands there now."""

from __future__ import annotations

import re

from kvmscope.debug.explain.model import Guest
from kvmscope.debug.explain.operands import MemoryOperand, decode
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
    decoded = decode(Guest(reader.cpu, reader.memory, reader.view.image)) if entry.kind == "code" else None
    # Explicit operands come first, in the order written; implied ones (a push's) are not written anywhere.
    written = _BRACKETS.findall(entry.operands)
    for i, operand in enumerate(decoded.memory if decoded is not None else ()):
        spans += _operand(reader, operand, entry.mnemonic, written[i] if i < len(written) else operand.text)
    if not spans:
        return Row()
    return row(width, (Span(" next ", "comment"), *spans))


def _arrow(reader: Reader, linear: int) -> tuple[Span, ...]:
    words = reader.symbols.words(linear)
    key = Key(Kind.CODE, linear, f"{linear:#x}", linear)
    return (Span("→ ", "operator"), Span(f"{linear:x}", "addr", key), Span(f" {words}  " if words else "  ", "symbol"))


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
        where = int.from_bytes(data[: min(8, operand.size)], "little")
        spans += _arrow(reader, where & reader.address_mask)
    elif len(data) <= _MOST:
        value = int.from_bytes(data, "little")
        spans += hex_spans(value, 2 * len(data))
        words = reader.symbols.words(value)
        if words:
            spans.append(Span(f" {words}", "symbol"))
    else:
        spans.append(Span(data[:_MOST].hex(" ") + " …"))
    return [*spans, Span("  ")]
