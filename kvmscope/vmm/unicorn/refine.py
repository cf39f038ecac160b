"""What Unicorn's faults leave open: #SS or #GP, and branches to non-canonical addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn import decode
from kvmscope.vmm.unicorn.env import EIP, HF, HFLAGS, M32, M64
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.lengths import instructions
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.vmm.unicorn.probe import LAST, NOWHERE

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.lengths import Shape

__all__ = ["general_protection", "undo_branch"]

_SS, _GP = 12, 13
_PUSHES: Final = frozenset({*range(0x50, 0x58), 0x68, 0x6A, 0x9C, 0xE8, 0xC8, 0x1A0, 0x1A8})
_POPS: Final = frozenset({*range(0x58, 0x60), 0x9D, 0xC2, 0xC3, 0x1A1, 0x1A9})
_RETURNS: Final = (0xC2, 0xC3)


def _current(cpu: Cpu, address: int) -> tuple[Shape, bytes] | None:
    data = cpu.memory.peek(address, 15)
    h = cpu.env.d[HFLAGS]
    shapes = instructions(data, bool(h & HF.CS64), bool(h & HF.CS32))
    return (shapes[0], data) if shapes else None


def general_protection(cpu: Cpu) -> int:
    """Vector of a #GP(0) that Unicorn raised in 64-bit code: #SS where the address is non-canonical and the stack's."""
    env = cpu.env
    if not env.d[HFLAGS] & HF.CS64:
        return _GP
    found = _current(cpu, env.linear_ip)
    if found is None:
        return _GP
    shape, data = found
    bits = cpu.memory.linear_bits
    if shape.modrm and shape.modrm < 0xC0 and shape.opcode not in (0x68, 0x6A):
        ins = decode.decode(cpu, data[: shape.length], length=shape.length)
        try:
            decode.linear(cpu, ins, 1)
        except Fault as fault:
            return fault.vector
    sp = env.q[4]
    if shape.opcode in _PUSHES or (shape.opcode == 0xFF and shape.modrm >> 3 & 7 in (2, 6)):
        return _GP if canonical(sp - 1 & M64, bits) and canonical(sp - 8 & M64, bits) else _SS
    if shape.opcode in _POPS or shape.opcode == 0x8F:
        return _GP if canonical(sp, bits) and canonical(sp + 7 & M64, bits) else _SS
    if shape.opcode == 0xC9:
        return _GP if canonical(env.q[5], bits) else _SS
    return _GP


def undo_branch(cpu: Cpu) -> bool:
    """Take back a near branch to a non-canonical address, which faults at the branch and not at its target.

    True if RIP is at the branch again; False when the last instruction simply ended at the edge of the canonical
    addresses (then the fetch is what faults).
    """
    env = cpu.env
    q = env.q
    last = cpu.probe.fields[LAST]
    if not env.d[HFLAGS] & HF.CS64 or canonical(q[EIP], cpu.memory.linear_bits) or last == NOWHERE:
        return False
    found = _current(cpu, last)
    if found is None or last + found[0].length == q[EIP]:
        return False
    shape, data = found
    if shape.opcode in _RETURNS:
        release = int.from_bytes(data[shape.length - 2 : shape.length], "little") if shape.opcode == 0xC2 else 0
        q[4] = q[4] - 8 - release & M64
    elif shape.opcode == 0xE8:
        q[4] = q[4] + 8 & M64
    elif 0xE0 <= shape.opcode <= 0xE2:
        narrow = 0x67 in data[: shape.length - 2]
        q[1] = (q[1] & M32) + 1 & M32 if narrow else q[1] + 1 & M64
    q[EIP] = last
    return True
