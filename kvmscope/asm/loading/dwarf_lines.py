"""DWARF line tables: address -> (file, line).

DWARF 5 section 6.2, and versions 2 to 4 of the same section.  The tables are untrusted, and only an aid: a unit that
makes no sense is left out, nothing is raised.  Each byte of a program gives one row at most, so its size bounds the work.
"""

from __future__ import annotations

import posixpath
import struct
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["LineRow", "LineRows", "decode_lines"]

_MAX_FILES: Final = 100_000
_MAX_FORMATS: Final = 16
_M64: Final = (1 << 64) - 1

_LNCT_PATH: Final = 1
_LNCT_DIRECTORY: Final = 2
# Forms (DWARF 5 section 7.5.6) that entries of file tables use, by the way their size is found.
_FIXED: Final = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}
_FORM_BLOCK: Final = 0x09
_FORM_UDATA: Final = 0x0F
_FORM_STRING: Final = 0x08
_FORM_STRP: Final = 0x0E
_FORM_LINE_STRP: Final = 0x1F


class LineRow(NamedTuple):
    """Bytes [start, end) come from ``line`` of ``files[file]``; empty for a line without an instruction of its own."""

    start: int
    end: int
    file: int
    line: int
    statement: bool
    """A recommended breakpoint location: a statement begins here."""


@dataclass
class LineRows:
    """All units together; rows in order of their addresses."""

    files: list[str] = field(default_factory=list)
    rows: list[LineRow] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, path: str) -> int:
        """The number of a file."""
        found = self._numbers.get(path)
        if found is None:
            found = self._numbers[path] = len(self.files)
            self.files.append(path)
        return found


def decode_lines(lines: bytes, line_strings: bytes, strings: bytes) -> LineRows:
    """Decode ``.debug_line`` with ``.debug_line_str`` and ``.debug_str``."""
    out = LineRows()
    position = 0
    while position + 4 <= len(lines):
        (length,) = struct.unpack_from("<I", lines, position)
        wide = length == 0xFFFFFFFF
        begin = position + 4
        if wide:
            if position + 12 > len(lines):
                break
            (length,) = struct.unpack_from("<Q", lines, begin)
            begin += 8
        end = begin + length
        if end > len(lines) or length == 0:
            break
        try:
            _Unit(lines[begin:end], wide, line_strings, strings).decode(out)
        except (IndexError, ValueError, struct.error):
            # A unit that makes no sense tells nothing; the next one begins where this one says it ends.
            pass
        position = end
    out.rows.sort()
    return out


class _Unit:
    """One line number program."""

    def __init__(self, data: bytes, wide: bool, line_strings: bytes, strings: bytes) -> None:
        self._data = data
        self._at = 0
        self._wide = wide
        self._line_strings = line_strings
        self._strings = strings
        self._files: list[int] = []

    # reading

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _number(self, size: int) -> int:
        if self._at + size > len(self._data):
            raise IndexError("the unit ends here")
        value = int.from_bytes(self._data[self._at : self._at + size], "little")
        self._at += size
        return value

    def _uleb(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value & _M64
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _sleb(self) -> int:
        begin = self._at
        value = self._uleb()
        bits = 7 * (self._at - begin)
        return value - (1 << bits) if self._data[self._at - 1] & 0x40 else value

    def _text(self) -> str:
        end = self._data.index(b"\0", self._at)
        value = self._data[self._at : end].decode("utf-8", "replace")
        self._at = end + 1
        return value

    def _string_at(self, table: bytes, offset: int) -> str:
        return table[offset : table.index(b"\0", offset)].decode("utf-8", "replace")

    # the header

    def decode(self, out: LineRows) -> None:
        """Append the rows of this unit.  Raises IndexError, ValueError or struct.error where it makes no sense."""
        version = self._number(2)
        if not 2 <= version <= 5:
            return
        if version >= 5:
            # Address size and segment selector size; DW_LNE_set_address says its own size.
            self._at += 2
        offset_size = 8 if self._wide else 4
        length = self._number(offset_size)
        program = self._at + length
        minimum = self._byte()
        if version >= 4:
            self._byte()
        default_statement = bool(self._byte())
        base = self._byte()
        base -= 256 if base >= 128 else 0
        width = self._byte()
        opcode_base = self._byte()
        operands = [0, *(self._byte() for _ in range(max(opcode_base - 1, 0)))]
        names = self._names5(offset_size) if version >= 5 else self._names()
        self._files = [out.number(name) for name in names]
        self._at = program
        self._run(out, (minimum, default_statement, base, width, opcode_base, operands))

    def _names(self) -> list[str]:
        directories = [""]
        while name := self._text():
            directories.append(name)
        # Files count from 1 in these versions.
        files = [""]
        while name := self._text():
            directory = self._uleb()
            self._uleb()
            self._uleb()
            files.append(posixpath.normpath(posixpath.join(directories[directory], name)))
            if len(files) > _MAX_FILES:
                raise ValueError("too many files")
        return files

    def _names5(self, offset_size: int) -> list[str]:
        directories = [path for path, _ in self._entries(offset_size)]
        files = []
        for path, directory in self._entries(offset_size):
            parent = directories[directory]
            # Directory 0 is that of the compilation; the others may be relative to it.
            full = posixpath.join(directories[0], parent, path)
            files.append(posixpath.normpath(full))
        return files

    def _entries(self, offset_size: int) -> list[tuple[str, int]]:
        count = self._byte()
        if count > _MAX_FORMATS:
            raise ValueError("too many formats")
        formats = [(self._uleb(), self._uleb()) for _ in range(count)]
        entries = self._uleb()
        # An entry that takes no byte could be repeated without end.
        if entries > _MAX_FILES or (entries and not formats):
            raise ValueError("too many entries")
        out = []
        for _ in range(entries):
            path, directory = "", 0
            for content, form in formats:
                value = self._form(form, offset_size)
                if content == _LNCT_PATH and isinstance(value, str):
                    path = value
                elif content == _LNCT_DIRECTORY and isinstance(value, int):
                    directory = value
            out.append((path, directory))
        return out

    def _form(self, form: int, offset_size: int) -> int | str:
        if form == _FORM_LINE_STRP:
            return self._string_at(self._line_strings, self._number(offset_size))
        if form == _FORM_STRP:
            return self._string_at(self._strings, self._number(offset_size))
        if form == _FORM_STRING:
            return self._text()
        if form == _FORM_UDATA:
            return self._uleb()
        if form == _FORM_BLOCK:
            self._number(self._uleb())
            return 0
        if form in _FIXED:
            return self._number(_FIXED[form])
        raise ValueError(f"form {form:#x}")

    # the program (section 6.2.5)

    def _run(self, out: LineRows, header: tuple[int, bool, int, int, int, list[int]]) -> None:
        minimum, default_statement, base, width, opcode_base, operands = header
        data, size = self._data, len(self._data)
        rows = out.rows
        address, file, line, statement = 0, 1, 1, default_statement
        # The row whose end is not known yet.
        last: tuple[int, int, int, bool] | None = None
        while self._at < size:
            opcode = data[self._at]
            self._at += 1
            if opcode >= opcode_base:
                adjusted = opcode - opcode_base
                address += adjusted // width * minimum
                line += base + adjusted % width
            elif opcode == 1:
                pass
            elif opcode == 0:
                length = self._uleb()
                following = self._at + length
                if not length or following > size:
                    raise ValueError("an extended opcode without an end")
                extended = self._byte()
                if extended == 1:
                    if last is not None:
                        self._row(rows, last, address)
                    address, file, line, statement, last = 0, 1, 1, default_statement, None
                elif extended == 2:
                    address = self._number(length - 1)
                self._at = following
                continue
            else:
                if opcode == 2:
                    address += self._uleb() * minimum
                elif opcode == 3:
                    line += self._sleb()
                elif opcode == 4:
                    file = self._uleb()
                elif opcode == 6:
                    statement = not statement
                elif opcode == 8:
                    address += (255 - opcode_base) // width * minimum
                elif opcode == 9:
                    address += self._number(2)
                else:
                    for _ in range(operands[opcode]):
                        self._uleb()
                continue
            address &= _M64
            if last is not None:
                self._row(rows, last, address)
            last = address, file, line, statement

    def _row(self, rows: list[LineRow], last: tuple[int, int, int, bool], end: int) -> None:
        start, file, line, statement = last
        if start <= end and 0 < line < 1 << 32:
            rows.append(LineRow(start, end, self._files[file], line, statement))
