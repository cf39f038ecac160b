"""Quick looks at plain memory operands outside of 64-bit mode: an access that surely stays in its segment.

`checks.check_memory` decodes the instruction each time, which takes 20 us; a loop over memory in a 64 KiB segment with
32-bit addresses would spend its time there.  What a plan cannot tell is left to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvmscope.vmm.unicorn.checks import real_addressing
from kvmscope.vmm.unicorn.decode import BASES16, SEGMENT_PREFIX
from kvmscope.vmm.unicorn.env import M32, selector_index
from kvmscope.vmm.unicorn.operands import plain_operand
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.lengths import Shape

__all__ = ["Plan", "plan", "surely_allowed"]

_NONE = -1


class Plan(NamedTuple):
    """Where an instruction's only memory operand is: base + (index << scale) + displacement, ``size`` bytes."""

    segment: int
    """Index of the segment's selector (`selector_index`)."""
    base: int
    scaled: int
    scale: int
    displacement: int
    mask: int
    size: int


def plan(shape: Shape, code: bytes, code32: bool) -> Plan | None:
    """The plan of the instruction whose bytes are ``code``; None where it is not as simple as that."""
    i, override, wide = 0, None, code32
    while code[i] in (0x66, 0x67, 0xF2, 0xF3, 0xF0, *SEGMENT_PREFIX):
        override = SEGMENT_PREFIX.get(code[i], override)
        if code[i] == 0x67:
            wide = not code32
        i += 1
    size = plain_operand(shape, 4 if code32 != shape.sized else 2)
    if not size:
        return None
    i += (1, 2, 3, 3)[shape.opcode >> 8]
    mod, low = shape.modrm >> 6, shape.modrm & 7
    i += 1
    segment, index, scale = Seg.DS, _NONE, 0
    base = low
    length = (0, 1, 4 if wide else 2)[mod]
    if not wide:
        base, *more = (_NONE,) if mod == 0 and low == 6 else BASES16[low]
        index = more[0] if more else _NONE
        if base == _NONE:
            length = 2
        elif low in (2, 3, 6):
            segment = Seg.SS
    else:
        if low == 4:
            sib = code[i]
            i += 1
            base = sib & 7
            if sib >> 3 & 7 != 4:
                index, scale = sib >> 3 & 7, sib >> 6
        if base == 5 and mod == 0:
            base, length = _NONE, 4
        if base in (4, 5):
            segment = Seg.SS
    displacement = int.from_bytes(code[i : i + length], "little", signed=True)
    where = selector_index(segment if override is None else override)
    return Plan(where, base, index, scale, displacement, M32 if wide else 0xFFFF, size)


def surely_allowed(cpu: Cpu, found: Plan) -> bool:
    """The access is inside of a segment that allows it; False where that is not plain."""
    q, d = cpu.env.q, cpu.env.d
    segment, base, index, scale, offset, mask, size = found
    if base >= 0:
        offset += q[base]
    if index >= 0:
        offset += q[index] << scale
    if (offset & mask) + size - 1 > d[segment + 4]:
        return False
    # Else present, writable, expand-up data.
    return real_addressing(cpu) or d[segment + 5] & 0x9E00 == 0x9200
