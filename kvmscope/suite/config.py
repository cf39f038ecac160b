"""unittests.cfg of kvm-unit-tests: entries as values (docs/unittests.txt and scripts/runtime.bash of that project).

A section ``[name]`` holds lines ``key = value``; a line that begins with ``#`` is a comment, and a section's head that is
commented out is an entry that is disabled.  Nothing here is ever given to a shell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kvmscope.errors import SuiteError
from kvmscope.expr.nearest import nearest
from kvmscope.suite.words import DATE, ShellError, split_words

__all__ = ["DEFAULT_TIMEOUT", "KEYS", "TIMEOUT_SCALE", "Check", "Config", "Entry", "load_config", "parse_config"]

DEFAULT_TIMEOUT: Final = 90.0
"""Seconds that an entry without ``timeout`` has in run_tests.sh."""

TIMEOUT_SCALE: Final = 10.0
"""What an interpreter gets for each second that the configuration gives a processor, unless told otherwise."""

KEYS: Final = (
    "file", "arch", "machine", "smp", "test_args", "qemu_params", "extra_params", "kvmtool_params", "groups", "accel",
    "timeout", "check", "disabled_if",
)  # fmt: skip
"""``extra_params`` is the older name of ``qemu_params``; ``kvmtool_params`` is for another machine than ours."""

_HEAD: Final = re.compile(r"\[(.*)\]")
_DISABLED: Final = re.compile(r"#\s*\[([\w.+-]+)\]")
_PAIR: Final = re.compile(r"([A-Za-z_]\w*) *= *(.*)", re.DOTALL)
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([smhd]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TRIPLE: Final = '"""'


@dataclass(frozen=True, slots=True)
class Check:
    """A file of the host and the contents it must have for the entry to make sense."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One test: an image and how to run it."""

    name: str
    line: int
    """Of its head."""
    file: str
    """The image's name, in the configuration's directory."""
    arch: str = ""
    machine: str = ""
    smp: int = 1
    append: str | None = None
    """The guest's command line (``-append``); None without ``test_args``."""
    params: tuple[str, ...] = ()
    """QEMU's options, in words."""
    groups: tuple[str, ...] = ()
    accel: str = ""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds; 0 is no limit, as for timeout(1)."""
    duration: str = "90s"
    """The time-out as written."""
    check: tuple[Check, ...] = ()
    disabled_if: str = ""
    """A bash condition, as written."""
    notes: tuple[str, ...] = ()
    """What was replaced."""


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration."""

    filename: str
    entries: tuple[Entry, ...]
    disabled: tuple[str, ...] = ()
    """Names of the entries whose head is commented out."""
    warnings: tuple[str, ...] = ()
    """``file:line: message`` for what run_tests.sh passes over in silence."""


@dataclass(slots=True)
class _Section:
    name: str
    line: int
    values: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Key to (line, value); the last one counts, as in bash."""


class _Reader:
    def __init__(self, text: str, filename: str) -> None:
        # Only what read(1) takes for the end of a line: str.splitlines knows many more.
        self.lines = text.split("\n")
        self.filename = filename
        self.sections: list[_Section] = []
        self.disabled: list[str] = []
        self.errors: list[tuple[int, str]] = []
        self.warnings: list[str] = []

    def place(self, line: int, message: str) -> str:
        return f"{self.filename}:{line}: {message}"

    def read(self) -> None:
        at = 0
        commented = False
        while at < len(self.lines):
            line = self.lines[at].strip(" \t\r")
            at += 1
            if line.startswith("#"):
                off = _DISABLED.fullmatch(line)
                if off is not None:
                    self.disabled.append(off[1])
                    commented = True
            elif line:
                commented = commented and _HEAD.fullmatch(line) is None
                at = self._line(line, at, commented)

    def _line(self, line: str, number: int, commented: bool) -> int:
        """Take one line, the ``number``-th; returns the number of the last line taken."""
        head = _HEAD.fullmatch(line)
        if head is not None:
            name = head[1].strip()
            if not name:
                self.errors.append((number, "an entry without a name"))
            elif any(section.name == name for section in self.sections):
                self.warnings.append(self.place(number, f"a second entry is named {name!r}"))
            self.sections.append(_Section(name, number))
            return number
        pair = _PAIR.fullmatch(line)
        if pair is None:
            self.errors.append((number, f"neither '[name]' nor 'key = value': {line!r}"))
            return number
        key, value = pair.groups()
        last = number
        if value.startswith(_TRIPLE):
            value, last = self._block(value.removeprefix(_TRIPLE), number)
        if commented:
            self.warnings.append(
                self.place(number, f"{key!r} follows the commented-out [{self.disabled[-1]}] and is passed over")
            )
        elif not self.sections:
            self.errors.append((number, f"{key!r} stands before the first [name]"))
        elif key not in KEYS:
            close = nearest(key, KEYS)
            meant = f"; did you mean {close!r}?" if close else ""
            self.warnings.append(self.place(number, f"unknown key {key!r} is passed over, as run_tests.sh does{meant}"))
        else:
            self.sections[-1].values[key] = number, value
        return last

    def _block(self, first: str, number: int) -> tuple[str, int]:
        """A value in triple quotes, over lines; a backslash at a line's end joins two."""
        parts = [first]
        for last in range(number, len(self.lines)):
            part = self.lines[last].strip(" \t\r")
            body, closed, rest = part.partition(_TRIPLE)
            parts.append(body)
            if closed and not rest.strip():
                return "\n".join(parts), last + 1
        self.errors.append((number, "the value's triple quotes are not closed"))
        return "\n".join(parts), len(self.lines)

    # values

    def entry(self, section: _Section) -> Entry | None:
        before = len(self.errors)
        if "file" not in section.values or not section.values["file"][1]:
            self.errors.append((section.line, f"{section.name!r} has no 'file'"))
        elif re.search(r"[\s/\0]|\A\.+\Z", section.values["file"][1]):
            self.errors.append((section.values["file"][0], "'file' must be the name of a file beside this one"))
        notes: list[str] = []
        append, rest = self._append(section, notes)
        params = rest
        for key in ("extra_params", "qemu_params"):
            params += self._words(section, key, notes)
        duration = self._text(section, "timeout") or "90s"
        entry = Entry(
            name=section.name,
            line=section.line,
            file=self._text(section, "file"),
            arch=self._text(section, "arch"),
            machine=self._text(section, "machine"),
            smp=self._number(section, "smp"),
            append=append,
            params=params,
            groups=tuple(self._text(section, "groups").split()),
            accel=self._text(section, "accel"),
            timeout=self._seconds(section, duration),
            duration=duration,
            check=self._checks(section),
            disabled_if=self._text(section, "disabled_if"),
            notes=tuple(dict.fromkeys(notes)),
        )
        return entry if len(self.errors) == before else None

    def _text(self, section: _Section, key: str) -> str:
        return section.values.get(key, (0, ""))[1]

    def _words(self, section: _Section, key: str, notes: list[str]) -> tuple[str, ...]:
        line, text = section.values.get(key, (0, ""))
        try:
            found = split_words(text)
        except ShellError as error:
            self.errors.append((line, f"{key}: {error}"))
            return ()
        if found.dated:
            notes.append(f"`date +%s` in {key} is taken as {DATE}, in every run")
        return found.words

    def _append(self, section: _Section, notes: list[str]) -> tuple[str | None, tuple[str, ...]]:
        """``test_args``: bash gives its first word to -append, and any other to QEMU itself."""
        words = self._words(section, "test_args", notes)
        return (words[0], words[1:]) if words else (None, ())

    def _number(self, section: _Section, key: str) -> int:
        line, text = section.values.get(key, (0, "1"))
        if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0:
            self.errors.append((line, f"{key} must be a number above 0, not {text!r}"))
            return 1
        return int(text)

    def _seconds(self, section: _Section, text: str) -> float:
        found = _DURATION.fullmatch(text)
        if found is None:
            self.errors.append((section.values["timeout"][0], f"timeout must be like 30, 30s or 2m: {text!r}"))
            return DEFAULT_TIMEOUT
        return float(found[1]) * _UNITS[found[2]]

    def _checks(self, section: _Section) -> tuple[Check, ...]:
        line, text = section.values.get("check", (0, ""))
        out = []
        for word in text.split():
            path, equals, value = word.partition("=")
            if not equals or not path:
                self.errors.append((line, f"check must be 'path=value', not {word!r}"))
            out.append(Check(path, value))
        return tuple(out)


def parse_config(text: str, filename: str = "unittests.cfg") -> Config:
    """The entries of a configuration.

    Raises SuiteError with a line ``file:line: message`` for everything that is wrong.
    """
    reader = _Reader(text, filename)
    reader.read()
    entries = [reader.entry(section) for section in reader.sections]
    if reader.errors:
        count = len(reader.errors)
        what = "an error" if count == 1 else f"{count} errors"
        raise SuiteError(f"{filename} has {what}", "\n".join(reader.place(*error) for error in sorted(reader.errors)))
    return Config(filename, _present(entries), tuple(reader.disabled), tuple(reader.warnings))


def _present(entries: Sequence[Entry | None]) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry is not None)


def load_config(path: Path) -> Config:
    """The configuration in a file.  Raises SuiteError when it cannot be read or is wrong."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise SuiteError(f"{path}: {error.strerror or error}") from None
    return parse_config(text, str(path))
