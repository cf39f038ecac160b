"""What Unicorn's faults leave open: #SS or #GP, branches to non-canonical addresses, and read or write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn import decode
from kvmscope.vmm.unicorn.env import CS_BASE, EIP, HF, HFLAGS, M32, M64, SS_FLAGS, base_index
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.lengths import first_instruction
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.vmm.unicorn.operands import accesses, may_write
from kvmscope.vmm.unicorn.probe import LAST, NOWHERE
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu
    from kvmscope.vmm.unicorn.lengths import Shape

__all__ = ["general_protection", "undo_branch", "undo_branch_from", "write_intent"]

_SS, _GP = 12, 13
_PUSHES: Final = frozenset({*range(0x50, 0x58), 0x68, 0x6A, 0x9C, 0xE8, 0xC8, 0x1A0, 0x1A8})
_POPS: Final = frozenset({*range(0x58, 0x60), 0x9D, 0xC2, 0xC3, 0x1A1, 0x1A9})
_RETURNS: Final = (0xC2, 0xC3)
_LOOPS: Final = (0xE0, 0xE1, 0xE2)
_BRANCHES: Final = frozenset(
    {0xC2, 0xC3, 0xE8, 0xE9, 0xEB, *range(0x70, 0x80), *range(0x180, 0x190), *range(0xE0, 0xE4)}
)


def _current(cpu: Cpu, address: int) -> tuple[Shape, bytes] | None:
    data = cpu.memory.peek(address, 15)
    h = cpu.env.d[HFLAGS]
    shape = first_instruction(data, bool(h & HF.CS64), bool(h & HF.CS32))
    return None if shape is None else (shape, data)


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
    if not cpu.env.d[HFLAGS] & HF.CS64 or canonical(cpu.env.q[EIP], cpu.memory.linear_bits):
        return False
    return undo_branch_from(cpu, cpu.probe.fields[LAST])


def undo_branch_from(cpu: Cpu, address: int) -> bool:
    """Take back the near branch at linear ``address`` that led to the current RIP; False if there is none there.

    What a CALL has pushed stays in memory, below the stack pointer.
    """
    env = cpu.env
    q = env.q
    if address == NOWHERE:
        return False
    found = _current(cpu, address)
    if found is None:
        return False
    shape, data = found
    code64 = bool(env.d[HFLAGS] & HF.CS64)
    start = address if code64 else address - q[CS_BASE] & M32
    opcode, operation = shape.opcode, shape.modrm >> 3 & 7
    if start + shape.length == q[EIP] or not (opcode in _BRANCHES or (opcode == 0xFF and operation in (2, 4))):
        return False
    ins = decode.decode(cpu, data, modrm=False)
    width = 8 if code64 else ins.operand_size
    if opcode in _RETURNS:
        release = int.from_bytes(data[shape.length - 2 : shape.length], "little") if opcode == 0xC2 else 0
        _move_stack(cpu, -width - release)
    elif opcode == 0xE8 or (opcode == 0xFF and operation == 2):
        _move_stack(cpu, width)
    elif opcode in _LOOPS:
        mask = {2: 0xFFFF, 4: M32, 8: M64}[ins.address_size]
        count = (q[1] & mask) + 1 & mask
        q[1] = count if mask != 0xFFFF else q[1] & ~mask | count
    q[EIP] = start
    return True


def _move_stack(cpu: Cpu, by: int) -> None:
    env = cpu.env
    if env.d[HFLAGS] & HF.CS64:
        mask = M64
    else:
        mask = M32 if env.d[SS_FLAGS] & 1 << 22 else 0xFFFF
    env.q[4] = env.q[4] & ~mask & M64 | env.q[4] + by & mask


def write_intent(cpu: Cpu, code: int, address: int) -> int:
    """The error code of a #PF of data at linear ``address``: a read-modify-write asks for the right to write at once.

    Unicorn loads before it stores and reports a read.
    """
    if code & 0x12:
        return code
    env = cpu.env
    code64 = bool(env.d[HFLAGS] & HF.CS64)
    found = _current(cpu, env.linear_ip)
    if found is None or not may_write(found[0]):
        return code
    shape, data = found
    for access in accesses(cpu, shape, data[: shape.length]):
        base = env.q[base_index(access.segment)] if not code64 or access.segment >= Seg.FS else 0
        start = access.offset + base & (M64 if code64 else M32)
        if access.write and access.size and start <= address < start + access.size:
            return code | 2
    return code
