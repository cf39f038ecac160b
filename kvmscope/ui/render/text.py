"""Spans that every panel is made of: hexadecimal with its changed digits, names with offsets, cut and padded text.

A changed digit is amber, bold and underlined, and its row begins with `MARK`: neither colour nor attribute is needed to
find it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from rich.cells import cell_len, set_cell_size

from kvmscope.ui.line_panel import Key, Kind, Row, Span

__all__ = [
    "BLANK",
    "CHANGED",
    "MARK",
    "UNCHANGED",
    "clip",
    "fold_header",
    "hex_spans",
    "message",
    "pad",
    "printable",
    "row",
    "size_words",
    "width_of",
    "wrap_words",
]

MARK: Final = "▸"
"""In front of a row that the last command changed."""
CHANGED: Final = Span(MARK, "warn")
UNCHANGED: Final = Span(" ")
BLANK: Final = Row()


def width_of(spans: Iterable[Span]) -> int:
    """Cells that ``spans`` take."""
    return sum(len(span.text) if span.text.isascii() else cell_len(span.text) for span in spans)


def clip(spans: Iterable[Span], width: int) -> tuple[Span, ...]:
    """``spans`` in at most ``width`` cells; what is cut ends in an ellipsis."""
    out: list[Span] = []
    room = width
    for span in spans:
        text = span.text
        size = len(text) if text.isascii() else cell_len(text)
        if size <= room:
            out.append(span)
            room -= size
            continue
        if room > 0:
            cut = set_cell_size(text, room - 1) if room > 1 else ""
            out.append(Span(cut.rstrip() + "…" if cut.strip() or not out else "…", span.style, span.key))
        else:
            _end_in_ellipsis(out)
        break
    return tuple(out)


def _end_in_ellipsis(spans: list[Span]) -> None:
    """Put an ellipsis in place of the last cell."""
    while spans:
        text, style, key = spans.pop()
        size = cell_len(text)
        if size:
            # A wide character that is cut in half leaves a blank behind, which the ellipsis follows.
            spans.append(Span(set_cell_size(text, size - 1) + "…", style, key))
            return


def row(width: int, spans: Iterable[Span], *, key: Key | None = None, overlay: str = "") -> Row:
    """A row of at most ``width`` cells."""
    return Row(clip(spans, width), key, overlay)


def pad(text: str, width: int) -> str:
    """``text`` in exactly ``width`` cells, cut or filled with blanks."""
    if text.isascii():
        return text.ljust(width) if len(text) <= width else text[: max(0, width - 1)] + "…"[:width]
    size = cell_len(text)
    return text + " " * (width - size) if size <= width else set_cell_size(text, max(0, width - 1)) + "…"[:width]


def message(width: int, text: str, style: str = "dim") -> Row:
    """A row that says something in words."""
    return row(width, (Span(" "), Span(text, style)))


def fold_header(
    width: int, name: str, title: str, *, folded: bool, changed: bool = False, note: tuple[Span, ...] = ()
) -> Row:
    """The head of a part that can be folded: ``− segments ────``; ``▸`` in front when something in it changed."""
    sign = "+" if folded else "−"
    spans = [CHANGED if changed else UNCHANGED, Span(f"{sign} ", "accent"), Span(title, "title"), Span(" ")]
    spans += note
    rest = width - width_of(spans) - 1
    if rest > 0:
        spans.append(Span((" " if note else "") + "─" * (rest - (1 if note else 0)), "rule"))
    return row(width, spans, key=Key(Kind.FOLD, name))


@lru_cache(maxsize=8192)
def hex_spans(
    value: int, digits: int, old: int | None = None, style: str = "value", key: Key | None = None
) -> tuple[Span, ...]:
    """``value`` in ``digits`` hexadecimal digits: leading zeros dim, digits that differ from ``old`` marked.

    A value that needs more digits gets them.
    """
    text = f"{value:0{digits}x}"
    before = text if old is None else f"{old:0{len(text)}x}"
    significant = len(text) - max(1, len(text.lstrip("0")))
    spans: list[Span] = []
    start = 0
    last = ""
    for i, digit in enumerate(text):
        kind = "changed" if digit != before[i - len(text)] else "zero" if i < significant else style
        if kind != last and i:
            spans.append(Span(text[start:i], last, key))
            start = i
        last = kind
    spans.append(Span(text[start:], last, key))
    return tuple(spans)


def printable(byte: int) -> str:
    """The ASCII character of a byte, ``.`` for all that has no picture."""
    return chr(byte) if 32 <= byte < 127 else "."


def size_words(size: int) -> str:
    """``4K``, ``2M``, ``1G``, or ``24 bytes``: exact, never rounded."""
    for shift, unit in ((30, "G"), (20, "M"), (10, "K")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return f"{size} byte{'' if size == 1 else 's'}"


def wrap_words(items: Iterable[tuple[Span, ...]], first: int, width: int, gap: int = 1) -> list[list[Span]]:
    """Items flowed into lines: ``first`` cells in the first line, ``width`` in the others; items stay whole."""
    lines: list[list[Span]] = [[]]
    room = first
    for item in items:
        size = width_of(item)
        need = size + (gap if lines[-1] else 0)
        if need > room and (lines[-1] or len(lines) == 1):
            lines.append([])
            room, need = width, size
        if lines[-1]:
            lines[-1].append(Span(" " * gap))
        lines[-1].extend(item)
        room -= need
    return lines
