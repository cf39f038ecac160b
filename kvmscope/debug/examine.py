"""Memory as text: gdb's ``x`` and a telescope that follows pointers."""

from __future__ import annotations

from typing import Final

from kvmscope.debug.explain.model import Guest
from kvmscope.errors import UsageError

__all__ = ["FORMATS", "SIZES", "examine", "format_value", "parse_format", "telescope"]

SIZES: Final = {"b": 1, "h": 2, "w": 4, "g": 8}
FORMATS: Final = {
    "x": "hexadecimal",
    "d": "signed decimal",
    "u": "unsigned decimal",
    "o": "octal",
    "t": "binary",
    "a": "address with its symbol",
    "c": "character",
    "s": "string",
    "i": "instructions",
}
_MAX_COUNT: Final = 4096
_MAX_STRING: Final = 200
_PER_LINE: Final = {1: 16, 2: 8, 4: 4, 8: 2}
_DEPTH: Final = 4


def parse_format(text: str, default: tuple[int, str, int] = (1, "x", 4)) -> tuple[int, str, int]:
    """``16xb`` -> (16, "x", 1): count, format letter, unit size in bytes.

    Raises UsageError for an unknown letter.
    """
    count, letter, size = default
    digits = ""
    for char in text:
        if char.isdecimal():
            digits += char
        elif char in SIZES:
            size = SIZES[char]
        elif char in FORMATS:
            letter = char
        else:
            known = f"formats {' '.join(FORMATS)}, sizes {' '.join(SIZES)}"
            raise UsageError(f"Unknown format letter {char!r} in /{text}", hint=known)
    if digits:
        count = int(digits[:9])
    if letter == "a":
        size = 8
    elif letter in "cs":
        size = 1
    if not 0 < count <= _MAX_COUNT:
        raise UsageError(f"x shows 1 to {_MAX_COUNT} units", f"/{text}")
    return count, letter, size


def format_value(value: int, letter: str, size: int, guest: Guest | None = None) -> str:
    """One unit of ``size`` bytes in a format."""
    bits = size * 8
    if letter == "d":
        return str(value - (1 << bits) if value >> bits - 1 & 1 else value)
    if letter == "u":
        return str(value)
    if letter == "o":
        return f"{value:#o}"
    if letter == "t":
        return f"{value:0{bits}b}"
    if letter == "c":
        return f"{value} {chr(value)!r}" if 32 <= value < 127 else str(value)
    if letter == "a":
        return guest.place(value) if guest is not None else f"{value:#x}"
    return f"{value:#0{2 + size * 2}x}"


def examine(guest: Guest, address: int, count: int, letter: str, size: int) -> list[str]:
    """The lines of ``x/COUNT FORMAT SIZE ADDRESS``; memory that is not there is said, in its place."""
    if letter == "i":
        return _instructions(guest, address, count)
    if letter == "s":
        return _strings(guest, address, count)
    lines: list[str] = []
    per_line = 1 if letter == "a" else _PER_LINE[size] // (2 if letter == "t" and size < 8 else 1)
    mask = (1 << 64) - 1 if guest.bits == 64 else 0xFFFFFFFF
    for first in range(0, count, per_line):
        cells = []
        for number in range(first, min(first + per_line, count)):
            value = guest.word(address + number * size & mask, size)
            cells.append("(not mapped)" if value is None else format_value(value, letter, size, guest))
        lines.append(f"{address + first * size & mask:#x}: " + "  ".join(cells))
    return lines


def _instructions(guest: Guest, address: int, count: int) -> list[str]:
    from kvmscope.asm.disasm import disassemble

    lines: list[str] = []
    while len(lines) < count:
        size = 15
        while size and guest.read(address, size) is None:
            size -= 1
        data = guest.read(address, size) if size else None
        if not data:
            lines.append(f"{address:#x}: (not mapped)")
            break
        found = disassemble(data, address, guest.bits, count=1)[0]
        marker = "=> " if address == guest.cpu.pc else "   "
        lines.append(f"{marker}{guest.place(address)}: {found.mnemonic} {found.operands}".rstrip())
        address += max(found.size, 1)
    return lines


def _strings(guest: Guest, address: int, count: int) -> list[str]:
    lines: list[str] = []
    for _ in range(count):
        data = bytearray()
        while len(data) < _MAX_STRING:
            byte = guest.read(address + len(data), 1)
            if byte is None or byte == b"\0":
                break
            data += byte
        if not data and guest.read(address, 1) is None:
            lines.append(f"{address:#x}: (not mapped)")
            break
        text = data.decode("latin-1").encode("unicode_escape").decode("ascii")
        lines.append(f'{address:#x}: "{text}"' + ("..." if len(data) == _MAX_STRING else ""))
        address += len(data) + 1
    return lines


def _named(guest: Guest, value: int) -> str:
    found = guest.image.symbol_at(value) if guest.image is not None else None
    if not found:
        return f"{value:#x}"
    name, offset = found
    return f"{value:#x} <{name}{f'+{offset:#x}' if offset else ''}>"


def _ascii(guest: Guest, value: int, size: int) -> str:
    data = value.to_bytes(size, "little").rstrip(b"\0")
    return data.decode("ascii") if len(data) >= 4 and all(32 <= c < 127 for c in data) else ""


def telescope(guest: Guest, address: int, count: int = 8) -> list[str]:
    """Stack-sized slots from ``address``, each followed through memory: ``0x7ff0: 0x400010 <next> -> ...``."""
    size = guest.bits // 8
    mask = (1 << 64) - 1 if guest.bits == 64 else 0xFFFFFFFF
    lines: list[str] = []
    for number in range(count):
        where = address + number * size & mask
        parts: list[str] = []
        seen = {where}
        value = guest.word(where, size)
        while value is not None and len(parts) < _DEPTH:
            text = _ascii(guest, value, size)
            parts.append(f"{_named(guest, value)}" + (f' "{text}"' if text else ""))
            # Small numbers are numbers, and code is not a pointer to follow.
            if value < 0x1000 or value in seen or (guest.image is not None and guest.image.line_at(value) is not None):
                break
            seen.add(value)
            value = guest.word(value, size)
        lines.append(f"{where:#x}: " + (" -> ".join(parts) if parts else "(not mapped)"))
    return lines
