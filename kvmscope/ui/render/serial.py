"""What the guest wrote to its serial port and debug console, made harmless.

Control characters come as their pictures (U+2400 and on), bytes beyond ASCII as ``\\x9b``: no byte of a hostile guest
reaches the terminal as it is.  Only the lines that are shown are cut out of the text, however long it is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from kvmscope.ui.line_panel import Row, Span
from kvmscope.ui.render.text import CHANGED, UNCHANGED, message, row
from kvmscope.ui.view import View

__all__ = ["serial_rows", "visible_lines", "visible_text"]

_TAB: Final = 8
_LONGEST: Final = 4
"""Cells that one byte takes at most."""


class _Line(NamedTuple):
    """One line of the window: its pieces as (text, escaped), and how many bytes follow it."""

    pieces: tuple[tuple[str, bool], ...]
    after: int


def _picture(byte: int) -> tuple[str, bool]:
    """(text, is it an escape) of one byte that is no line feed."""
    if 32 <= byte < 127:
        return chr(byte), False
    if byte < 32:
        return chr(0x2400 + byte), True
    return ("␡" if byte == 127 else f"\\x{byte:02x}"), True


_PICTURES: Final = tuple(_picture(byte) for byte in range(256))


def visible_text(data: bytes) -> str:
    """``data`` as text that is safe to print; line feeds stay, a carriage return in front of one is dropped.

    >>> visible_text(b"ok\\r\\n\\x1b[2J\\xff")
    'ok\\n␛[2J\\\\xff'
    """
    return "".join("\n" if byte == 10 else _PICTURES[byte][0] for byte in data.replace(b"\r\n", b"\n"))


@lru_cache(maxsize=64)
def _fold(line: bytes, width: int) -> tuple[tuple[tuple[tuple[str, bool], ...], int], ...]:
    """One line without its line feed, cut to ``width`` cells: (pieces, bytes in it) for each part."""
    parts: list[tuple[tuple[tuple[str, bool], ...], int]] = []
    pieces: list[tuple[str, bool]] = []
    used = count = 0
    if line.endswith(b"\r"):
        line = line[:-1]
    for byte in line:
        text, escaped = _PICTURES[byte]
        if byte == 9:
            text += " " * (_TAB - 1 - used % _TAB)
            text = text[: max(1, width - used)] if used < width else text[:1]
        if used + len(text) > width and pieces:
            parts.append((tuple(pieces), count))
            pieces, used, count = [], 0, 0
            text = text[:width]
        if pieces and pieces[-1][1] == escaped:
            pieces[-1] = (pieces[-1][0] + text, escaped)
        else:
            pieces.append((text, escaped))
        used += len(text)
        count += 1
    parts.append((tuple(pieces), count))
    return tuple(parts)


def visible_lines(data: bytes, width: int, height: int, back: int = 0) -> list[_Line]:
    """The ``height`` lines that end ``back`` lines before the end, each in at most ``width`` cells."""
    width = max(_LONGEST, width)
    # No line takes more bytes than cells, so this many at the end are enough, whatever they are.
    need = (height + back + 1) * width
    cut = data[-need:] if need < len(data) else data
    if len(cut) < len(data):
        # Begin at a line's beginning where there is one, so that folds do not move as text is added.
        at = cut.find(b"\n")
        cut = cut[at + 1 :] if 0 <= at < len(cut) - 1 else cut
    rest = len(cut)
    lines: list[_Line] = []
    parts = cut.split(b"\n")
    if parts and not parts[-1]:
        parts.pop()
    for part in parts:
        for pieces, count in _fold(part, width):
            rest -= count
            lines.append(_Line(pieces, rest))
        # The line feed, and a carriage return in front of it, belong to the last of the parts.
        rest -= len(part) - sum(count for _, count in _fold(part, width)) + 1
        lines[-1] = lines[-1]._replace(after=max(0, rest))
    end = max(0, len(lines) - back)
    return lines[max(0, end - height) : end]


def serial_rows(view: View, width: int, height: int, back: int = 0) -> list[Row]:
    """Exactly ``height`` rows: serial text, and the debug console's below it when it has any.

    ``▸`` stands in front of lines that the last command wrote.
    """
    snapshot, delta = view.snapshot, view.delta
    if not snapshot.serial and not snapshot.debugcon:
        return [message(width, "no output yet")]
    if not snapshot.debugcon:
        return _stream(snapshot.serial, len(delta.serial), width, height, back)
    if not snapshot.serial:
        return [_head(width, "debugcon"), *_stream(snapshot.debugcon, len(delta.debugcon), width, height - 1, back)]
    second = max(1, min(height // 2, snapshot.debugcon.count(b"\n") + 1))
    first = _stream(snapshot.serial, len(delta.serial), width, height - 1 - second, back)
    return [*first, _head(width, "debugcon"), *_stream(snapshot.debugcon, len(delta.debugcon), width, second, 0)]


def _head(width: int, name: str) -> Row:
    return row(
        width, (Span(" ─ ", "rule"), Span(name, "title"), Span(" " + "─" * max(0, width - 5 - len(name)), "rule"))
    )


def _stream(data: bytes, new: int, width: int, height: int, back: int) -> list[Row]:
    if height <= 0:
        return []
    lines = visible_lines(data, max(1, width - 1), height, back)
    rows: list[Row] = []
    for line in lines:
        fresh = line.after < new
        spans = [Span(text, "warn" if escaped else "value") for text, escaped in line.pieces]
        rows.append(row(width, (CHANGED if fresh else UNCHANGED, *spans)))
    return rows
