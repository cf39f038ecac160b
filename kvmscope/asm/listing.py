"""The listing of GNU as (``-aln``) -> which line made which bytes.

A row is ``LINE OFFSET HEX  TEXT``, continuation rows repeat the line without an offset.  The section is not named:
the caller says which one a line most likely belongs to, and the bytes decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kvmscope.asm.elfobj import ObjectSection

__all__ = ["LISTING_OPTIONS", "Row", "assign_sections", "line_of_offset", "parse_listing"]

_WORDS: Final = 8
_CONTINUATION: Final = 63
LISTING_OPTIONS: Final = (f"--listing-lhs-width={_WORDS}", f"--listing-cont-lines={_CONTINUATION}")
_FULL: Final = (_CONTINUATION + 1) * _WORDS * 4
_FIRST: Final = re.compile(r" *(\d+) ([0-9a-f]{4,}) ((?:[0-9A-F]{2,8} ?)*)")
_MORE: Final = re.compile(r" *(\d+)      ((?:[0-9A-F]{2,8} ?)+)")


@dataclass(slots=True)
class Row:
    """``data`` (before relocation) at ``offset`` of a section, from source line ``line``."""

    line: int
    offset: int
    data: bytes
    truncated: bool = False
    """The listing ended before the data did."""
    section: int = 0


def parse_listing(text: str, header_lines: int) -> list[Row]:
    """The rows of a listing that have bytes; lines count from 1 after ``header_lines``."""
    rows: list[Row] = []
    parts: list[str] = []
    for row in text.split("\n"):
        first = _FIRST.match(row)
        if first:
            _finish(rows, parts)
            rows.append(Row(int(first.group(1)) - header_lines, int(first.group(2), 16), b""))
            parts.append(first.group(3))
        elif parts and (more := _MORE.match(row)) and int(more.group(1)) - header_lines == rows[-1].line:
            parts.append(more.group(2))
        elif row:
            _finish(rows, parts)
    _finish(rows, parts)
    return [row for row in rows if row.data]


def _finish(rows: list[Row], parts: list[str]) -> None:
    if parts:
        rows[-1].data = bytes.fromhex("".join(parts).replace(" ", ""))
        rows[-1].truncated = len(rows[-1].data) >= _FULL
        parts.clear()


def line_of_offset(text: str, header_lines: int, offset: int, likely: Callable[[int], Sequence[str]]) -> int:
    """The line that holds ``offset`` in a listing of a failed run, which has bytes but no offsets; 1 if none does."""
    reached: dict[str, int] = {}
    for match in re.finditer(r"^ *(\d+) \?\?\?\? ((?:[0-9A-F]{2,8} ?)+)", text, re.MULTILINE):
        line = int(match.group(1)) - header_lines
        section = likely(line)[0]
        start = reached.get(section, 0)
        reached[section] = start + len(match.group(2).replace(" ", "")) // 2
        if start <= offset < reached[section]:
            return line
    return 1


def assign_sections(
    rows: Sequence[Row], sections: Sequence[ObjectSection], likely: Callable[[int], Sequence[str]]
) -> list[Row]:
    """Give every row the section that holds its bytes; rows that fit none are dropped."""
    by_name = {section.name: section for section in sections}
    kept: list[Row] = []
    for row in rows:
        preferred = [by_name[name] for name in likely(row.line) if name in by_name]
        for section in [*preferred, *sections]:
            end = row.offset + len(row.data)
            content = (
                section.data[row.offset : end] if section.data else bytes(max(min(end, section.size) - row.offset, 0))
            )
            if content == row.data:
                row.section = section.index
                kept.append(row)
                break
    return kept
