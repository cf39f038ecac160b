"""Directives that make bytes, for the built-in assembler: strings and integers."""

from __future__ import annotations

import re
from typing import Final

from kvmscope.asm.refusal import Mistake, Refusal

__all__ = ["INTEGERS", "STRINGS", "fits", "parse_string", "to_bytes"]

INTEGERS: Final = {
    ".byte": 1, ".word": 2, ".short": 2, ".value": 2, ".hword": 2, ".2byte": 2, ".long": 4, ".int": 4, ".4byte": 4,
    ".quad": 8, ".8byte": 8,
}  # fmt: skip
"""Directive -> bytes of each number."""

STRINGS: Final = {".ascii": b"", ".asciz": b"\0", ".string": b"\0", ".string8": b"\0"}
"""Directive -> what follows each string."""

_ESCAPE: Final = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]+)|(.))")
_SIMPLE: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", '"': '"'}


def parse_string(text: str) -> bytes:
    """The bytes of one quoted string, UTF-8 as it stands in the file."""
    if not re.fullmatch(r'"(?:\\.|[^"\\])*"', text):
        raise Refusal(f"{text[:20]} is not one string", text)
    out = bytearray()
    body, at = text[1:-1], 0
    for match in _ESCAPE.finditer(body):
        out += body[at : match.start()].encode()
        octal, hexadecimal, simple = match.groups()
        if octal:
            out.append(int(octal, 8) & 0xFF)
        elif hexadecimal:
            if len(hexadecimal) > 2:
                raise Refusal(f"the escape \\x{hexadecimal} has more than two digits", text)
            out.append(int(hexadecimal, 16))
        elif simple in _SIMPLE:
            out += _SIMPLE[simple].encode()
        else:
            raise Refusal(f"the escape \\{simple} is not known to the built-in assembler", text)
        at = match.end()
    return bytes(out + body[at:].encode())


def fits(number: int, size: int) -> bool:
    """True when ``number`` fits in ``size`` bytes, signed or unsigned (64-bit numbers wrap)."""
    return size >= 8 or -(1 << 8 * size - 1) <= number < 1 << 8 * size


def to_bytes(number: int, size: int, token: str) -> bytes:
    """``number`` in ``size`` bytes; raises Mistake when it does not fit (GNU as would cut it off with a warning)."""
    if not fits(number, size):
        raise Mistake(f"{number:#x} does not fit in {8 * size} bits", token)
    return (number & (1 << 8 * size) - 1).to_bytes(size, "little")
