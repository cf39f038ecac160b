"""Instruction lengths, for finding the instructions of a translated block (SDM vol. 2D appendix A).

Only legacy encodings: VEX, EVEX and XOP raise #UD on every profile, so a block ends there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

__all__ = ["Shape", "first_instruction", "instructions"]

# One letter an opcode: what follows it.  "." nothing; m ModRM; b imm8; z imm16/32; w imm16; M, Z ModRM with imm8, immz;
# v MOV r,imm of operand size; o moffs of address size; e ENTER; f far pointer; j rel16/32; g, G TEST groups; p prefix;
# r ModRM that always names registers; x escape.
_ONE: Final = (
    "mmmmbz..mmmmbz.x"
    "mmmmbz..mmmmbz.."
    "mmmmbzp.mmmmbzp."
    "mmmmbzp.mmmmbzp."
    "................"
    "................"
    "..mmppppzZbM...."
    "bbbbbbbbbbbbbbbb"
    "MZMMmmmmmmmmmmmm"
    "..........f....."
    "oooo....bz......"
    "bbbbbbbbvvvvvvvv"
    "MMw.mmMZe.w..b.."
    "mmmmbb..mmmmmmmm"
    "bbbbbbbbjjfb...."
    "p.pp..gG......mm"
)
_TWO: Final = (
    "mmmm.........m.M"
    "mmmmmmmmmmmmmmmm"
    "rrrr....mmmmmmmm"
    "........x.x....."
    "mmmmmmmmmmmmmmmm"
    "mmmmmmmmmmmmmmmm"
    "mmmmmmmmmmmmmmmm"
    "MMMMmmm.mmmmmmmm"
    "jjjjjjjjjjjjjjjj"
    "mmmmmmmmmmmmmmmm"
    "...mMmmm...mMmmm"
    "mmmmmmmmmmMmmmmm"
    "mmMmMMMm........"
    "mmmmmmmmmmmmmmmm"
    "mmmmmmmmmmmmmmmm"
    "mmmmmmmmmmmmmmmm"
)


class Shape(NamedTuple):
    """One instruction of a block: ``opcode`` has its map in bits 9:8 (0 one-byte, 1 0F, 2 0F 38, 3 0F 3A)."""

    offset: int
    length: int
    opcode: int
    modrm: int
    """The ModRM byte, 0 where there is none."""
    rep: int
    """Last of the prefixes F2 and F3, else 0."""
    sized: bool
    """66 prefix."""
    lock: bool


def instructions(data: bytes, code64: bool, code32: bool) -> list[Shape]:
    """The whole instructions of ``data``, which begins at one; ends early at an encoding that it does not know."""
    out: list[Shape] = []
    start, end = 0, len(data)
    try:
        while start < end:
            shape = _one(data, start, code64, code32)
            if start + shape.length > end:
                break
            out.append(shape)
            if shape.opcode in (0xC4, 0xC5) and (code64 or shape.modrm >= 0xC0):
                break
            start += shape.length
    except IndexError:
        pass
    return out


@lru_cache(maxsize=4096)
def first_instruction(data: bytes, code64: bool, code32: bool) -> Shape | None:
    """The instruction that ``data`` begins with; None for an encoding that is not known, or cut off."""
    try:
        shape = _one(data, 0, code64, code32)
    except IndexError:
        return None
    return shape if shape.length <= len(data) else None


def _one(data: bytes, start: int, code64: bool, code32: bool) -> Shape:
    i = start
    rep = rex = 0
    sized = addressed = lock = False
    while True:
        byte = data[i]
        if code64 and byte & 0xF0 == 0x40:
            rex = byte
        elif _ONE[byte] == "p":
            rex = 0
            if byte == 0x66:
                sized = True
            elif byte == 0x67:
                addressed = True
            elif byte in (0xF2, 0xF3):
                rep = byte
            elif byte == 0xF0:
                lock = True
        else:
            break
        i += 1
    i += 1
    opcode, form = byte, _ONE[byte]
    if form == "x":
        byte = data[i]
        i += 1
        opcode, form = 0x100 | byte, _TWO[byte]
        if form == "x":
            opcode = (0x200 if byte == 0x38 else 0x300) | data[i]
            form = "m" if byte == 0x38 else "M"
            i += 1
    wide = 2 if sized == (code64 or code32) and not rex & 8 else 4
    modrm = 0
    if form in "mMZgGr":
        modrm = data[i]
        i += 1
        if form != "r" and modrm < 0xC0:
            i += _memory(data, i, modrm, code64 or (code32 != addressed))
    if form in "bM":
        i += 1
    elif form in "zZ":
        i += wide
    elif form == "j":
        # In 64-bit mode Intel's processors ignore 66 here; the engine refuses it.
        i += wide
    elif form == "w":
        i += 2
    elif form == "v":
        i += 8 if rex & 8 else wide
    elif form == "o":
        i += (4 if addressed else 8) if code64 else (4 if code32 != addressed else 2)
    elif form == "e":
        i += 3
    elif form == "f":
        i += wide + 2
    elif form in "gG" and modrm >> 3 & 7 < 2:
        i += 1 if form == "g" else wide
    if opcode == 0x178 and form == "m" and (sized or rep == 0xF2):
        # EXTRQ and INSERTQ with two immediates (SSE4A).
        i += 2
    return Shape(start, i - start, opcode, modrm, rep, sized, lock)


def _memory(data: bytes, i: int, modrm: int, wide: bool) -> int:
    """Bytes of SIB and displacement."""
    mod, low = modrm >> 6, modrm & 7
    if not wide:
        return 2 if mod == 2 or (mod == 0 and low == 6) else mod
    size = 0
    if low == 4:
        size = 1
        if mod == 0 and data[i] & 7 == 5:
            return 5
    elif mod == 0 and low == 5:
        return 4
    return size + (0, 1, 4)[mod]
