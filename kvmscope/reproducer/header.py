"""The header's block: a TOML text in leading comments, and where each of its lines stands in the file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kvmscope.errors import ReproducerError
from kvmscope.reproducer.discovery import HEADER_START
from kvmscope.reproducer.places import Places, scan

__all__ = ["Header", "find_header", "parse_header", "place"]

_MAX_HEADER: Final = 256 << 10
_COMMENT: Final = re.compile(r"(?:[ \t\r\n]|(?:#|;|//)[^\n]*|/\*.*?\*/)*", re.DOTALL)
_TOML_PLACE: Final = re.compile(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)")


@dataclass(frozen=True, slots=True)
class Header:
    """A block found in a file.

    ``toml`` is the text without leaders.  ``first`` and ``last`` are the lines, from 1, of the opening and closing marks.
    ``prefixes`` are the lengths cut from each TOML line, ``offsets`` where each begins in the file.
    """

    leader: str
    first: int
    last: int
    toml: str
    prefixes: tuple[int, ...]
    offsets: tuple[int, ...]
    close: int
    """Offset of the closing mark's line in the file."""

    def line(self, toml_line: int) -> int:
        """The file's line of a line of the TOML text; both from 1."""
        return min(self.first + toml_line, self.last)

    def offset(self, toml_offset: int) -> int:
        """The file's offset of an offset into the TOML text."""
        before = self.toml.count("\n", 0, toml_offset)
        column = toml_offset - (self.toml.rfind("\n", 0, toml_offset) + 1)
        if before >= len(self.offsets):
            return self.close
        return self.offsets[before] + self.prefixes[before] + column


def place(text: str, filename: str, line: int, column: int = 0) -> str:
    """The detail of an error: ``file:line[:column]``, then the line itself, with a caret when the column is known."""
    where = f"{filename}:{line}" + (f":{column}" if column else "")
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        return where
    shown = "".join(char if char.isprintable() else " " for char in lines[line - 1].rstrip()[:200])
    caret = f"\n    {' ' * (column - 1)}^" if 0 < column <= len(shown) + 1 else ""
    return f"{where}\n    {shown}{caret}" if shown else where


def find_header(text: str, filename: str) -> Header | None:
    """The header of ``text``; None when it has none.

    Raises ReproducerError for a header behind code, a second one, one that is not closed or not commented throughout.
    """
    opening = HEADER_START.search(text)
    if opening is None:
        return None
    first = text.count("\n", 0, opening.start()) + 1
    leading = _COMMENT.match(text)
    if leading is None or leading.end() < opening.end():
        raise _error("the header must stand before all code", text, filename, first)
    leader = opening.group(1)
    lines = text[opening.start() :].split("\n")
    begin = opening.start() + len(lines[0]) + 1
    toml: list[str] = []
    prefixes: list[int] = []
    offsets: list[int] = []
    for number, raw in enumerate(lines[1:], first + 1):
        stripped = raw.strip()
        if stripped == f"{leader} ///" or stripped == f"{leader}///":
            again = HEADER_START.search(text, begin + len(raw))
            if again is not None:
                raise _error("a file has one header", text, filename, text.count("\n", 0, again.start()) + 1)
            return Header(leader, first, number, "\n".join(toml), tuple(prefixes), tuple(offsets), begin)
        if not stripped.startswith(leader):
            hint = (
                f"every line of the header begins with {leader!r}; it ends with '{leader} ///', opened in line {first}"
            )
            raise _error("the header is not closed", text, filename, number, hint)
        prefix = raw.index(leader) + len(leader)
        # One space after the leader belongs to it; more are TOML's own.
        prefix += raw[prefix : prefix + 1] == " "
        toml.append(raw[prefix:].removesuffix("\r"))
        prefixes.append(prefix)
        offsets.append(begin)
        begin += len(raw) + 1
        if begin - opening.start() > _MAX_HEADER:
            raise _error(f"the header is longer than {_MAX_HEADER >> 10} KiB", text, filename, first)
    raise _error("the header is not closed", text, filename, first, f"end it with a line '{leader} ///'")


def parse_header(header: Header, text: str, filename: str) -> tuple[Mapping[str, object], Places]:
    """The header's values, and where they stand.

    Raises ReproducerError with the file's line and column for TOML that cannot be read.
    """
    try:
        # With a line end, for an error in the last line to have its line and column.
        values = tomllib.loads(header.toml + "\n")
        places = scan(header.toml)
    except RecursionError:
        raise _error("the header is nested too deeply", text, filename, header.first) from None
    except ValueError as error:
        raise _toml_error(str(error), header, text, filename) from None
    return values, places


def _toml_error(message: str, header: Header, text: str, filename: str) -> ReproducerError:
    match = _TOML_PLACE.search(message)
    title = "the header is not TOML: " + (_TOML_PLACE.sub("", message)[:1].lower() + _TOML_PLACE.sub("", message)[1:])
    if match is None or match.group(1) is None:
        # At the end of the document (or without a place): the last line of the header.
        line = header.last - 1 if header.last - header.first > 1 else header.first
        return ReproducerError(title, place(text, filename, line))
    line, column = int(match.group(1)), int(match.group(2))
    if line > len(header.prefixes):
        return ReproducerError(title, place(text, filename, header.last))
    where = place(text, filename, header.line(line), column + header.prefixes[line - 1])
    hint = ""
    if "overwrite" in message and "memory" in header.toml.split("\n")[line - 1]:
        hint = 'with [[memory]] tables, the size is written memory_size = "16M"'
    return ReproducerError(title, where, hint)


def _error(title: str, text: str, filename: str, line: int, hint: str = "") -> ReproducerError:
    return ReproducerError(title, place(text, filename, line), hint)
