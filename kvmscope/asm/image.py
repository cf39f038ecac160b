"""What assembling gives: bytes at addresses, symbols, a source map, diagnostics."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmscope.asm.source_lines import SourceLines, SourcePlace

__all__ = ["Assembly", "CrossCheck", "Diagnostic", "Image", "LineEntry", "Section", "Severity", "Syntax"]

ELF_MAGIC: Final = b"\x7fELF"
IMAGE_SUFFIXES: Final = (".flat", ".elf", ".bin", ".img", ".rom")
"""Names of files that are images already."""
_NEAR: Final = 4096
"""Bytes behind a symbol that are told by it."""


class Syntax(StrEnum):
    """Assembler syntax."""

    INTEL = "intel"
    ATT = "att"


class Severity(StrEnum):
    """Weight of a diagnostic."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message at a place.  ``line`` and ``column`` count from 1; ``length`` is that of the quoted token."""

    line: int
    column: int
    severity: Severity
    message: str
    hint: str = ""
    length: int = 1
    token: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A run of bytes at a physical (= linear at boot) address."""

    name: str
    address: int
    data: bytes
    executable: bool = True
    zeros: int = 0
    """Bytes of zero that follow ``data`` (bss): they take address space and nothing else."""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.data) + self.zeros

    @property
    def end(self) -> int:
        """First address after the section."""
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class LineEntry:
    """``data`` produced by source ``line`` at ``address``; ``code`` is False for data directives.  A macro's or
    .rept's expansion gives several entries of one line."""

    line: int
    address: int
    data: bytes
    code: bool = True


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """The first difference between the backend used and GNU as: both encodings of one line."""

    line: int
    address: int
    ours: bytes
    theirs: bytes
    other: str = "GNU as"


@dataclass(frozen=True)
class Image:
    """A guest program: sections, symbols and the exact source map."""

    sections: tuple[Section, ...]
    symbols: Mapping[str, int]
    lines: tuple[LineEntry, ...] = ()
    """Sorted by address."""
    entry: int = 0
    source: str = ""
    bits: int = 64
    constants: Mapping[str, int] = field(default_factory=dict)
    """Names of .equ and .set: values, not addresses, so they never name a place in a disassembly."""
    name: str = ""
    """The file that it was loaded from, as named; empty for what was assembled."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the functions and objects of a loaded image."""
    places: SourceLines | None = field(default=None, repr=False, compare=False)
    """Source places of a loaded image that has debugging information."""
    _starts: list[int] = field(default_factory=list, repr=False, compare=False)

    def line_at(self, address: int) -> int | None:
        """Source line that produced the byte at ``address``."""
        if not self._starts and self.lines:
            self._starts.extend(entry.address for entry in self.lines)
        i = bisect_right(self._starts, address) - 1
        if i >= 0 and address < self.lines[i].address + len(self.lines[i].data):
            return self.lines[i].line
        return None

    def address_of_line(self, line: int) -> int | None:
        """First code address of ``line``, or of the next line that has code; None after the last."""
        best: tuple[int, int] | None = None
        for entry in self.lines:
            if entry.code and entry.line >= line and (best is None or (entry.line, entry.address) < best):
                best = entry.line, entry.address
        return best[1] if best else None

    def place_at(self, address: int) -> SourcePlace | None:
        """File and line of a loaded image's code at ``address``."""
        return self.places.at(address) if self.places is not None else None

    @cached_property
    def _by_address(self) -> tuple[list[int], list[str]]:
        """Addresses of symbols and their names, in the order of both."""
        pairs = sorted((value, name) for name, value in self.symbols.items())
        return [value for value, _ in pairs], [name for _, name in pairs]

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """(nearest symbol at or below, offset) within its size, or within 4 KiB where that is unknown; by address then name."""
        values, names = self._by_address
        last = bisect_right(values, address) - 1
        if last < 0:
            return None
        value = values[last]
        offset = address - value
        for name in names[bisect_left(values, value) : last + 1]:
            if offset < self.sizes.get(name, _NEAR):
                return name, offset
        return None


@dataclass(frozen=True, slots=True)
class Assembly:
    """The outcome of assembling one source; ``image`` is None exactly when there is an error diagnostic."""

    image: Image | None
    diagnostics: tuple[Diagnostic, ...]
    backend: str
    """``keystone``, ``gas`` or ``clang``: the one whose bytes are in the image."""
    cross_check: CrossCheck | None = None
    checked_by: str = ""
    """Backend that confirmed the bytes, empty when none was there to."""

    @property
    def ok(self) -> bool:
        """True when there is an image."""
        return self.image is not None
