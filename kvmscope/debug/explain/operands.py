"""The instruction at RIP, decoded, with the addresses its operands had (SDM vol. 1 section 3.7.5).

The bytes are read as they stand in memory; effective addresses come from the state before the instruction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from kvmscope.debug.explain.model import SEGMENTS, Guest
from kvmscope.x86.registers import KNOWN_NAMES, read_register
from kvmscope.x86.state import Seg

__all__ = ["Decoded", "MemoryOperand", "decode", "register_value"]

_SEGMENT_NUMBER: Final = {name.lower(): number for number, name in enumerate(SEGMENTS)}
_STRING_OPS: Final = frozenset(
    base + suffix for base in ("movs", "cmps", "stos", "lods", "scas", "ins", "outs") for suffix in "bwdq"
)
_READ, _WRITE = "read", "write"

_STACK_WRITES: Final = frozenset({"push", "pushal", "pushaw", "pushf", "pushfd", "pushfq", "call", "lcall", "enter"})
_STACK_READS: Final = frozenset({
    "pop", "popal", "popaw", "popf", "popfd", "popfq", "ret", "retf", "retfq", "iret", "iretd", "iretq",
})  # fmt: skip
_STACK_SLOTS: Final = {"pushal": 8, "pushaw": 8, "popal": 8, "popaw": 8, "retf": 2, "retfq": 2, "lcall": 2}
_IRET_SLOTS: Final = {16: 3, 32: 3, 64: 5}


def register_value(guest: Guest, name: str) -> int | None:
    """Value of a register by its assembler name; None for one that the state does not have."""
    return read_register(guest.cpu, name) if name in KNOWN_NAMES else None


@dataclass(frozen=True, slots=True)
class MemoryOperand:
    """One access of the instruction to memory, explicit or implied."""

    text: str
    """As written: ``[rax + 8]``; ``push`` and the like: ``[rsp - 8]``."""
    segment: int
    offset: int
    """Effective address, truncated to the address size."""
    linear: int
    size: int
    access: str
    """``read``, ``write``, ``read and write``, or empty for an address that is not accessed (LEA, INVLPG)."""
    registers: tuple[tuple[str, int], ...] = ()
    """The registers that make the address, with their values."""

    @property
    def writes(self) -> bool:
        """True when the operand is stored to."""
        return _WRITE in self.access

    def covers(self, linear: int) -> bool:
        """True when the byte at ``linear`` is part of the access."""
        return self.linear <= linear < self.linear + max(self.size, 1)

    def formula(self) -> str:
        """``[rax + 8]: rax = 0x7000``."""
        values = ", ".join(f"{name} = {value:#x}" for name, value in self.registers)
        return f"{self.text}: {values}" if values else self.text


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded instruction."""

    data: bytes
    mnemonic: str
    """Without prefixes: ``movsb`` for ``rep movsb``."""
    operands: str
    memory: tuple[MemoryOperand, ...]
    registers: tuple[str, ...]
    """Register operands in the order written."""
    immediates: tuple[int, ...]
    operand_size: int
    """Bits."""
    lock: bool = False
    rep: bool = False
    first: str = ""
    """``reg``, ``mem`` or ``imm``: the kind of the first operand; empty without operands."""
    groups: frozenset[str] = field(default_factory=frozenset)

    @property
    def text(self) -> str:
        """``lock cmpxchg dword ptr [rcx], eax``."""
        prefix = "lock " if self.lock else "rep " if self.rep else ""
        return f"{prefix}{self.mnemonic} {self.operands}".rstrip()


@lru_cache(maxsize=3)
def _disassembler(bits: int) -> Any:
    # capstone takes 20 ms to import; a front end that never explains anything does not pay.
    import capstone

    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[bits]
    engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
    engine.detail = True
    return engine


def _operand_size(bits: int, prefixes: bytes, rex_w: bool) -> int:
    if rex_w:
        return 64
    if bits == 16:
        return 32 if 0x66 in prefixes else 16
    return 16 if 0x66 in prefixes else 32


def _stack_operand(guest: Guest, mnemonic: str, operand_size: int, has_imm: bool) -> MemoryOperand | None:
    """The implicit access of a stack instruction."""
    writes = mnemonic in _STACK_WRITES
    if not writes and mnemonic not in _STACK_READS:
        return None
    if mnemonic == "enter" or (has_imm and mnemonic == "enter"):
        return None
    bits = guest.bits
    slot = operand_size // 8
    if bits == 64 and operand_size == 32 and not mnemonic.startswith(("iret", "retf", "lcall")):
        slot = 8
    slots = _IRET_SLOTS[bits] if mnemonic.startswith("iret") else _STACK_SLOTS.get(mnemonic, 1)
    size = slot * slots
    width = 64 if bits == 64 else 32 if guest.cpu.segments[Seg.SS].db else 16
    name = {64: "rsp", 32: "esp", 16: "sp"}[width]
    pointer = guest.gpr("rsp") & (1 << width) - 1
    offset = (pointer - size if writes else pointer) & (1 << width) - 1
    linear = offset if bits == 64 else (guest.cpu.segments[Seg.SS].base + offset) & 0xFFFFFFFF
    text = f"[{name} - {size:#x}]" if writes else f"[{name}]"
    return MemoryOperand(text, Seg.SS, offset, linear, size, _WRITE if writes else _READ, ((name, pointer),))


def _default_segment(base: str, mnemonic: str, position: int) -> int:
    if mnemonic in _STRING_OPS:
        destination = mnemonic[:3] in ("sto", "sca", "ins") or (mnemonic[:3] == "mov" and position == 0)
        return Seg.ES if destination or (mnemonic[:3] == "cmp" and position == 1) else Seg.DS
    return Seg.SS if base in ("rsp", "esp", "sp", "rbp", "ebp", "bp") else Seg.DS


def _explicit_operand(guest: Guest, insn: Any, operand: Any, mnemonic: str, position: int) -> MemoryOperand:
    memory = operand.mem
    width = insn.addr_size * 8
    mask = (1 << width) - 1
    offset = int(memory.disp)
    parts: list[str] = []
    values: list[tuple[str, int]] = []
    base = insn.reg_name(memory.base) if memory.base else ""
    index = insn.reg_name(memory.index) if memory.index else ""
    if base:
        value = register_value(guest, base) or 0
        if base in ("rip", "eip"):
            value += insn.size
        offset += value
        parts.append(base)
        values.append((base, value))
    if index and index not in ("riz", "eiz"):
        value = register_value(guest, index) or 0
        offset += value * memory.scale
        parts.append(index + (f"*{memory.scale}" if memory.scale != 1 else ""))
        values.append((index, value))
    text = " + ".join(parts)
    if memory.disp or not parts:
        sign = "-" if memory.disp < 0 and parts else "+"
        shown = abs(memory.disp) if parts else memory.disp & mask
        text = f"{text} {sign} {shown:#x}" if parts else f"{shown:#x}"
    segment = _SEGMENT_NUMBER.get(insn.reg_name(memory.segment) if memory.segment else "")
    if segment is None:
        segment = _default_segment(base, mnemonic, position)
    elif not (guest.bits == 64 and segment not in (Seg.FS, Seg.GS)):
        text = f"{SEGMENTS[segment].lower()}:{text}"
    offset &= mask
    segment_base = guest.segment_base(segment)
    linear = segment_base + offset & ((1 << 64) - 1 if guest.bits == 64 else 0xFFFFFFFF)
    if segment_base:
        values.append((f"{SEGMENTS[segment].lower()}.base", segment_base))
    access = {1: _READ, 2: _WRITE, 3: "read and write"}.get(operand.access, "")
    if mnemonic in _STRING_OPS:
        access = _WRITE if mnemonic[:3] in ("sto", "ins") or (mnemonic[:3] == "mov" and position == 0) else _READ
    elif mnemonic in ("lea", "invlpg", "nop", "prefetch"):
        access = ""
    return MemoryOperand(f"[{text}]", segment, offset, linear, int(operand.size), access, tuple(values))


def decode(guest: Guest, code: bytes | None = None) -> Decoded | None:
    """The instruction at RIP (or ``code`` in its place); None when its bytes cannot be read or are no instruction."""
    if code is None:
        code = guest.code()
    if not code:
        return None
    found = next(iter(_disassembler(guest.bits).disasm(code, guest.cpu.rip, 1)), None)
    if found is None:
        return None
    data = bytes(found.bytes)
    mnemonic = found.mnemonic.split()[-1]
    prefixes, rex_w = _prefixes(data, guest.bits)
    size = _operand_size(guest.bits, prefixes, rex_w)
    memory: list[MemoryOperand] = []
    registers: list[str] = []
    immediates: list[int] = []
    kinds: list[str] = []
    for position, operand in enumerate(found.operands):
        if operand.type == 1:
            registers.append(found.reg_name(operand.reg))
            kinds.append("reg")
        elif operand.type == 2:
            immediates.append(int(operand.imm))
            kinds.append("imm")
        elif operand.type == 3:
            memory.append(_explicit_operand(guest, found, operand, mnemonic, position))
            kinds.append("mem")
    stack = _stack_operand(guest, mnemonic, size, bool(immediates))
    if stack is not None:
        memory.append(stack)
    return Decoded(
        data,
        mnemonic,
        found.op_str,
        tuple(memory),
        tuple(registers),
        tuple(immediates),
        size,
        lock=0xF0 in prefixes,
        rep=bool({0xF2, 0xF3} & set(prefixes)) and mnemonic in _STRING_OPS,
        first=kinds[0] if kinds else "",
        groups=frozenset(found.group_name(group) for group in found.groups),
    )


_PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))


def _prefixes(data: bytes, bits: int) -> tuple[bytes, bool]:
    """(legacy prefixes, REX.W) in front of the opcode."""
    end = 0
    while end < len(data) and data[end] in _PREFIXES:
        end += 1
    rex = data[end] if bits == 64 and end < len(data) and data[end] & 0xF0 == 0x40 else 0
    return data[:end], bool(rex & 8)
