"""A small decoder for instructions that are executed or checked in Python: prefixes, opcode, ModRM operand.

Only what trapped instructions need (SDM vol. 2A chapter 2); it is not a disassembler.  Displacements are included in
lengths, immediates are not: `Instruction.length` is the offset of the first byte after ModRM, SIB and displacement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmscope.vmm.unicorn.env import EIP, HF, HFLAGS, M32, M64, base_index
from kvmscope.vmm.unicorn.faults import Fault
from kvmscope.vmm.unicorn.memory import canonical
from kvmscope.x86.state import Seg

if TYPE_CHECKING:
    from kvmscope.vmm.unicorn.cpu import Cpu

__all__ = ["BASES16", "SEGMENT_PREFIX", "Instruction", "decode", "fetch", "read_operand", "write_operand"]

SEGMENT_PREFIX: Final = {0x26: Seg.ES, 0x2E: Seg.CS, 0x36: Seg.SS, 0x3E: Seg.DS, 0x64: Seg.FS, 0x65: Seg.GS}
BASES16: Final = ((3, 6), (3, 7), (5, 6), (5, 7), (6,), (7,), (5,), (3,))
"""Registers that a 16-bit address adds, by ModRM.rm."""
_GP, _SS_FAULT = 13, 12


class Instruction:
    """A decoded instruction; the operand fields are valid after `decode` with ``modrm=True``."""

    __slots__ = (
        "address_size",
        "data",
        "displacement",
        "length",
        "lock",
        "map",
        "mask",
        "mod",
        "offset",
        "opcode",
        "operand_size",
        "prefix_length",
        "reg",
        "relative",
        "rep",
        "rex",
        "rm",
        "segment",
        "segment_override",
        "size_prefix",
        "terms",
    )

    def __init__(self) -> None:
        self.data = b""
        self.rex = 0
        self.rep = 0
        """0xF2, 0xF3 or 0."""
        self.lock = False
        self.size_prefix = False
        self.segment_override: int | None = None
        self.map = 0
        """0 one-byte opcodes, 1 0F, 2 0F 38, 3 0F 3A."""
        self.opcode = 0
        self.operand_size = 4
        self.address_size = 4
        self.prefix_length = 0
        """Offset of the opcode's first byte (of 0F)."""
        self.length = 0
        self.mod = 3
        self.reg = 0
        self.rm = 0
        self.segment = int(Seg.DS)
        self.offset = 0
        """Effective address before the segment base, where ``mod`` is not 3."""
        self.terms: tuple[tuple[int, int], ...] = ()
        """What it is the sum of, besides ``displacement``: (register, shift)."""
        self.displacement = 0
        self.relative = False
        """RIP is added too, of the next instruction."""
        self.mask = 0


def fetch(cpu: Cpu, size: int = 15) -> bytes:
    """Code bytes at the current instruction, as far as they are mapped."""
    return cpu.memory.peek(cpu.env.linear_ip, size)


def decode(cpu: Cpu, data: bytes, modrm: bool = True, length: int = 0) -> Instruction:
    """Decode ``data``, which are the bytes at the current instruction, in the current mode.

    ``length`` is the whole instruction's, where it has an immediate: RIP-relative operands count from its end.
    The same bytes give the same object, its ``offset`` computed anew.
    Raises `Fault` (#UD) if the bytes end too early.
    """
    env = cpu.env
    key = (data, env.d[HFLAGS] & (HF.CS64 | HF.CS32), modrm)
    ins = _known.get(key)
    if ins is None:
        try:
            ins = _decode(*key)
        except IndexError:
            raise Fault(6) from None
        if len(_known) >= _KNOWN:
            _known.clear()
        _known[key] = ins
    if ins.mod != 3:
        q = env.q
        value = ins.displacement
        for register, scale in ins.terms:
            value += q[register] << scale
        if ins.relative:
            value += q[EIP] + (length or ins.length)
        ins.offset = value & ins.mask
    return ins


_KNOWN: Final = 4096
_known: dict[tuple[bytes, int, bool], Instruction] = {}
"""A guest that spins runs the same few over and over."""
_PREFIXES: Final = frozenset({0x66, 0x67, 0xF0, 0xF2, 0xF3, *SEGMENT_PREFIX})


def _decode(data: bytes, mode: int, modrm: bool) -> Instruction:
    """What does not depend on registers; ``mode`` has the bits of ``hflags``."""
    code64, code32 = bool(mode & HF.CS64), bool(mode & HF.CS32)
    ins = Instruction()
    ins.data = data
    i = 0
    sized = addressed = False
    while True:
        byte = data[i]
        if byte == 0x66:
            sized = True
        elif byte == 0x67:
            addressed = True
        elif byte in (0xF2, 0xF3):
            ins.rep = byte
        elif byte == 0xF0:
            ins.lock = True
        elif byte in SEGMENT_PREFIX:
            ins.segment_override = SEGMENT_PREFIX[byte]
        elif code64 and byte & 0xF0 == 0x40:
            # Only a REX right before the opcode counts.
            if data[i + 1] in _PREFIXES or data[i + 1] & 0xF0 == 0x40:
                i += 1
                continue
            ins.rex = byte
            i += 1
            break
        else:
            break
        i += 1
    ins.size_prefix = sized
    ins.prefix_length = i
    if code64:
        ins.operand_size = 8 if ins.rex & 8 else 2 if sized else 4
        ins.address_size = 4 if addressed else 8
    else:
        ins.operand_size = 4 if code32 != sized else 2
        ins.address_size = 4 if code32 != addressed else 2
    ins.opcode = data[i]
    i += 1
    if ins.opcode == 0x0F:
        ins.map, ins.opcode = 1, data[i]
        i += 1
        if ins.opcode in (0x38, 0x3A):
            ins.map, ins.opcode = (2 if ins.opcode == 0x38 else 3), data[i]
            i += 1
    ins.length = i
    if modrm:
        _operand(ins, data, i, code64)
    return ins


def _operand(ins: Instruction, data: bytes, i: int, code64: bool) -> None:
    """ModRM, SIB and displacement at ``i``: what an effective address is made of."""
    byte = data[i]
    i += 1
    ins.mod = byte >> 6
    ins.reg = byte >> 3 & 7 | (ins.rex & 4) << 1
    low = byte & 7
    ins.rm = low | (ins.rex & 1) << 3
    if ins.mod == 3:
        ins.length = i
        return
    segment = Seg.DS
    size = 0 if ins.mod == 0 else 1 if ins.mod == 1 else 2 if ins.address_size == 2 else 4
    terms: list[tuple[int, int]] = []
    if ins.address_size == 2:
        if ins.mod == 0 and low == 6:
            size = 2
        else:
            terms = [(register, 0) for register in BASES16[low]]
            if low in (2, 3, 6):
                segment = Seg.SS
        ins.mask = 0xFFFF
    else:
        ins.mask = M64 if ins.address_size == 8 else M32
        if low == 4:
            sib = data[i]
            i += 1
            index = sib >> 3 & 7 | (ins.rex & 2) << 2
            base = sib & 7 | (ins.rex & 1) << 3
            if index != 4:
                terms.append((index, sib >> 6))
            if sib & 7 == 5 and ins.mod == 0:
                size = 4
            else:
                terms.append((base, 0))
                if base in (4, 5):
                    segment = Seg.SS
        elif low == 5 and ins.mod == 0:
            size = 4
            ins.relative = code64
        else:
            terms.append((ins.rm, 0))
            if ins.rm == 5:
                segment = Seg.SS
    if size:
        if i + size > len(data):
            raise IndexError
        ins.displacement = int.from_bytes(data[i : i + size], "little", signed=True)
        i += size
    ins.length = i
    ins.terms = tuple(terms)
    ins.segment = segment if ins.segment_override is None else ins.segment_override


def linear(cpu: Cpu, ins: Instruction, size: int, offset: int = 0) -> int:
    """Linear address of ``size`` bytes at the memory operand plus ``offset``.

    Raises `Fault`: #GP(0) or #SS(0) for a non-canonical address.
    """
    env = cpu.env
    where = ins.offset + offset
    if env.d[HFLAGS] & HF.CS64:
        if ins.segment >= Seg.FS:
            where += env.q[base_index(ins.segment)]
        where &= M64
        bits = cpu.memory.linear_bits
        if not canonical(where, bits) or not canonical((where + size - 1) & M64, bits):
            raise Fault(_SS_FAULT if ins.segment == Seg.SS else _GP, 0)
        return where
    return where + env.q[base_index(ins.segment)] & M32


def read_operand(cpu: Cpu, ins: Instruction, size: int, offset: int = 0) -> int:
    """The r/m operand's value (register, or ``size`` bytes of memory as the current ring)."""
    if ins.mod == 3:
        return cpu.env.q[ins.rm] & ((1 << 8 * size) - 1)
    where = linear(cpu, ins, size, offset)
    return int.from_bytes(cpu.memory.read(where, size, user=cpu.env.cpl == 3, stack=ins.segment == Seg.SS), "little")


def write_operand(cpu: Cpu, ins: Instruction, size: int, value: int) -> None:
    """Write the r/m operand: a register as the processor does (32 bits clear the rest), or memory."""
    if ins.mod == 3:
        q = cpu.env.q
        if size == 8:
            q[ins.rm] = value & M64
        elif size == 4:
            q[ins.rm] = value & M32
        else:
            mask = (1 << 8 * size) - 1
            q[ins.rm] = q[ins.rm] & ~mask & M64 | value & mask
        return
    data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    cpu.memory.write(linear(cpu, ins, size), data, user=cpu.env.cpl == 3, stack=ins.segment == Seg.SS)
