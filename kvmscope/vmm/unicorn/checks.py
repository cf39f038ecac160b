"""Checks that Unicorn leaves out: segment limits and types (SDM vol. 3A chapter 5), alignment (section 6.15, #AC) and
supervisor protection keys (section 4.6.2).

They cost a callback for each memory instruction, so they exist only where one can fail: outside of 64-bit mode while a
segment is less than a flat writable 4 GiB, in ring 3 while CR0.AM is set, and while IA32_PKRS forbids anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.env import (
    CR,
    CS_BASE,
    CS_FLAGS,
    EFLAGS,
    EIP,
    FLAG,
    HF,
    HFLAGS,
    M32,
    M64,
    base_index,
    selector_index,
)
from kvmscope.vmm.unicorn.faults import Fault, Unsupported
from kvmscope.vmm.unicorn.lengths import first_instruction
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.vmm.unicorn.operands import Access, accesses
from kvmscope.vmm.unicorn.probe import COUNTER, LAST, PREVIOUS
from kvmscope.vmm.unicorn.refine import undo_branch_from
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["beyond_limit", "check_fetch", "check_memory", "real_addressing", "segments_to_check"]

_AC, _SS, _GP = 17, 12, 13
_AM: Final = 1 << 18
_PKS: Final = 1 << 24
_PRESENT: Final = 1 << 15
_ALL: Final = (Seg.ES, Seg.CS, Seg.SS, Seg.DS, Seg.FS, Seg.GS)
_LARGEST: Final = 64
"""Bytes that an operand of unknown size is taken to have at most."""


def real_addressing(cpu: Cpu) -> bool:
    """Real-address or virtual-8086 mode: segments have limits, but no types."""
    return not cpu.env.q[CR] & 1 or bool(cpu.env.q[EFLAGS] & FLAG.VM)


def _loose(cpu: Cpu, segment: int) -> bool:
    """The segment allows every access (of CS: every read)."""
    i = selector_index(segment)
    access = cpu.env.d[i + 5] >> 8
    if cpu.env.d[i + 4] != M32:
        return False
    if real_addressing(cpu):
        return True
    # Present; code that is readable, or data that is writable and not expand-down.
    return access & 0x9A == 0x9A if segment == Seg.CS else access & 0x9E == 0x92


def keys_forbid(cpu: Cpu) -> bool:
    """Supervisor protection keys are on, and IA32_PKRS forbids something."""
    env = cpu.env
    return bool(env.q[CR + 4] & _PKS and env.d[HFLAGS] & HF.LMA and cpu.memory.supervisor_keys())


def segments_to_check(cpu: Cpu) -> int:
    """Mask of the segments through which an access can fault now; 0 in 64-bit mode, -1 for every access anywhere."""
    if keys_forbid(cpu):
        return -1
    if cpu.env.d[HFLAGS] & HF.CS64:
        return 0
    return sum(1 << segment for segment in _ALL if not _loose(cpu, segment))


def _check_segment(cpu: Cpu, segment: int, offset: int, size: int, write: bool) -> None:
    i = selector_index(segment)
    flags, limit = cpu.env.d[i + 5], cpu.env.d[i + 4]
    fault = Fault(_SS if segment == Seg.SS else _GP, 0)
    if not real_addressing(cpu):
        if not flags & _PRESENT:
            raise fault
        # Code is never writable, and readable by its R bit; data is writable by its W bit, which is the same.
        code = flags & 1 << 11
        if (write and (code or not flags & 1 << 9)) or (code and not flags & 1 << 9):
            raise fault
    last = offset + size - 1
    if flags >> 10 & 3 == 1:
        if offset <= limit or last > (M32 if flags & 1 << 22 else 0xFFFF):
            raise fault
    elif last > limit:
        raise fault


def check_memory(cpu: Cpu, data: bytes) -> None:
    """Check every memory operand of the current instruction.  Raises `Fault`, or `Unsupported` where it cannot tell."""
    env = cpu.env
    h = env.d[HFLAGS]
    code64 = bool(h & HF.CS64)
    aligned = env.cpl == 3 and env.q[CR] & _AM and env.q[EFLAGS] & FLAG.AC
    keyed = env.cpl != 3 and keys_forbid(cpu)
    if code64 and not aligned and not keyed:
        return
    shape = first_instruction(data, code64, bool(h & HF.CS32))
    if shape is not None:
        for access in accesses(cpu, shape, data):
            if not code64 and (access.write is not False or not _loose(cpu, access.segment)):
                _check_segment(cpu, access.segment, access.offset, access.size or 1, bool(access.write))
                if not access.size or access.write is None:
                    try:
                        _check_segment(cpu, access.segment, access.offset, _LARGEST, access.write is not False)
                    except Fault:
                        where = f"offset {access.offset:#x} of {Seg(access.segment).name}"
                        raise Unsupported(
                            f"an access of unknown size or direction at {where}, which may not allow it"
                        ) from None
            if not aligned and not keyed:
                continue
            base = 0 if code64 and access.segment < Seg.FS else env.q[base_index(access.segment)]
            linear = access.offset + base & (M64 if code64 else M32)
            if aligned:
                _check_alignment(linear, access.size)
            if keyed:
                _check_key(cpu, linear, access)


def _check_key(cpu: Cpu, linear: int, access: Access) -> None:
    """The translation that the access is about to do, where the pages' keys may forbid it."""
    memory = cpu.memory
    if not canonical(linear, memory.linear_bits):
        # Unicorn raises what this is.
        return
    memory.translate(linear, bool(access.write), False)
    known = access.size and access.write is not None
    last = linear + (access.size or _LARGEST) - 1 & M64
    if known and last >> 12 == linear >> 12:
        return
    try:
        memory.translate(last, access.write is not False, False)
    except Fault as fault:
        if known:
            fault.address = last & ~0xFFF
            raise
        raise Unsupported(
            f"an access of unknown size or direction at {linear:#x}, which IA32_PKRS may forbid"
        ) from None


def _check_alignment(linear: int, size: int) -> None:
    if size in (2, 4, 8):
        if linear & size - 1:
            raise Fault(_AC, 0)
    elif size != 1 and linear & 15:
        raise Unsupported("an unaligned operand of unusual size while alignment checks are on")


def beyond_limit(cpu: Cpu, address: int) -> bool:
    """Whether the code byte at linear ``address`` is beyond CS's limit; never in 64-bit mode."""
    env = cpu.env
    return not env.d[HFLAGS] & HF.CS64 and address - env.q[CS_BASE] & M32 > env.d[CS_FLAGS - 1]


def check_fetch(cpu: Cpu, length: int) -> None:
    """#GP(0) for an instruction beyond CS's limit: at the branch that went there, if one did."""
    env, fields = cpu.env, cpu.probe.fields
    offset, limit = env.q[EIP], env.d[CS_FLAGS - 1]
    if offset > limit and undo_branch_from(cpu, fields[PREVIOUS]):
        # The branch was counted when it started; what it went to has not started.
        fields[COUNTER] -= 1
        fields[LAST] = fields[PREVIOUS]
        raise Fault(_GP, 0)
    if offset + length - 1 > limit:
        raise Fault(_GP, 0)
