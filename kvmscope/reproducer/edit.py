"""Editing a header in place: one value changes, every other byte of the file stays."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from kvmscope.errors import UsageError
from kvmscope.reproducer.header import Header, find_header, parse_header
from kvmscope.reproducer.places import Path, Places

__all__ = ["HeaderValue", "update_header"]

HeaderValue: TypeAlias = "str | int | float | bool | Sequence[HeaderValue] | Mapping[str, HeaderValue]"

_DECIMAL: Final = frozenset(
    {"max_instructions", "timeout", "smp", "quantum", "ring", "count", "index", "dpl", "ist", "pkey", "size", "memory"}
)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_WIDE: Final = 100
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def update_header(text: str, key: str, value: HeaderValue | None) -> str:
    """``text`` with the header's ``key`` set to ``value``, or without it when ``value`` is None.

    ``key`` is a top-level name or ``table.name`` (``registers.rax``, ``handlers.#PF``).  A header that is not there is made.
    Comments, order, spacing and line ends of everything else are kept.

    Raises ReproducerError when the header is wrong already, UsageError when the change is one to be made by hand.
    """
    table, dot, name = key.partition(".")
    path: Path = (table, name) if dot else (key,)
    header = find_header(text, "")
    if header is None:
        if value is None:
            return text
        # '#' begins a comment in every assembler's syntax; ';' separates statements in GNU as.
        header_text = "".join(f"{line}\n" for line in ("# /// kvmscope", "# ///"))
        text = header_text + text
        header = find_header(text, "")
        assert header is not None
    values, places = parse_header(header, text, "")
    if path in places.entries:
        out = _remove(text, header, places, path) if value is None else _replace(text, header, places, path, value)
    elif value is None:
        return text
    else:
        out = _insert(text, header, values, places, path, value)
    _check(out, values, path, value)
    return out


def _check(out: str, before: Mapping[str, object], path: Path, value: HeaderValue | None) -> None:
    """The edit changed what it was asked to and nothing else; an editor that guesses would be worse than none."""
    wanted: dict[str, object] = dict(before)
    inner = wanted
    if len(path) == 2:
        below = wanted.get(str(path[0]), {})
        inner = dict(below) if isinstance(below, dict) else {}
        wanted[str(path[0])] = inner
    if value is None:
        inner.pop(str(path[-1]))
    else:
        inner[str(path[-1])] = tomllib.loads(f"x = {_format(value, str(path[-1]))}")["x"]
    header = find_header(out, "")
    if header is None or dict(parse_header(header, out, "")[0]) != wanted:
        raise _by_hand(path)


def _by_hand(path: Path) -> UsageError:
    return UsageError(f"{'.'.join(map(str, path))} cannot be changed here", hint="edit the header by hand")


def _newline(text: str) -> str:
    """The file's line end."""
    return "\r\n" if text.split("\n", 1)[0].endswith("\r") else "\n"


def _lines(text: str, header: Header, toml: str) -> str:
    """TOML lines as comment lines, each with its line end."""
    end = _newline(text)
    return "".join(f"{header.leader} {line}{end}" for line in toml.split("\n"))


def _replace(text: str, header: Header, places: Places, path: Path, value: HeaderValue) -> str:
    entry = places.entries[path]
    begin, end = header.offset(entry.value), header.offset(entry.end)
    spread = "\n" in header.toml[entry.value : entry.end]
    new = _format(value, str(path[-1]), spread=spread)
    return text[:begin] + new.replace("\n", _newline(text) + f"{header.leader} ") + text[end:]


def _remove(text: str, header: Header, places: Places, path: Path) -> str:
    entry = places.entries[path]
    line_start = header.toml.rfind("\n", 0, entry.start) + 1
    line_end = header.toml.find("\n", entry.end)
    line_end = len(header.toml) if line_end < 0 else line_end
    rest = header.toml[entry.end : line_end].strip()
    if header.toml[line_start : entry.start].strip() or (rest and not rest.startswith("#")):
        raise _by_hand(path)
    first = header.toml.count("\n", 0, entry.start)
    last = header.toml.count("\n", 0, entry.end)
    begin = header.offsets[first]
    end = header.offsets[last + 1] if last + 1 < len(header.offsets) else header.close
    return text[:begin] + text[end:]


def _insert(
    text: str, header: Header, values: Mapping[str, object], places: Places, path: Path, value: HeaderValue
) -> str:
    name = str(path[-1])
    pair = f"{_key(name)} = {_format(value, name)}"
    if len(path) == 2 and (path[0],) not in places.tables:
        if path[0] in values:
            raise _by_hand(path)
        return text[: header.close] + _lines(text, header, f"[{_key(str(path[0]))}]\n{pair}") + text[header.close :]
    table = path[:-1]
    # Behind the last pair of the same table; behind its own line, or the opening mark, when it has none.
    siblings = [entry.end for place, entry in places.entries.items() if place[:-1] == table]
    if siblings:
        after = header.toml.count("\n", 0, max(siblings))
    elif table:
        after = header.toml.count("\n", 0, places.tables[table])
    else:
        after = -1
    at = header.offsets[after + 1] if after + 1 < len(header.offsets) else header.close
    return text[:at] + _lines(text, header, pair) + text[at:]


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    out = []
    for char in text:
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif ord(char) < 0x20 or ord(char) == 0x7F:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return f'"{"".join(out)}"'


def _format(value: HeaderValue, key: str, *, spread: bool = False) -> str:
    """TOML text of a value; lists that are long, or were spread over lines before, get one line an item."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if key in _DECIMAL or value < 10 else hex(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_format(item, name)}" for name, item in value.items()) + " }"
    items = [_format(item, key) for item in value]
    line = f"[{', '.join(items)}]"
    if items and (spread or len(line) > _WIDE):
        return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
    return line
