"""A statement -> prefixes, Intel mnemonic and operands in Intel order, whichever syntax it was written in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from kvmscope.asm.arith import Expression
from kvmscope.asm.gas_source import split_arguments
from kvmscope.asm.image import Syntax
from kvmscope.asm.mnemonics import is_mnemonic, mnemonics
from kvmscope.asm.operands import (
    Far,
    Immediate,
    IsConstant,
    Memory,
    Operand,
    Reg,
    Target,
    parse_att,
    parse_intel,
)
from kvmscope.asm.refusal import Mistake, Refusal

__all__ = ["BRANCHES", "CONDITIONS", "LOOPS", "PREFIXES", "Instruction", "parse_instruction", "place_operands"]

PREFIXES: Final = {
    "lock": b"\xf0", "rep": b"\xf3", "repe": b"\xf3", "repz": b"\xf3", "repne": b"\xf2", "repnz": b"\xf2",
}  # fmt: skip

CONDITIONS: Final = {
    "o": 0, "no": 1, "b": 2, "c": 2, "nae": 2, "ae": 3, "nb": 3, "nc": 3, "e": 4, "z": 4, "ne": 5, "nz": 5, "be": 6,
    "na": 6, "a": 7, "nbe": 7, "s": 8, "ns": 9, "p": 10, "pe": 10, "np": 11, "po": 11, "l": 12, "nge": 12, "ge": 13,
    "nl": 13, "le": 14, "ng": 14, "g": 15, "nle": 15,
}  # fmt: skip
"""Condition codes as in Jcc, SETcc and CMOVcc (SDM vol. 1 appendix B)."""

LOOPS: Final = {"loopne": 0xE0, "loopnz": 0xE0, "loope": 0xE1, "loopz": 0xE1, "loop": 0xE2}
_COUNTER_JUMPS: Final = ("jcxz", "jecxz", "jrcxz")
BRANCHES: Final = frozenset(
    {"jmp", "call", "ljmp", "lcall", *LOOPS, *_COUNTER_JUMPS, *(f"j{code}" for code in CONDITIONS)}
)

_SUFFIXES: Final = {"b": 8, "w": 16, "l": 32, "q": 64}
_GENERAL_WORDS: Final = """
    adc add and bsf bsr bt btc btr bts cmp cmpxchg dec div idiv imul in inc lar lea lsl mov mul neg nop not or out
    pop push rcl rcr rol ror sal sar sbb shl shld shr shrd sldt smsw str sub test xadd xchg xor lldt ltr verr verw lmsw
    bswap popcnt lzcnt tzcnt movnti adcx adox
"""
_GENERAL: Final = frozenset(_GENERAL_WORDS.split())
"""Instructions whose AT&T name may carry the size of its operands."""
_SHIFTS: Final = frozenset({"shl", "shr", "sal", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd"})
_FIXED_SUFFIX: Final = {
    ("callq", 64): "call", ("jmpq", 64): "jmp", ("calll", 32): "call", ("jmpl", 32): "jmp", ("callw", 16): "call",
    ("jmpw", 16): "jmp", ("retq", 64): "ret", ("retl", 32): "ret", ("retw", 16): "ret", ("leaveq", 64): "leave",
    ("leavel", 32): "leave", ("lretl", 32): "lret", ("lretw", 16): "lret", ("lgdtl", 32): "lgdt",
    ("lidtl", 32): "lidt", ("sgdtl", 32): "sgdt", ("sidtl", 32): "sidt", ("lgdtw", 16): "lgdt",
    ("lidtw", 16): "lidt", ("sgdtw", 16): "sgdt", ("sidtw", 16): "sidt", ("ljmpl", 32): "ljmp",
    ("ljmpw", 16): "ljmp", ("vmreadl", 32): "vmread", ("vmreadl", 16): "vmread", ("vmreadq", 64): "vmread",
    ("vmwritel", 32): "vmwrite", ("vmwritel", 16): "vmwrite", ("vmwriteq", 64): "vmwrite", ("lcalll", 32): "lcall", ("lcallw", 16): "lcall",
}  # fmt: skip
"""AT&T names whose suffix is the mode's own size, and so changes nothing."""
_SAME_ORDER: Final = frozenset({"enter", "bound", "invlpga", "monitor", "mwait", "monitorx", "mwaitx"})
"""AT&T does not reverse the operands of these."""
_PASS: Final = frozenset(
    {"lgdt", "lidt", "sgdt", "sidt", "lmsw", "invlpg", "invept", "invvpid", "invpcid", "fxsave", "fxrstor", "xsave",
     "xrstor", "xsaveopt", "xsavec", "xsaves", "xrstors", "fxsave64", "fxrstor64", "xsave64", "xrstor64", "xsaves64",
     "xrstors64", "xsavec64", "xsaveopt64", "clflush", "clflushopt", "clwb", "prefetcht0", "prefetcht1", "prefetcht2",
     "prefetchnta", "prefetchw", "prefetch", "vmptrld", "vmptrst", "vmclear", "vmxon", "ldmxcsr", "stmxcsr", "cmpxchg8b",
     "cmpxchg16b", "arpl", "int", "aam", "aad", "ret", "lret", "retf", "ud0", "ud1", "fnstcw", "fldcw", "fnstsw",
     "fnsave", "frstor", "fnstenv", "fldenv", "vmrun", "vmload", "vmsave", "clzero", "cldemote",
     "rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase", "vmread", "vmwrite", "rdrand", "rdseed"}
)  # fmt: skip
"""AT&T names that are the Intel names and take no suffix."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction; ``size`` is what an AT&T suffix said (0: nothing)."""

    name: str
    operands: tuple[Operand, ...]
    prefixes: bytes = b""
    size: int = 0
    text: str = ""


def parse_instruction(text: str, bits: int, syntax: Syntax, is_constant: IsConstant) -> Instruction:
    """Parse one statement without labels; raises Mistake or Refusal."""
    prefixes = b""
    name, rest = _first(text)
    while name in PREFIXES:
        prefixes += PREFIXES[name]
        name, rest = _first(rest)
        if not name:
            raise Refusal("a prefix without its instruction", text)
    if len(prefixes) > 1:
        raise Refusal("several prefixes", text)
    if name.startswith(".") or "{" in text:
        raise Refusal(f"'{name or text}' is not known to the built-in assembler", name)
    parts = split_arguments(rest) if rest else []
    if syntax is Syntax.INTEL:
        branch = name in BRANCHES
        operands = tuple(parse_intel(part, is_constant, branch=branch) for part in parts)
        if name in BRANCHES or name in mnemonics():
            return Instruction(name, _far_pair(name, operands), prefixes, 0, text)
        raise _unknown(name)
    return _att(name, parts, bits, prefixes, text)


def _first(text: str) -> tuple[str, str]:
    match = re.match(r"([A-Za-z_.][\w.]*)\s*(.*)\Z", text.strip(), re.DOTALL)
    if match is None:
        return "", text
    return match.group(1).lower(), match.group(2).strip()


def _unknown(name: str) -> Refusal:
    return Refusal(f"no such instruction: '{name}'", name)


def _far_pair(name: str, operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """``ljmp SELECTOR, OFFSET`` as one operand."""
    if name in ("ljmp", "lcall") and len(operands) == 2:
        selector, offset = operands
        if isinstance(selector, (Target, Immediate)) and isinstance(offset, (Target, Immediate)):
            return (Far(selector.value, offset.value),)
        raise Refusal("a far branch wants SELECTOR, OFFSET or memory")
    return operands


def _att(name: str, parts: list[str], bits: int, prefixes: bytes, text: str) -> Instruction:
    if not is_mnemonic(name):
        raise _unknown(name)
    base = _FIXED_SUFFIX.get((name, bits), name)
    if name[:3] == "jmp" and base != name and not (parts and parts[0].startswith("*")):
        raise Refusal(f"'{name}' is for indirect jumps", name)
    branch = base in BRANCHES
    operands = [parse_att(part, branch=branch) for part in parts]
    if base not in _SAME_ORDER and base not in ("ljmp", "lcall"):
        operands.reverse()
    if not operands or branch or base in _PASS or base in _SAME_ORDER:
        return Instruction(base, _far_pair(base, tuple(operands)), prefixes, 0, text)
    vector = any(isinstance(one, Reg) and one.info.kind in ("xmm", "ymm", "mm") for one in operands)
    if re.fullmatch(r"mov[zs][bw][wlq]", base) and len(operands) == 2:
        return _extend(base, operands, prefixes, text)
    if base in ("movabs", "movabsq"):
        return Instruction("movabs", tuple(operands), prefixes, 0, text)
    if vector:
        if base in mnemonics():
            return Instruction(base, tuple(operands), prefixes, 0, text)
        raise _unknown(base)
    operands = [_port(base, one) for one in operands]
    for code in ("set", "cmov"):
        if base.startswith(code) and base[len(code) :] in CONDITIONS:
            return _sized(base, operands, 8 if code == "set" else 0, prefixes, text)
    if base in _GENERAL:
        return _sized(base, operands, 0, prefixes, text)
    if base[:-1] in _GENERAL and base[-1] in _SUFFIXES:
        return _sized(base[:-1], operands, _SUFFIXES[base[-1]], prefixes, text)
    if base not in mnemonics():
        raise _unknown(base)
    raise Refusal(f"'{name}' is not known to the built-in assembler in AT&T syntax", name)


def _port(name: str, operand: Operand) -> Operand:
    """``(%dx)`` of IN and OUT is the register."""
    if name[:2] in ("in", "ou") and isinstance(operand, Memory) and operand == Memory(base="dx"):
        return Reg("dx")
    return operand


def _extend(name: str, operands: list[Operand], prefixes: bytes, text: str) -> Instruction:
    """``movzbl`` and its like: the source's size is in the name, the destination's too."""
    target, source = operands
    source_bits, target_bits = _SUFFIXES[name[4]], _SUFFIXES[name[5]]
    if not isinstance(target, Reg) or target.info.bits != target_bits or source_bits >= target_bits:
        raise Refusal(f"'{name}' does not fit its operands", name)
    if isinstance(source, Reg) and source.info.bits != source_bits:
        raise Refusal(f"'{name}' does not fit its operands", name)
    if isinstance(source, Memory):
        source = replace(source, size=source_bits)
    return Instruction("movzx" if name[3] == "z" else "movsx", (target, source), prefixes, 0, text)


def _sized(name: str, operands: list[Operand], size: int, prefixes: bytes, text: str) -> Instruction:
    """Give memory the size of the suffix and hold the registers to it."""
    # The count of a shift and the port of IN and OUT have sizes of their own.
    other = "dx" if name in ("in", "out") else "cl" if name in _SHIFTS else ""
    general = [
        one.info.bits for one in operands if isinstance(one, Reg) and one.info.kind == "gpr" and one.name != other
    ]
    if name in _SHIFTS and operands and isinstance(operands[0], Reg):
        general.append(operands[0].info.bits)
    if size and set(general) - {size}:
        raise Mistake(f"a register of '{text}' has not the size of the suffix", text)
    if size:
        operands = [replace(one, size=size) if isinstance(one, Memory) else one for one in operands]
    return Instruction(name, tuple(operands), prefixes, size, text)


def place_operands(instruction: Instruction, place: Callable[[Expression], Expression]) -> Instruction:
    """``instruction`` with ``place`` applied to every expression in it."""
    operands: list[Operand] = []
    for one in instruction.operands:
        if isinstance(one, Memory):
            one = replace(one, displacement=None if one.displacement is None else place(one.displacement))
        elif isinstance(one, (Immediate, Target)):
            one = replace(one, value=place(one.value))
        elif isinstance(one, Far):
            one = Far(place(one.selector), place(one.offset))
        operands.append(one)
    return replace(instruction, operands=tuple(operands))
