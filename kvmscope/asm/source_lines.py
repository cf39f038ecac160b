"""Source places of a loaded image: address <-> (file, line), and the text of the files.

Everything is read when it is first asked for: a run without a person watching never pays for it.
"""

from __future__ import annotations

import stat
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from kvmscope.asm.loading.dwarf_lines import LineRow, LineRows

__all__ = ["MAX_TEXT", "SourceLines", "SourcePlace"]

MAX_TEXT: Final = 4 << 20
"""Bytes of one source file; a larger one is not shown."""
_MAX_ANCESTORS: Final = 6
"""Directories above the image in which a source is looked for."""


class SourcePlace(NamedTuple):
    """A line of a file, as the image names it."""

    file: str
    line: int

    @property
    def name(self) -> str:
        """The last part of the file's path."""
        return PurePosixPath(self.file).name

    def __str__(self) -> str:
        return f"{self.name}:{self.line}"


class SourceLines:
    """The line table of an image.  ``load`` reads it, once; ``image`` is the image's path, near which sources lie."""

    def __init__(
        self, load: Callable[[], LineRows], image: Path | None = None, ranges: Sequence[tuple[int, int]] = ()
    ) -> None:
        self._load = load
        self._image = image
        self._ranges = tuple(ranges)
        self._texts: dict[str, str | None] = {}

    @cached_property
    def _table(self) -> LineRows:
        table = self._load()
        if self._ranges:
            # What the linker threw away stands at address 0 or so.
            table.rows = [row for row in table.rows if any(first <= row.start < end for first, end in self._ranges)]
        return table

    @cached_property
    def _covering(self) -> tuple[list[int], list[LineRow]]:
        rows = [row for row in self._table.rows if row.start < row.end]
        return [row.start for row in rows], rows

    @cached_property
    def _statements(self) -> dict[int, dict[int, list[int]]]:
        """File -> line -> addresses at which a statement of the line begins."""
        out: dict[int, dict[int, list[int]]] = {}
        before: LineRow | None = None
        for row in self._table.rows:
            same = before is not None and (before.file, before.line) == (row.file, row.line) and before.end == row.start
            if row.statement and not same:
                places = out.setdefault(row.file, {}).setdefault(row.line, [])
                if not places or places[-1] != row.start:
                    places.append(row.start)
            before = row
        return out

    @cached_property
    def _begins(self) -> frozenset[int]:
        return frozenset(at for lines in self._statements.values() for places in lines.values() for at in places)

    @property
    def files(self) -> list[str]:
        """Paths of the files that code comes from, as the image names them."""
        return [self._table.files[number] for number in sorted(self._statements)]

    def _row(self, address: int) -> LineRow | None:
        starts, rows = self._covering
        at = bisect_right(starts, address) - 1
        if at >= 0 and address < rows[at].end:
            return rows[at]
        return None

    def at(self, address: int) -> SourcePlace | None:
        """The place that the code at ``address`` comes from."""
        row = self._row(address)
        return SourcePlace(self._table.files[row.file], row.line) if row else None

    def begins_line(self, address: int) -> bool:
        """True where a line begins with a statement: a good place to stop, unlike those in the middle of a line."""
        return address in self._begins

    def addresses(self, file: str, line: int) -> tuple[int, ...]:
        """Addresses at which ``line`` begins, or the next line of the file that has code; empty after the last.

        More than one for a line that was inlined or unrolled.
        """
        lines = self._statements.get(self._table.files.index(file)) if file in self._table.files else None
        if not lines:
            return ()
        known = sorted(lines)
        at = bisect_left(known, line)
        return tuple(lines[known[at]]) if at < len(known) else ()

    def find_file(self, name: str) -> list[str]:
        """The files that ``name`` may mean: the path itself, or its last parts."""
        wanted = PurePosixPath(name).parts
        return [file for file in self.files if file == name or PurePosixPath(file).parts[-len(wanted) :] == wanted]

    def text(self, file: str) -> str | None:
        """The file's text: by its recorded path, else by its last parts below the image's directory and those above.

        None when it is not there, not a text file or too large.
        """
        if file not in self._texts:
            self._texts[file] = self._read(file)
        return self._texts[file]

    def path(self, file: str) -> Path | None:
        """Where the file lies on this machine."""
        for path in self._candidates(file):
            try:
                status = path.stat()
            except (OSError, ValueError):
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_TEXT:
                return path
        return None

    def _candidates(self, file: str) -> list[Path]:
        recorded = PurePosixPath(file)
        out = [Path(file)] if recorded.is_absolute() else []
        if self._image is None:
            return out
        parts = [part for part in recorded.parts if part not in ("/", "..")]
        above = [self._image.absolute().parent, *self._image.absolute().parent.parents][:_MAX_ANCESTORS]
        # The longest tail first: lib/x86/desc.c is not lib/desc.c.
        for skipped in range(len(parts)):
            out += [directory.joinpath(*parts[skipped:]) for directory in above]
        return out

    def _read(self, file: str) -> str | None:
        path = self.path(file)
        if path is None:
            return None
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
