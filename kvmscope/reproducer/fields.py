"""Typed reading of a header table: every error names the file's line and, for a wrong key, the nearest known one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from kvmscope.errors import ReproducerError
from kvmscope.expr.nearest import nearest
from kvmscope.reproducer.header import Header, place
from kvmscope.reproducer.places import Path, Places

__all__ = ["Fields", "Origin", "memory_size"]

T = TypeVar("T")

_SIZE: Final = re.compile(r"([0-9]+)[ ]*([KMG])?(?:i?B)?", re.IGNORECASE)
_LABEL: Final = re.compile(r"[A-Za-z_.$@][A-Za-z0-9_.$@]*")
U64: Final = (1 << 64) - 1


def memory_size(text: str) -> int | None:
    """Bytes of ``512K``, ``16M``, ``1G`` or a plain number; None for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(match.group(1)) > 15:
        return None
    return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30}[(match.group(2) or "").upper()]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a header came from: for the places in messages."""

    filename: str
    text: str
    header: Header
    places: Places

    def line(self, path: Path) -> int:
        """The file's line of a key."""
        return self.header.line(self.places.line(path))

    def error(self, title: str, path: Path, hint: str = "") -> ReproducerError:
        """An error at a key."""
        return ReproducerError(title, place(self.text, self.filename, self.line(path)), hint)


class Fields:
    """One table of the header; ``path`` is where it stands."""

    def __init__(self, values: Mapping[str, object], origin: Origin, path: Path = ()) -> None:
        self.values = values
        self.origin = origin
        self.path = path

    def error(self, title: str, key: str = "", hint: str = "") -> ReproducerError:
        """An error at ``key`` of this table, or at the table itself."""
        return self.origin.error(title, (*self.path, key) if key else self.path, hint)

    def line(self, key: str = "") -> int:
        """The file's line of ``key``, or of the table itself."""
        return self.origin.line((*self.path, key) if key else self.path)

    def only(self, known: Sequence[str], what: str = "") -> None:
        """Raise for the first key that is not in ``known``."""
        for key in self.values:
            if key not in known:
                raise self.unknown(key, known, what or "key")

    def unknown(self, key: str, known: Iterable[str], what: str, name: str = "") -> ReproducerError:
        """The error for a key (called ``name`` where that differs) that nothing here is called."""
        words = list(known)
        close = nearest(name or key, words)
        hint = f"did you mean {close!r}?" if close else f"known: {', '.join(words)}" if len(words) <= 40 else ""
        return self.error(f"unknown {what} {name or key!r}", key, hint)

    def has(self, key: str) -> bool:
        """True when the key is written down."""
        return key in self.values

    def text(self, key: str, default: str = "") -> str:
        """A text."""
        if key not in self.values:
            return default
        value = self.values[key]
        if not isinstance(value, str):
            raise self.error(f"{key} is a text in quotes, not {_shown(value)}", key)
        return value

    def choice(self, key: str, choices: Mapping[str, T], default: T) -> T:
        """One of several words."""
        if key not in self.values:
            return default
        word = self.text(key)
        if word not in choices:
            close = nearest(word, choices)
            hint = f"did you mean {close!r}?" if close else f"known: {', '.join(choices)}"
            raise self.error(f"{key} cannot be {word!r}", key, hint)
        return choices[word]

    def integer(self, key: str, default: int, least: int = 0, most: int = U64) -> int:
        """An integer within bounds."""
        if key not in self.values:
            return default
        return self.checked(key, self.values[key], key, least, most)

    def count(self, key: str, default: int, most: int) -> int:
        """How many, from 1 to ``most``."""
        value = self.integer(key, default, -U64)
        if not 1 <= value <= most:
            raise self.error(f"{key} is 1 to {most}, not {value}", key)
        return value

    def one_of(self, key: str, choices: Sequence[int]) -> int:
        """One of several numbers, the first when the key is not there."""
        value = self.integer(key, choices[0])
        if value not in choices:
            raise self.error(f"{key} is {' or '.join(map(str, choices))}, not {_hex(value)}", key)
        return value

    def checked(self, key: str, value: object, what: str, least: int = 0, most: int = U64) -> int:
        """``value`` as an integer within bounds; ``what`` is it called in messages."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"{what} is an integer, not {_shown(value)}", key)
        if not least <= value <= most:
            raise self.error(f"{what} is {least:#x} to {most:#x}, not {_hex(value)}", key)
        return value

    def wrapped(self, key: str, value: object, what: str, width: int) -> int:
        """An integer of ``width`` bits; a negative one is its two's complement."""
        number = self.checked(key, value, what, -(1 << width - 1), (1 << width) - 1)
        return number & (1 << width) - 1

    def seconds(self, key: str, default: float, most: float) -> float:
        """A positive length of time."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(f"{key} is a number of seconds, not {_shown(value)}", key)
        if not 0 < value <= most:
            raise self.error(f"{key} is more than 0 and at most {most:g} seconds, not {value}", key)
        return float(value)

    def label(self, key: str, value: object, what: str) -> str | int:
        """A label or an address."""
        if isinstance(value, str):
            if not _LABEL.fullmatch(value):
                raise self.error(f"{what} {value!r} is not a label", key, "addresses are written without quotes")
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"{what} is a label or an address, not {_shown(value)}", key)
        return self.checked(key, value, what)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.values.get(key, [])
        if not isinstance(value, list):
            raise self.error(f'{key} is a list of texts, ["..."], not {_shown(value)}', key)
        for number, item in enumerate(value):
            if not isinstance(item, str):
                title = f"{key} is a list of texts, not of {_shown(item)}"
                raise self.origin.error(title, (*self.path, key, number))
        return tuple(value)

    def table(self, key: str) -> Fields:
        """A sub-table; empty when it is not there."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(f"{key} is a table: [{key}] on a line of its own", key)
        return Fields(value, self.origin, (*self.path, key))

    def tables(self, key: str) -> list[Fields]:
        """An array of tables."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(f"{key} is an array of tables: each begins with [[{key}]]", key)
        return [Fields(item, self.origin, (*self.path, key, number)) for number, item in enumerate(value)]

    def required(self, key: str, read: Callable[[str], T]) -> T:
        """A key that must be there."""
        if key not in self.values:
            name = next((str(part) for part in reversed(self.path) if isinstance(part, str)), "the header")
            raise self.error(f"{name} needs the key {key!r}")
        return read(key)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _hex(value)
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    return repr(value)[:60]


def _hex(value: int) -> str:
    return str(value) if -10 < value < 10 else hex(value)
