"""Where each key and value of a TOML text stands: what `tomllib` does not tell.

The text has already been accepted by tomllib, so this scanner only has to find its way, not to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, TypeAlias

__all__ = ["Entry", "Path", "Places", "scan"]

Path: TypeAlias = tuple[str | int, ...]

_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE: Final = re.compile(r"[^,\]}\r\n#]*")
_STRINGS: Final = (
    ('"""', re.compile(r'"""(?:\\.|[^\\])*?"{3,5}', re.DOTALL)),
    ("'''", re.compile(r"'''.*?'{3,5}", re.DOTALL)),
    ('"', re.compile(r'"(?:\\.|[^"\\])*"')),
    ("'", re.compile(r"'[^']*'")),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``key = value`` (or array element): offsets into the text."""

    start: int
    value: int
    end: int


@dataclass
class Places:
    """Offsets by path: ``("registers", "rax")``, ``("page", 0, "linear")``, ``("expect", 2)``."""

    text: str
    entries: dict[Path, Entry] = field(default_factory=dict)
    tables: dict[Path, int] = field(default_factory=dict)
    """Offset of each ``[table]`` and ``[[table]]`` line, in the order of the text."""

    def offset(self, path: Path) -> int:
        """Where ``path`` stands, or the nearest part above it that is written down."""
        while path:
            if path in self.entries:
                return self.entries[path].start
            if path in self.tables:
                return self.tables[path]
            path = path[:-1]
        return 0

    def line(self, path: Path) -> int:
        """Line of ``path``, from 1."""
        return self.text.count("\n", 0, self.offset(path)) + 1


def scan(text: str) -> Places:
    """Find every key, element and table of a valid TOML text."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places = Places(text)
        self.counts: dict[Path, int] = {}

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()

    def run(self) -> Places:
        table: Path = ()
        while True:
            self.skip(_BLANK)
            if self.at >= len(self.text):
                return self.places
            if self.text[self.at] == "[":
                table = self.table()
            else:
                self.pair(table)

    def table(self) -> Path:
        start = self.at
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        self.skip(_SPACE)
        path = self.inside(self.key())
        self.skip(_SPACE)
        self.at += 2 if many else 1
        if many:
            index = self.counts.get(path, -1) + 1
            self.counts[path] = index
            path = (*path, index)
        self.places.tables[path] = start
        return path

    def inside(self, key: Path) -> Path:
        """A table's path; a part that is an array of tables means its last element."""
        path: Path = ()
        for number, part in enumerate(key):
            path = (*path, part)
            if number < len(key) - 1 and path in self.counts:
                path = (*path, self.counts[path])
        return path

    def pair(self, table: Path) -> None:
        start = self.at
        path = (*table, *self.key())
        self.skip(_SPACE)
        self.at += 1  # The equals sign.
        self.skip(_SPACE)
        self.value(path, start)

    def key(self) -> Path:
        parts: list[str | int] = []
        while True:
            self.skip(_SPACE)
            if self.text[self.at] in "\"'":
                begin = self.at
                self.string()
                parts.append(_unquote(self.text[begin : self.at]))
            else:
                match = _BARE_KEY.match(self.text, self.at)
                if match is None:
                    return tuple(parts)
                parts.append(match.group())
                self.at = match.end()
            self.skip(_SPACE)
            if self.text[self.at : self.at + 1] != ".":
                return tuple(parts)
            self.at += 1

    def string(self) -> None:
        for opening, pattern in _STRINGS:
            if self.text.startswith(opening, self.at):
                self.skip(pattern)
                return

    def value(self, path: Path, start: int) -> None:
        begin = self.at
        first = self.text[begin : begin + 1]
        if first in ("'", '"'):
            self.string()
        elif first == "[":
            self.array(path)
        elif first == "{":
            self.inline(path)
        else:
            self.skip(_BARE_VALUE)
            self.at = begin + len(self.text[begin : self.at].rstrip())
        self.places.entries[path] = Entry(start, begin, self.at)

    def array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while True:
            self.skip(_BLANK)
            if self.text[self.at] == "]":
                self.at += 1
                return
            self.value((*path, index), self.at)
            index += 1
            self.skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1

    def inline(self, path: Path) -> None:
        self.at += 1
        while True:
            self.skip(_BLANK)
            if self.text[self.at] == "}":
                self.at += 1
                return
            self.pair(path)
            self.skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1


def _unquote(quoted: str) -> str:
    if quoted[0] == "'":
        return quoted[1:-1]
    import tomllib

    value: object = tomllib.loads(f"x = {quoted}")["x"]
    return str(value)
