"""x87 state out of an FXSAVE image (SDM vol. 1 table 10-2)."""

from __future__ import annotations

from typing import Final

from kvmscope.ui.line_panel import Row, Span
from kvmscope.ui.render.text import CHANGED, UNCHANGED, hex_spans, row

__all__ = ["fpu_rows"]

_WORDS: Final = (("fcw", 0, 2), ("fsw", 2, 2), ("ftw", 4, 1), ("fop", 6, 2))
_ST0: Final = 32


def fpu_rows(image: bytes, before: bytes, width: int) -> list[Row]:
    """Control, status and tag words, then ST0 to ST7 as their ten bytes (sign and exponent, significand)."""
    if len(before) != len(image):
        before = image
    spans: list[Span] = []
    changed = False
    for name, offset, size in _WORDS:
        value, old = _number(image, offset, size), _number(before, offset, size)
        changed |= value != old
        spans += (Span(f"{name} ", "name"), *hex_spans(value, 2 * size, old if value != old else None), Span(" "))
    rows = [row(width, (CHANGED if changed else UNCHANGED, *spans))]
    for number in range(8):
        at = _ST0 + 16 * number
        if at + 10 > len(image):
            break
        value, old = _number(image, at, 10), _number(before, at, 10)
        mark = CHANGED if value != old else UNCHANGED
        rows.append(row(width, (mark, Span(f"st{number} ", "name"), *hex_spans(value, 20, old))))
    return rows


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")
