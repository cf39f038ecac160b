"""Which memory an instruction accesses: segment, offset, size and direction of each operand (SDM vol. 2, opcode maps).

Needed where Unicorn does not check: segment limits and types, and alignment.  A size of 0 or a direction of None means
that the table does not know; whoever needs to know then refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kvmscope.vmm.unicorn import decode
from kvmscope.vmm.unicorn.env import HF, HFLAGS, M32, M64, SS_FLAGS
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.decode import Instruction
    from kvmscope.vmm.unicorn.lengths import Shape

__all__ = ["Access", "accesses", "may_write", "plain_operand", "touches_memory"]


class Access(NamedTuple):
    """One memory operand, before the segment base is added."""

    segment: int
    offset: int
    size: int
    write: bool | None


_OSZ: Final = -1
"""Size: the operand size."""
_FAR: Final = -2
"""Size: a far pointer, operand size plus 2."""
_PAIR: Final = -3
"""Size: two of the operand size."""
_ENV: Final = -4
"""Size: the x87 environment, 14 or 28 bytes by operand size."""
_FPU: Final = -5
"""Size: the x87 state, 94 or 108 bytes."""

_Rule = tuple[int, bool | None]
_R1, _W1, _R2, _W2, _R4, _W4, _R8, _W8 = ((size, write) for size in (1, 2, 4, 8) for write in (False, True))
_R: Final[_Rule] = (_OSZ, False)
_W: Final[_Rule] = (_OSZ, True)
_ALU: Final = (_W1, _W, _R1, _R)

# Opcode to (size, write) of its ModRM memory operand; None: no access although ModRM names memory.
_MODRM: Final[dict[int, _Rule | None]] = {
    **{base + form: _ALU[form] for base in range(0, 0x38, 8) for form in range(4)},
    0x38: _R1, 0x39: _R, 0x3A: _R1, 0x3B: _R,
    0x62: (_PAIR, False), 0x63: _W2, 0x69: _R, 0x6B: _R,
    0x84: _R1, 0x85: _R, 0x86: _W1, 0x87: _W, 0x88: _W1, 0x89: _W, 0x8A: _R1, 0x8B: _R, 0x8C: _W2, 0x8D: None, 0x8E: _R2,
    0x8F: _W, 0xC0: _W1, 0xC1: _W, 0xC4: (_FAR, False), 0xC5: (_FAR, False), 0xC6: _W1, 0xC7: _W,
    0xD0: _W1, 0xD1: _W, 0xD2: _W1, 0xD3: _W, 0xD8: _R4, 0xDA: _R4, 0xDC: _R8, 0xDE: _R2,
    0x102: _R2, 0x103: _R2, 0x10D: None, **dict.fromkeys(range(0x118, 0x120), None),
    **dict.fromkeys(range(0x120, 0x124), None),
    **dict.fromkeys(range(0x140, 0x150), _R), **dict.fromkeys(range(0x190, 0x1A0), _W1),
    0x1A3: _R, 0x1AB: _W, 0x1B3: _W, 0x1BB: _W,
    0x1A4: _W, 0x1A5: _W, 0x1AC: _W, 0x1AD: _W, 0x1AF: _R, 0x1B0: _W1, 0x1B1: _W,
    0x1B2: (_FAR, False), 0x1B4: (_FAR, False), 0x1B5: (_FAR, False),
    0x1B6: _R1, 0x1B7: _R2, 0x1B8: _R, 0x1BC: _R, 0x1BD: _R, 0x1BE: _R1, 0x1BF: _R2, 0x1C0: _W1, 0x1C1: _W, 0x1C3: _W,
    0x2F0: _R, 0x2F1: _W,
    # SSE and MMX operands, whose sizes are not listed.
    **dict.fromkeys((*range(0x110, 0x118), *range(0x128, 0x130), *range(0x150, 0x177), *range(0x178, 0x180)), (0, None)),
    **dict.fromkeys((0x1C2, 0x1C4, 0x1C5, 0x1C6, *range(0x1D0, 0x1FF)), (0, None)),
    **dict.fromkeys((*range(0x200, 0x2F0), *range(0x2F2, 0x300), *range(0x300, 0x400)), (0, None)),
}  # fmt: skip

# The same by ModRM.reg, for opcode groups.
_GROUPS: Final[dict[int, tuple[_Rule | None, ...]]] = {
    0x80: (_W1,) * 7 + (_R1,), 0x81: (_W,) * 7 + (_R,), 0x82: (_W1,) * 7 + (_R1,), 0x83: (_W,) * 7 + (_R,),
    0xF6: (_R1, _R1, _W1, _W1, _R1, _R1, _R1, _R1),
    0xF7: (_R, _R, _W, _W, _R, _R, _R, _R),
    0xFE: (_W1, _W1) + (None,) * 6,
    0xFF: (_W, _W, _R, (_FAR, False), _R, (_FAR, False), _R, None),
    0xD9: (_R4, None, _W4, _W4, (_ENV, False), _R2, (_ENV, True), _W2),
    0xDB: (_R4, _W4, _W4, _W4, None, (10, False), None, (10, True)),
    0xDD: (_R8, _W8, _W8, _W8, (_FPU, False), None, (_FPU, True), _W2),
    0xDF: (_R2, _W2, _W2, _W2, (10, False), _R8, (10, True), _W8),
    0x100: (_W2, _W2, _R2, _R2, _R2, _R2, None, None),
    0x101: ((6, True), (6, True), (6, False), (6, False), _W2, None, _R2, None),
    0x1AE: ((512, True), (512, False), _R4, _W4, (576, True), (576, False), (576, True), None),
    0x1BA: (None,) * 4 + (_R, _W, _W, _W),
    0x1C7: (None, _W8) + (None,) * 6,
}  # fmt: skip
_BIT_STRINGS: Final = frozenset({0x1A3, 0x1AB, 0x1B3, 0x1BB})
"""BT, BTS, BTR, BTC with a register: the bit offset reaches beyond the operand."""

_PUSHES: Final = frozenset({*range(0x50, 0x58), 0x68, 0x6A, 0x06, 0x0E, 0x16, 0x1E, 0x1A0, 0x1A8, 0x9C, 0xE8})
_POPS: Final = frozenset({*range(0x58, 0x60), 0x07, 0x17, 0x1F, 0x1A1, 0x1A9, 0x9D, 0xC2, 0xC3, 0x8F})
_RETF: Final = frozenset({0xCA, 0xCB})
_STRINGS: Final = {
    # (reads DS:rSI, touches ES:rDI, writes ES:rDI)
    0xA4: (True, True, True), 0xA6: (True, True, False), 0xAA: (False, True, True), 0xAC: (True, False, False),
    0xAE: (False, True, False), 0x6C: (False, True, True), 0x6E: (True, False, False),
}  # fmt: skip
_IMPLICIT: Final = _PUSHES | _POPS | _RETF | {0x60, 0x61, 0xC8, 0xC9, 0xD7, *range(0xA0, 0xA4)}


def touches_memory(shape: Shape) -> bool:
    """Whether the instruction may access memory."""
    opcode = shape.opcode
    if opcode & ~1 in _STRINGS or opcode in _IMPLICIT or (opcode == 0xFF and shape.modrm >> 3 & 7 in (2, 6)):
        return True
    return shape.modrm < 0xC0 and _rule(shape) is not None


def may_write(shape: Shape) -> bool:
    """Whether the instruction may write memory, by its opcode."""
    if shape.opcode & ~1 in _STRINGS or shape.opcode in _IMPLICIT or shape.opcode == 0xFF:
        return True
    rule = _rule(shape)
    return rule is not None and rule[1] is not False


def _rule(shape: Shape) -> _Rule | None:
    group = _GROUPS.get(shape.opcode)
    return group[shape.modrm >> 3 & 7] if group is not None else _MODRM.get(shape.opcode)


def plain_operand(shape: Shape, osz: int) -> int:
    """Size of the operand that ModRM names, if it is the only one and its size and direction are known; else 0."""
    opcode = shape.opcode
    if shape.modrm >= 0xC0 or opcode in _IMPLICIT or opcode in _BIT_STRINGS or opcode in (0x8F, 0xFF):
        return 0
    rule = _rule(shape)
    return _size(rule[0], osz) if rule is not None and rule[0] and rule[1] is not None else 0


def accesses(cpu: Cpu, shape: Shape, data: bytes) -> list[Access]:
    """The memory operands of the instruction whose bytes are ``data``, at the current RIP."""
    env = cpu.env
    q = env.q
    opcode = shape.opcode
    out: list[Access] = []
    rule = _rule(shape) if shape.modrm < 0xC0 else None
    ins = decode.decode(cpu, data, rule is not None, shape.length)
    code64 = bool(env.d[HFLAGS] & HF.CS64)
    osz = ins.operand_size
    mask = {2: 0xFFFF, 4: M32, 8: M64}[ins.address_size]
    if rule is not None:
        offset = _bit_string(cpu, ins, osz) if opcode in _BIT_STRINGS else ins.offset
        out.append(Access(ins.segment, offset & mask, _size(rule[0], osz), rule[1]))
    source = Seg.DS if ins.segment_override is None else ins.segment_override
    if opcode & ~1 in _STRINGS:
        if ins.rep and not q[1] & mask:
            return []
        size = 1 if not opcode & 1 else min(osz, 4) if opcode < 0x70 else osz
        reads, touches, writes = _STRINGS[opcode & ~1]
        if reads:
            out.append(Access(source, q[6] & mask, size, False))
        if touches:
            out.append(Access(Seg.ES, q[7] & mask, size, writes))
    elif 0xA0 <= opcode <= 0xA3:
        offset = int.from_bytes(data[ins.length : ins.length + ins.address_size], "little")
        out.append(Access(source, offset, osz if opcode & 1 else 1, opcode >= 0xA2))
    elif opcode == 0xD7:
        out.append(Access(source, q[3] + (q[0] & 0xFF) & mask, 1, False))
    # In 64-bit mode stack operands are 64 bits wide unless 66 makes them 16.
    width = (2 if ins.size_prefix else 8) if code64 else osz
    out += _stack(cpu, shape, data[ins.length :], width, code64)
    return out


def _stack(cpu: Cpu, shape: Shape, operands: bytes, width: int, code64: bool) -> list[Access]:
    """What PUSH, POP, CALL, RET, ENTER and LEAVE access."""
    q, opcode = cpu.env.q, shape.opcode
    mask = M64 if code64 else M32 if cpu.env.d[SS_FLAGS] & 1 << 22 else 0xFFFF

    def pushes(count: int) -> list[Access]:
        return [Access(Seg.SS, q[4] - width * (i + 1) & mask, width, True) for i in range(count)]

    def pops(count: int) -> list[Access]:
        return [Access(Seg.SS, q[4] + width * i & mask, width, False) for i in range(count)]

    if opcode in _PUSHES or (opcode == 0xFF and shape.modrm >> 3 & 7 in (2, 6)):
        return pushes(1)
    if opcode in _POPS:
        return pops(1)
    if opcode in _RETF:
        return pops(2)
    if opcode == 0x60:
        return pushes(8)
    if opcode == 0x61:
        return pops(8)
    if opcode == 0xC9:
        return [Access(Seg.SS, q[5] & mask, width, False)]
    if opcode == 0xC8:
        level = operands[2] & 31
        frames = [Access(Seg.SS, q[5] - width * (i + 1) & mask, width, False) for i in range(max(level - 1, 0))]
        return pushes(1 + level) + frames
    return []


def _bit_string(cpu: Cpu, ins: Instruction, size: int) -> int:
    bits = 8 * size
    index = cpu.env.q[ins.reg] & (1 << bits) - 1
    if index >> bits - 1:
        index -= 1 << bits
    return ins.offset + (index // bits) * size


def _size(size: int, osz: int) -> int:
    if size >= 0:
        return size
    narrow = osz == 2
    return {_OSZ: osz, _FAR: osz + 2, _PAIR: 2 * osz, _ENV: 14 if narrow else 28, _FPU: 94 if narrow else 108}[size]
