"""Encodings that the built-in assembler makes itself.

Branches are sized here, since Keystone's relocations are wrong, and stack and far transfers are encoded here, since
Keystone gives some of them another operand size than written.  Fixed opcodes of SDM vol. 2, table by table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from kvmscope.asm.arith import Expression
from kvmscope.asm.fixed import explicit_bytes
from kvmscope.asm.instructions import CONDITIONS, LOOPS, Instruction
from kvmscope.asm.operands import Far, Immediate, Reg, Target
from kvmscope.asm.refusal import Mistake, Refusal

__all__ = ["Branch", "Code", "Field", "encode_direct"]

_PUSH_SEGMENT: Final = {
    "es": b"\x06",
    "cs": b"\x0e",
    "ss": b"\x16",
    "ds": b"\x1e",
    "fs": b"\x0f\xa0",
    "gs": b"\x0f\xa8",
}
_POP_SEGMENT: Final = {"es": b"\x07", "ss": b"\x17", "ds": b"\x1f", "fs": b"\x0f\xa1", "gs": b"\x0f\xa9"}
_COUNTERS: Final = {"jcxz": 16, "jecxz": 32, "jrcxz": 64}


@dataclass(frozen=True, slots=True)
class Field:
    """``size`` bytes at ``offset`` that hold an address; ``relative`` to the end of the instruction.

    ``signed``: the processor extends the sign, so the value must fit as a signed number.
    """

    offset: int
    size: int
    value: Expression
    relative: bool = False
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """Bytes with fields to be filled in when addresses are known."""

    data: bytes
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """A PC-relative branch: its 8-bit and its wide opcode, where it has them."""

    target: Expression
    short: bytes
    wide: bytes
    """Empty where the other form does not exist or was not asked for."""
    width: int
    """Bytes of the wide displacement."""


class Resolve(Protocol):
    """Gives the number of an expression of constants, None for one with labels."""

    def __call__(self, expression: Expression, /) -> int | None: ...


def encode_direct(instruction: Instruction, bits: int, value: Resolve) -> Code | Branch | None:
    """The encoding when the instruction is one of those made here, else None.

    ``value`` gives the number of an expression of constants, and None for one with labels.
    """
    name, operands = instruction.name, instruction.operands
    first = operands[0] if operands else None
    registers = tuple(one.name for one in operands if isinstance(one, Reg))
    if registers and len(registers) == len(operands) and (fixed := explicit_bytes(name, registers, bits)):
        _no_prefix(instruction)
        return Code(fixed)
    if isinstance(first, Target) and len(operands) == 1:
        _no_prefix(instruction)
        return _branch(name, first, bits)
    if isinstance(first, Far) and len(operands) == 1:
        _no_prefix(instruction)
        return _far(name, first, bits, value)
    if name in ("push", "pop") and len(operands) == 1:
        if isinstance(first, Reg) and first.info.kind == "segment":
            _no_prefix(instruction)
            return _segment(instruction, first.name, bits)
        if name == "push" and isinstance(first, Immediate):
            _no_prefix(instruction)
            return _push(instruction, first.value, bits, value)
    if name in ("ret", "retf", "lret", "int", "enter", "aam", "aad") and operands:
        _no_prefix(instruction)
        return _with_numbers(instruction, bits, value)
    return None


def _no_prefix(instruction: Instruction) -> None:
    if instruction.prefixes:
        raise Refusal("a prefix on this instruction", instruction.text)


def _branch(name: str, target: Target, bits: int) -> Branch:
    width = 2 if bits == 16 else 4
    if name == "jmp":
        return Branch(target.value, b"\xeb", b"" if target.short else b"\xe9", width)
    if name == "call" and not target.short:
        return Branch(target.value, b"", b"\xe8", width)
    if name in LOOPS:
        return Branch(target.value, bytes([LOOPS[name]]), b"", width)
    if name in _COUNTERS:
        size = _COUNTERS[name]
        if size == bits:
            return Branch(target.value, b"\xe3", b"", width)
        if (size, bits) in ((16, 32), (32, 16), (32, 64)):
            return Branch(target.value, b"\x67\xe3", b"", width)
        raise Mistake(f"'{name}' does not exist in {bits}-bit code", name)
    if name[:1] == "j" and name[1:] in CONDITIONS:
        code = CONDITIONS[name[1:]]
        return Branch(target.value, bytes([0x70 + code]), b"" if target.short else bytes([0x0F, 0x80 + code]), width)
    raise Refusal(f"'{name}' with this operand is not known to the built-in assembler", name)


def _far(name: str, far: Far, bits: int, value: Resolve) -> Code:
    if name not in ("jmp", "call", "ljmp", "lcall"):
        raise Mistake(f"'{name}' takes no far address", name)
    if bits == 64:
        hint = "go through memory (jmp fword ptr [..]), or push the selector and the offset and use retfq"
        raise Mistake("there is no direct far branch in 64-bit code", name, hint)
    opcode = b"\xea" if name.endswith("jmp") else b"\x9a"
    size = 2 if bits == 16 else 4
    fields = [Field(1, size, far.offset)]
    selector = value(far.selector)
    if selector is None:
        fields.append(Field(1 + size, 2, far.selector))
        selector = 0
    elif not -0x8000 <= selector <= 0xFFFF:
        raise Mistake(f"{selector:#x} is no selector", name)
    return Code(opcode + bytes(size) + (selector & 0xFFFF).to_bytes(2, "little"), tuple(fields))


def _segment(instruction: Instruction, segment: str, bits: int) -> Code:
    if instruction.size not in (0, bits):
        raise Refusal(f"'{instruction.text}' with another size than the mode's", instruction.text)
    table = _PUSH_SEGMENT if instruction.name == "push" else _POP_SEGMENT
    if segment not in table or (bits == 64 and len(table[segment]) == 1):
        raise Mistake(f"'{instruction.name} {segment}' does not exist in {bits}-bit code", segment)
    return Code(table[segment])


def _push(instruction: Instruction, expression: Expression, bits: int, value: Resolve) -> Code:
    size = instruction.size or bits
    if size == 8 or (bits == 64 and size == 32) or (bits != 64 and size == 64):
        raise Mistake(f"there is no push of {size} bits in {bits}-bit code", instruction.text)
    prefix = b"\x66" if (size == 16) != (bits == 16) else b""
    width = 2 if size == 16 else 4
    number = value(expression)
    if number is None:
        field = Field(len(prefix) + 1, width, expression, signed=size == 64)
        return Code(prefix + b"\x68" + bytes(width), (field,))
    top = 1 << 8 * width
    low, high = -(top >> 1), (top >> 1 if size == 64 else top)
    if not low <= number < high:
        hint = "a 64-bit push extends the sign of 32 bits" if size == 64 else ""
        raise Mistake(f"{number:#x} does not fit in a push of {size} bits", instruction.text, hint)
    if size != 64 and number >= top >> 1:
        number -= top
    if -128 <= number < 128:
        return Code(prefix + b"\x6a" + (number & 0xFF).to_bytes(1, "little"))
    return Code(prefix + b"\x68" + (number & top - 1).to_bytes(width, "little"))


def _with_numbers(instruction: Instruction, bits: int, value: Resolve) -> Code:
    """``ret``, ``retf``, ``int``, ``enter``, ``aam`` and ``aad`` with their constants."""
    name = instruction.name
    numbers = []
    for operand in instruction.operands:
        number = value(operand.value) if isinstance(operand, Immediate) else None
        if number is None:
            raise Refusal(f"'{name}' wants constants here", instruction.text)
        numbers.append(number)
    widths = (2, 1) if name == "enter" else (2,) if "ret" in name else (1,)
    if len(numbers) != len(widths):
        raise Mistake(f"'{name}' takes {len(widths)} operands here, not {len(numbers)}", instruction.text)
    for number, width in zip(numbers, widths, strict=True):
        if not 0 <= number < 1 << 8 * width:
            raise Mistake(f"{number:#x} does not fit in {8 * width} bits", instruction.text)
    if name == "int" and numbers == [3]:
        return Code(b"\xcc")
    if name in ("aam", "aad") and bits == 64:
        raise Mistake(f"'{name}' does not exist in 64-bit code", name)
    opcode = {"ret": 0xC2, "retf": 0xCA, "lret": 0xCA, "int": 0xCD, "enter": 0xC8, "aam": 0xD4, "aad": 0xD5}[name]
    tail = b"".join(number.to_bytes(width, "little") for number, width in zip(numbers, widths, strict=True))
    return Code(bytes([opcode]) + tail)
