"""Operands of a disassembled instruction, coloured."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from kvmscope.ui.line_panel import Span
from kvmscope.x86.registers import KNOWN_NAMES

__all__ = ["operand_spans"]

_TOKEN: Final = re.compile(r"(0x[0-9a-fA-F]+|\b\d[0-9a-fA-F]*h?\b)|([A-Za-z_%][\w.()]*)|([^\w\s%]+)|(\s+)")
_SIZES: Final = frozenset({
    "byte", "word", "dword", "qword", "xmmword", "ymmword", "zmmword", "fword", "tbyte", "oword", "ptr", "rel",
    "short", "far", "near",
})  # fmt: skip


@lru_cache(maxsize=4096)
def operand_spans(text: str) -> tuple[Span, ...]:
    """``text`` in spans: registers, numbers, sizes, punctuation; nothing is lost or added."""
    out: list[Span] = []
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() > end:
            out.append(Span(text[end : match.start()]))
        number, word, _, blank = match.groups()
        if number:
            style = "num"
        elif word:
            lowered = word.lower().lstrip("%")
            style = "comment" if lowered in _SIZES else "reg" if lowered in KNOWN_NAMES else "value"
        else:
            style = "value" if blank else "operator"
        out.append(Span(match.group(), style))
        end = match.end()
    if end < len(text):
        out.append(Span(text[end:]))
    return tuple(out)
