"""Bytes to text: capstone, corrected and completed by a table (`kvmscope.asm.disasm_overlay`).

Capstone is imported at first use: it costs more than a whole headless run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from kvmscope.asm.disasm_overlay import ROWS, SUSPECTS, Row
from kvmscope.asm.image import Syntax
from kvmscope.asm.instruction import (
    BAD,
    Instruction,
    branch_target,
    is_branch,
    is_call,
    is_conditional,
    is_rep,
    is_ret,
    is_software_interrupt,
)

if TYPE_CHECKING:
    from capstone import Cs

__all__ = [
    "BAD",
    "FORCED_EMULATION",
    "Instruction",
    "branch_target",
    "disassemble",
    "is_branch",
    "is_call",
    "is_conditional",
    "is_rep",
    "is_ret",
    "is_software_interrupt",
    "length_at",
]

FORCED_EMULATION: Final = bytes.fromhex("0f0b6b766d")
"""``ud2; .ascii "kvm"``: KVM with kvm.force_emulation_prefix=1 emulates the instruction behind it."""
_FEP_NAME: Final = "kvm_fep"

_LEGACY: Final = frozenset(bytes.fromhex("262e363e64656667f0f2f3"))
_SHORT_BRANCHES: Final = frozenset([*range(0x70, 0x80), *range(0xE0, 0xE4), 0xEB])
_LOCALS: Final = threading.local()


def _decoder(bits: int, syntax: Syntax) -> Cs:
    """This thread's capstone for a mode: the C library runs without the GIL, on state of its own."""
    cache: dict[tuple[int, Syntax], Cs] = _LOCALS.__dict__.setdefault("decoders", {})
    found = cache.get((bits, syntax))
    if found is None:
        import capstone

        modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
        found = capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
        found.syntax = capstone.CS_OPT_SYNTAX_ATT if syntax is Syntax.ATT else capstone.CS_OPT_SYNTAX_INTEL
        found.skipdata = True
        cache[bits, syntax] = found
    return found


def disassemble(
    code: bytes,
    address: int,
    bits: int,
    *,
    syntax: Syntax = Syntax.INTEL,
    count: int = 0,
    code_base: int | None = None,
) -> list[Instruction]:
    """Instructions of ``code``, which begins at ``address`` (linear), in order; at most ``count`` unless that is 0.

    Every byte belongs to exactly one instruction; one that the end of ``code`` cuts off comes as ``(bad)`` bytes.
    ``code_base`` is the base of CS: a branch with 16-bit operand size wraps within the segment's first 64 KiB.  Without
    it a base of 0 is taken below 64 KiB, and no wrap above.
    """
    out: list[Instruction] = []
    position = 0
    while position < len(code) and (not count or len(out) < count):
        left = count - len(out) if count else 0
        for size, mnemonic, operands in _capstone(code[position:], address + position, bits, syntax, left):
            known = mnemonic != ".byte"
            # With a 66 prefix in 16-bit code capstone takes SSE opcodes for something else.
            if not known or mnemonic in SUSPECTS or (bits == 16 and b"\x66" in code[position : position + 3]):
                own = _special(code[position : position + 16], address + position, bits, syntax)
                if own is not None:
                    out.append(own)
                    position += own.size
                    if own.size != size:
                        break
                    continue
            data = code[position : position + size]
            if known:
                mnemonic, operands = _corrected(mnemonic, operands, data, bits, syntax)
                if bits != 64 and (operands[:2] == "0x" or operands.isdigit()):
                    operands = _target(operands, data, address + position, bits, code_base)
                out.append(Instruction(address + position, data, mnemonic, operands))
            else:
                out.append(Instruction(address + position, data, BAD, "", known=False))
            position += size
    return out


def _capstone(code: bytes, address: int, bits: int, syntax: Syntax, count: int) -> Iterator[tuple[int, str, str]]:
    for _, size, mnemonic, operands in _decoder(bits, syntax).disasm_lite(code, address & (1 << 64) - 1, count):
        yield size, mnemonic, operands


def _corrected(mnemonic: str, operands: str, data: bytes, bits: int, syntax: Syntax) -> tuple[str, str]:
    """Far transfers through memory with the pointer's size, which capstone leaves out in Intel syntax."""
    if syntax is Syntax.INTEL and mnemonic in ("jmp", "call", "ljmp", "lcall") and "[" in operands:
        head = _parse(data, bits)
        if head.opcode_byte(data) == 0xFF and data[head.position + 1] >> 3 & 7 in (3, 5):
            wide = bool(head.rex & 8)
            small = (bits == 16) != head.operand_size
            pointer = "tbyte" if wide else "dword" if small else "fword"
            return f"l{mnemonic.removeprefix('l')}", f"{pointer} ptr {operands.removeprefix('ptr ')}"
    return mnemonic, operands


def _target(operands: str, data: bytes, address: int, bits: int, code_base: int | None) -> str:
    """The operand of a relative branch outside of 64-bit mode, where capstone does not wrap the target."""
    head = _parse(data, bits)
    small = (bits == 16) != head.operand_size
    first, second = data[head.position], data[head.position + 1]
    if first in _SHORT_BRANCHES:
        width = 1
    elif first in (0xE8, 0xE9) or (first == 0x0F and second & 0xF0 == 0x80):
        width = 2 if small else 4
    else:
        return operands
    relative = int.from_bytes(data[-width:], "little", signed=True)
    base = code_base
    if base is None:
        base = 0 if address < 0x10000 or bits == 32 else None
    after = address + len(data) + relative
    if base is not None:
        after = base + (after - base & (0xFFFF if small else 0xFFFFFFFF))
    return f"{after & 0xFFFFFFFF:#x}"


# What precedes the opcode.


@dataclass(frozen=True, slots=True)
class _Head:
    """Prefixes of an instruction; ``position`` is that of the opcode."""

    position: int
    mandatory: str
    operand_size: bool
    address_size: bool
    segment: int
    rex: int
    vex_map: str = ""
    vvvv: int = 0

    def opcode_byte(self, data: bytes) -> int:
        return data[self.position] if self.position < len(data) else -1


def _parse(data: bytes, bits: int) -> _Head:
    """Legacy prefixes, then REX or a three-byte VEX prefix."""
    position, mandatory, operand_size, address_size, segment, rex = 0, "-", False, False, 0, 0
    while position < len(data) and data[position] in _LEGACY:
        byte = data[position]
        if byte == 0x66:
            operand_size = True
        elif byte == 0x67:
            address_size = True
        elif byte in (0xF2, 0xF3):
            mandatory = f"{byte:02x}"
        elif byte != 0xF0:
            segment = byte
        position += 1
    if mandatory == "-" and operand_size:
        mandatory = "66"
    if bits == 64 and position < len(data) and data[position] & 0xF0 == 0x40:
        rex = data[position]
        position += 1
    # In 64-bit mode C4 is always VEX; elsewhere it is LES, and no row of the table is VEX there.
    if bits == 64 and position + 3 <= len(data) and data[position] == 0xC4:
        first, second = data[position + 1], data[position + 2]
        maps = {1: "0f", 2: "38", 3: "3a", 7: "7"}
        inverted = ~first >> 5 & 7
        rex = 0x40 | second >> 4 & 8 | inverted
        prefix = ("-", "66", "f3", "f2")[second & 3]
        return _Head(
            position + 3, prefix, False, address_size, segment, rex, maps.get(first & 0x1F, "?"), ~second >> 3 & 15
        )
    return _Head(position, mandatory, operand_size, address_size, segment, rex)


# The overlay table.


@lru_cache(maxsize=1)
def _by_opcode() -> dict[tuple[str, bytes], tuple[Row, ...]]:
    table: dict[tuple[str, bytes], tuple[Row, ...]] = {}
    for row in ROWS:
        key = row.vex, bytes.fromhex(row.opcode)
        table[key] = (*table.get(key, ()), row)
    return table


def _modrm_fits(pattern: str, modrm: int) -> bool:
    if not pattern.startswith("/"):
        return modrm == int(pattern, 16)
    register_form = modrm >= 0xC0
    if pattern[1] != "r" and modrm >> 3 & 7 != int(pattern[1]):
        return False
    return len(pattern) == 2 or register_form == (pattern[2] == "r")


def _special(data: bytes, address: int, bits: int, syntax: Syntax) -> Instruction | None:
    """The instruction at the start of ``data`` if it is one of the table's or the forced emulation prefix."""
    if data.startswith(FORCED_EMULATION):
        return Instruction(address, FORCED_EMULATION, _FEP_NAME, "")
    head = _parse(data, bits)
    table = _by_opcode()
    for length in (1, 2, 3):
        opcode = data[head.position : head.position + length]
        for row in table.get((head.vex_map, opcode), ()) if len(opcode) == length else ():
            if bits not in row.bits or row.prefix not in ("*", head.mandatory):
                continue
            after = head.position + length
            if row.modrm != "none" and (after >= len(data) or not _modrm_fits(row.modrm, data[after])):
                continue
            return _render(row, head, data, after, address, bits, syntax)
    return _sse16(head, data, address, syntax) if bits == 16 and head.operand_size else None


def _sse16(head: _Head, data: bytes, address: int, syntax: Syntax) -> Instruction | None:
    """An SSE instruction whose mandatory prefix is 66, in 16-bit code: read as 32-bit code of the same address size.

    Operand size does not change these, so their text is right; anything without an XMM register is left to capstone.
    """
    if head.opcode_byte(data) != 0x0F:
        return None
    prefixes = data[: head.position].replace(b"\x67", b"")
    probe = (b"" if head.address_size else b"\x67") + prefixes + data[head.position :]
    for size, mnemonic, operands in _capstone(probe, address, 32, syntax, 1):
        if "xmm" in operands and mnemonic != ".byte":
            length = size - len(probe) + len(data)
            return Instruction(address, data[:length], mnemonic, operands)
    return None


_R64: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)))
_LOW: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")


def _register(number: int, width: int) -> str:
    if width == 64:
        return _R64[number]
    if number >= 8:
        return f"r{number}{'d' if width == 32 else 'w'}"
    return f"e{_LOW[number]}" if width == 32 else _LOW[number]


def _memory(head: _Head, data: bytes, after: int, bits: int, syntax: Syntax) -> tuple[str, int] | None:
    """Text of the ModRM memory operand at ``after`` and the length of its bytes.

    Capstone writes it: the same ModRM behind MOV r8, r/m8, whose register is then cut off.
    """
    prefixes = bytes([head.segment]) * (head.segment > 0) + b"\x67" * head.address_size
    rex = bytes([0x40 | head.rex & 3]) if bits == 64 else b""
    probe = prefixes + rex + b"\x8a" + bytes([data[after] & 0xC7]) + data[after + 1 :]
    for size, mnemonic, operands in _capstone(probe, 0, bits, syntax, 1):
        if mnemonic == ".byte":
            return None
        text = operands.rsplit(", ", 1)[0] if syntax is Syntax.ATT else operands.split(" ptr ", 1)[1]
        return text, size - len(prefixes) - len(rex) - 1
    return None


def _render(
    row: Row, head: _Head, data: bytes, after: int, address: int, bits: int, syntax: Syntax
) -> Instruction | None:
    """The instruction ``row`` with its operands read; None when ``data`` ends within it."""
    att = syntax is Syntax.ATT
    memory, end = "", after
    if row.modrm != "none":
        end += 1
        if data[after] < 0xC0:
            found = _memory(head, data, after, bits, syntax)
            if found is None:
                return None
            memory, length = found
            end = after + length
    modrm = data[after] if row.modrm != "none" else 0
    reg = modrm >> 3 & 7 | (head.rex & 4) << 1
    rm = modrm & 7 | (head.rex & 1) << 3
    operand_width = 64 if head.rex & 8 else 16 if (bits == 16) != head.operand_size else 32
    address_width = {64: (64, 32), 32: (32, 16), 16: (16, 32)}[bits][head.address_size]
    mark = "%" if att else ""
    operands: list[str] = []
    for kind in row.operands:
        if kind == "mem" or (kind == "rmv" and memory):
            operands.append(memory)
        elif kind.startswith("imm"):
            size = int(kind[3:]) // 8
            raw = data[end : end + size]
            if len(raw) < size:
                return None
            end += size
            operands.append(f"{'$' if att else ''}{int.from_bytes(raw, 'little'):#x}")
        elif kind[0] in "xt":
            number = {"xreg": reg, "xrm": rm, "treg": reg & 7, "trm": rm & 7, "tvex": head.vvvv & 7}[kind]
            operands.append(f"{mark}{'xmm' if kind[0] == 'x' else 'tmm'}{number}")
        else:
            tail = kind.removeprefix("reg").removeprefix("rm")
            width = {"v": operand_width, "a": address_width}.get(tail) or int(tail)
            operands.append(mark + _register(reg if kind.startswith("reg") else rm, width))
    if att:
        operands.reverse()
    mnemonic = row.att if att and row.att else row.mnemonic
    return Instruction(address, data[:end], mnemonic, ", ".join(operands))


def length_at(code: bytes, address: int, bits: int) -> int | None:
    """Length of the instruction at the start of ``code``; None when there is none."""
    found = disassemble(code[:16], address, bits, count=1)
    return found[0].size if found and found[0].known else None
