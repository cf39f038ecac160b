"""What GNU as fills code with (binutils 2.40, gas/config/tc-i386.c, generic tuning)."""

from __future__ import annotations

from typing import Final

__all__ = ["nops"]

_PATTERNS: Final = {
    16: ("90", "6690", "8d7400", "8db40000"),
    32: ("90", "6690", "8d7600", "8d742600", "8d74260090", "8db600000000", "8db42600000000"),
    64: (
        "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000",
        "660f1f840000000000", "662e0f1f840000000000", "66662e0f1f840000000000",
    ),
}  # fmt: skip
_MOST: Final = {16: 2, 32: 2, 64: 7}
"""No-operations in a row before GNU as puts a jump in front."""


def nops(count: int, bits: int, wide: bool) -> bytes:
    """``count`` bytes that do nothing in ``bits``-bit code; ``wide``: the file has 64-bit code somewhere.

    GNU as takes the mode in which the file ends for all of it, and so must the caller.
    """
    kind = 16 if bits == 16 else 64 if wide else 32
    patterns = [bytes.fromhex(pattern) for pattern in _PATTERNS[kind]]
    longest = len(patterns)
    out = bytearray()
    if count // longest > _MOST[kind]:
        if count - 2 <= 127:
            out += bytes([0xEB, count - 2])
        else:
            opcode = b"\x66\xe9" if bits == 16 else b"\xe9"
            out += opcode + (count - len(opcode) - 4).to_bytes(4, "little")
    left = count - len(out)
    out += patterns[-1] * (left // longest)
    return bytes(out) + (patterns[left % longest - 1] if left % longest else b"")
