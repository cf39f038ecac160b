"""Nothing that Keystone says is believed: every instruction is decoded again and compared with what was written.

Compared: that the bytes are one instruction and nothing more, the mnemonic, every register, every part of an address,
the value of every number, the size of memory, and that an operand-size prefix has a reason.  What cannot be compared
is refused; the next assembler then decides.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import capstone
from capstone import x86_const

from kvmscope.asm.instructions import CONDITIONS, Instruction
from kvmscope.asm.names import REGISTERS
from kvmscope.asm.operands import Immediate, Memory, Operand, Reg
from kvmscope.asm.refusal import Mistake, Refusal

__all__ = ["REFUSED", "Expected", "check", "check_sizes", "needed_segment"]

_REFUSED_WORDS: Final = """
    sysret sysexit loopw loopd fsub fsubr fdiv fdivr fsubp fsubrp fdivp fdivrp fisub fisubr fidiv fidivr
    vmrun vmload vmsave skinit invlpga invlpgb bound monitor mwait monitorx mwaitx clzero
    movs cmps scas lods stos ins outs xlat nop fwait wait kmovq kmovd kmovw kmovb enqcmd enqcmds movdir64b movdiri
    seamcall vmgexit mcommit clui stui eretu erets ptwrite incsspd incsspq rdsspd rdsspq
    crc32 pushw pushd pushl popw popd
"""
REFUSED: Final = frozenset(_REFUSED_WORDS.split())
"""Mnemonics with operands that Keystone or Capstone gets wrong, or whose operands Capstone does not show."""

_SIZELESS_WORDS: Final = """
    lgdt lidt sgdt sidt invlpg invept invvpid invpcid fxsave fxrstor xsave xrstor xsaveopt xsavec xsaves xrstors
    fxsave64 fxrstor64 xsave64 xrstor64 xsaves64 xrstors64 xsavec64 xsaveopt64 clflush clflushopt clwb lea
    prefetcht0 prefetcht1 prefetcht2 prefetchnta prefetchw prefetch vmptrld vmptrst vmclear vmxon ldmxcsr stmxcsr
    cmpxchg8b cmpxchg16b lldt ltr verr verw lmsw sldt str smsw lds les lss lfs lgs
    fnstcw fldcw fnstsw fnsave frstor fnstenv fldenv
"""
_SIZELESS: Final = frozenset(_SIZELESS_WORDS.split())
"""Instructions whose memory operand has one size, so that none need be written."""
_AREA_WORDS: Final = """
    lgdt lidt sgdt sidt invlpg fxsave fxrstor xsave xrstor xsaveopt xsavec xsaves xrstors fxsave64 fxrstor64 xsave64
    xrstor64 xsaves64 xrstors64 xsavec64 xsaveopt64 clflush clflushopt clwb prefetcht0 prefetcht1 prefetcht2
    prefetchnta prefetchw prefetch fnsave frstor fnstenv fldenv lds les lss lfs lgs
"""
_AREA: Final = frozenset(_AREA_WORDS.split())
"""Instructions whose memory is an area: assemblers disagree about which size words it may have."""
_OWN_SIZE: Final = frozenset({"movzx", "movsx", "cvtsi2sd", "cvtsi2ss", "vcvtsi2sd", "vcvtsi2ss", "crc32"})
"""Instructions whose memory operand has another size than the register beside it."""
_DEFAULT_SIZE: Final = frozenset({"push", "pop", "call", "jmp"})
"""Instructions whose memory operand has the mode's size when none is written."""
_SHIFTS: Final = frozenset({"shl", "shr", "sal", "sar", "rol", "ror", "rcl", "rcr"})
_SET_SIZE: Final = frozenset(f"set{code}" for code in CONDITIONS)

_ALIASES: Final = {
    "sal": "shl", "movabs": "mov", "xlatb": "xlat", "retn": "ret", "int1": "icebp", "wait": "fwait",
    "repz": "repe", "repnz": "repne", "loopz": "loope", "loopnz": "loopne", "lcall": "call far", "ljmp": "jmp far",
    "db": "dr", "prefetchwt1": "prefetchw",
}  # fmt: skip
_SWAPPED: Final = frozenset({"xchg", "test"})
_SEGMENT_IDS: Final = {
    "es": x86_const.X86_REG_ES, "cs": x86_const.X86_REG_CS, "ss": x86_const.X86_REG_SS,
    "ds": x86_const.X86_REG_DS, "fs": x86_const.X86_REG_FS, "gs": x86_const.X86_REG_GS,
}  # fmt: skip
_MODES: Final = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
_STACK_REGISTERS: Final = frozenset({"bp", "ebp", "rbp", "esp", "rsp"})

_lock = threading.Lock()
_decoders: dict[int, Any] = {}


@dataclass(frozen=True, slots=True)
class Expected:
    """An instruction with the numbers that stand in the text given to the encoder, in the order of its operands."""

    instruction: Instruction
    numbers: tuple[int | None, ...]


def check(expected: Expected, data: bytes, bits: int) -> None:
    """Raise Refusal unless ``data`` is exactly the instruction."""
    instruction = expected.instruction
    text = instruction.text
    if data[:1] == b"\x62" and bits == 64:
        raise Refusal("an EVEX instruction (its compressed displacement is scaled wrongly)", text)
    with _lock:
        decoder = _decoders.get(bits)
        if decoder is None:
            decoder = _decoders[bits] = capstone.Cs(capstone.CS_ARCH_X86, _MODES[bits])
            decoder.detail = True
        decoded = list(decoder.disasm(data, 0, 2))
        if len(decoded) != 1 or decoded[0].size != len(data):
            raise Refusal("the built-in assembler's bytes do not decode to one instruction", text)
        _compare(expected, decoded[0], data, bits)


def _compare(expected: Expected, decoded: Any, data: bytes, bits: int) -> None:
    instruction = expected.instruction
    text = instruction.text
    name = decoded.mnemonic.split()[-1]
    if _canonical(name) != _canonical(instruction.name):
        raise Refusal(f"the built-in assembler makes '{name}' of this", text)
    theirs = list(decoded.operands)
    ours = list(zip(instruction.operands, expected.numbers, strict=True))
    if instruction.name == "imul" and len(ours) == 2 and len(theirs) == 3:
        ours.insert(1, ours[0])
    if len(ours) != len(theirs):
        raise Refusal("an operand is missing in the built-in assembler's bytes", text)
    try:
        _operands(ours, theirs, decoded, instruction, bits)
    except Refusal:
        if instruction.name not in _SWAPPED or len(ours) != 2:
            raise
        _operands(ours[::-1], theirs, decoded, instruction, bits)
    _prefixes(instruction, decoded, data, bits)


def _canonical(name: str) -> str:
    """One spelling for all names of an instruction."""
    for stem in ("cmov", "set", "j"):
        code = name[len(stem) :]
        if name.startswith(stem) and code in CONDITIONS:
            return f"{stem}{CONDITIONS[code]}"
    return _ALIASES.get(name, name)


def _operands(
    ours: Sequence[tuple[Operand, int | None]], theirs: Sequence[Any], decoded: Any, instruction: Instruction, bits: int
) -> None:
    sizes = [one.info.bits for one, _ in ours if isinstance(one, Reg) and one.info.kind != "segment"]
    if instruction.name in ("lar", "lsl") and len(sizes) == 2 and sizes[1] not in (16, sizes[0]):
        raise Refusal("operands of these sizes", instruction.text)
    if instruction.name in ("lss", "lfs", "lgs") and 64 in sizes:
        raise Refusal("a far pointer for a 64-bit register", instruction.text)
    kinds = [one.info.kind for one, _ in ours if isinstance(one, Reg)]
    # Capstone shows the register beside a segment register with the mode's size, not with that of the prefix.
    moves_segment = instruction.name == "mov" and kinds == ["segment", "gpr"]
    for (mine, number), other in zip(ours, theirs, strict=True):
        if isinstance(mine, Reg):
            name = decoded.reg_name(other.reg) if other.type == x86_const.X86_OP_REG else ""
            if name != mine.name.replace("db", "dr") and not (moves_segment and _same_number(name, mine)):
                raise Refusal(f"another register than {mine.name}", instruction.text)
        elif isinstance(mine, Immediate):
            # Capstone gives the size of a sign-extended byte as that of the operation.
            width = max(other.size * 8, 8)
            if other.type != x86_const.X86_OP_IMM or number is None or (other.imm - number) % (1 << width):
                raise Refusal("another number in the built-in assembler's bytes", instruction.text)
            narrow = width if width < 64 or not sizes else sizes[0] or width
            if not -(1 << narrow - 1) <= number < 1 << narrow:
                raise Refusal(f"{number:#x} does not fit in {narrow} bits", instruction.text)
        elif isinstance(mine, Memory):
            _memory(mine, number, other, decoded, instruction, bits)
        else:
            raise Refusal("an operand that cannot be compared", instruction.text)


def _same_number(name: str, mine: Reg) -> bool:
    other = REGISTERS.get(name)
    return other is not None and (other.kind, other.number) == (mine.info.kind, mine.info.number)


def _memory(mine: Memory, number: int | None, other: Any, decoded: Any, instruction: Instruction, bits: int) -> None:
    text = instruction.text
    if other.type != x86_const.X86_OP_MEM:
        raise Refusal("the memory operand is lost in the built-in assembler's bytes", text)
    memory = other.mem
    if (decoded.reg_name(memory.base) or "") != mine.base or (decoded.reg_name(memory.index) or "") != mine.index:
        raise Refusal("another base or index register", text)
    if mine.index and memory.scale != mine.scale:
        raise Refusal("another scale", text)
    width = _address_bits(mine, bits)
    if decoded.addr_size * 8 != width or (memory.disp - (number or 0)) % (1 << width):
        raise Refusal("another displacement in the built-in assembler's bytes", text)
    if width == 64 and not -(1 << 31) <= (number or 0) < 1 << 31 and instruction.name != "movabs":
        raise Mistake(f"the displacement {number or 0:#x} does not fit in 32 bits", text)
    segment = _SEGMENT_IDS.get(needed_segment(mine), 0)
    if memory.segment != segment:
        raise Refusal("another segment", text)
    if mine.size and instruction.name in _AREA:
        raise Refusal(f"a size of memory for '{instruction.name}'", text)
    if mine.size:
        if other.size * 8 != mine.size:
            raise Refusal("another size of memory in the built-in assembler's bytes", text)
    elif instruction.name in _DEFAULT_SIZE and other.size * 8 != bits:
        raise Refusal("another size of memory than the mode's", text)


def check_sizes(instruction: Instruction) -> None:
    """Raise Mistake when nothing says how large the memory operand is."""
    name = instruction.name
    if name in _SIZELESS or name in _SET_SIZE or name in _DEFAULT_SIZE:
        return
    memory = [one for one in instruction.operands if isinstance(one, Memory) and not one.size]
    kinds = [one.info.kind for one in instruction.operands if isinstance(one, Reg)]
    sized = bool(kinds) and name not in _OWN_SIZE and (name == "mov" or kinds != ["segment"])
    # A count in CL says nothing of what is shifted.
    if name in _SHIFTS and all(
        isinstance(one, (Memory, Immediate)) or one == Reg("cl") for one in instruction.operands
    ):
        sized = False
    if memory and not sized:
        hint = "say the size: byte ptr, word ptr, dword ptr or qword ptr (AT&T: a suffix b, w, l or q)"
        raise Mistake(f"ambiguous operand size for '{name}'", name, hint)


def needed_segment(memory: Memory) -> str:
    """The segment, unless it is the one that the address uses anyway."""
    default = "ss" if memory.base in _STACK_REGISTERS else "ds"
    return "" if memory.segment == default else memory.segment


def _address_bits(memory: Memory, bits: int) -> int:
    register = memory.base or memory.index
    return REGISTERS[register].bits if register else bits


def _prefixes(instruction: Instruction, decoded: Any, data: bytes, bits: int) -> None:
    """An operand-size prefix without an operand of that size means another instruction than was written."""
    opcode = bytes(data)
    legacy = opcode[: len(opcode) - len(opcode.lstrip(b"\x66\x67\x2e\x36\x3e\x26\x64\x65\xf0\xf2\xf3"))]
    if 0x66 not in legacy:
        return
    other = 32 if bits == 16 else 16
    sizes = {one.info.bits for one in instruction.operands if isinstance(one, Reg) and one.info.kind == "gpr"}
    sizes |= {one.size for one in instruction.operands if isinstance(one, Memory)}
    vector = any(isinstance(one, Reg) and one.info.kind in ("xmm", "ymm", "mm") for one in instruction.operands)
    if other not in sizes and not vector and instruction.size != other and not _mandatory_prefix(instruction.name):
        raise Refusal("an operand size that was not written", instruction.text)


def _mandatory_prefix(name: str) -> bool:
    """66 is part of the opcode."""
    return name in ("vmclear", "invept", "invvpid", "invpcid", "clflushopt", "clwb", "adcx")
