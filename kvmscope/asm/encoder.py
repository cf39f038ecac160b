"""Instructions -> code with fields, through Keystone and the guard.

Keystone sees one instruction at a time, in Intel syntax, with every number in hexadecimal and no symbol.  Where an
operand is an address that is not known yet, it gets a large number instead; encoding with two such numbers shows which
bytes are the field, and the assembler fills it in when the address is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from kvmscope.asm.arith import Expression
from kvmscope.asm.direct import Code, Field, Resolve
from kvmscope.asm.guard import REFUSED, Expected, check, check_sizes, needed_segment
from kvmscope.asm.instructions import Instruction
from kvmscope.asm.names import REGISTERS, SIZE_WORDS
from kvmscope.asm.operands import Immediate, Memory, Operand, Reg
from kvmscope.asm.refusal import Mistake, Refusal, Trouble

__all__ = ["Encode", "Request", "encode_all", "request"]

Encode = Callable[[int, Sequence[str]], list[bytes | None]]
"""(bits, texts) -> bytes of each, None where there are none."""

_STAND_INS: Final = {2: (0x7EF1, 0x6DE2), 4: (0x7EDCBAF1, 0x6DCBA9E2), 8: (0x7EDCBA9876543211, 0x6DCBA98765432122)}
"""For a field of so many bytes: two numbers that differ in every byte and fit as signed ones."""
_WORDS: Final = {bits: word for word, bits in SIZE_WORDS.items() if word != "oword"}
_NO_BASE: Final = {True: 0xC5, False: 0x25}
"""SIB byte of ``[rax*8 + disp32]``, which Keystone is given for an absolute address, and of the address itself."""
_LOCKABLE_WORDS: Final = "adc add and btc btr bts cmpxchg cmpxchg8b cmpxchg16b dec inc neg not or sbb sub xadd xchg xor"
_LOCKABLE: Final = frozenset(_LOCKABLE_WORDS.split())
_TABLE_REGISTERS: Final = {"sgdt": 0, "sidt": 1, "lgdt": 2, "lidt": 3}
_STORES_16: Final = frozenset({"str", "sldt"})
_PREFIX_ORDER: Final = b"\x2e\x36\x3e\x26\x64\x65\x67\x66\xf2\xf3\xf0"


@dataclass(frozen=True, slots=True)
class Request:
    """An instruction to encode: its two texts (the same one twice without fields), and what to expect of each."""

    instruction: Instruction
    bits: int
    texts: tuple[str, str]
    expected: tuple[Expected, Expected]
    fields: tuple[tuple[int, Expression, bool], ...]
    """(bytes, value, relative to the end) of each field."""
    reg: int | None = None
    """Where Keystone got a donor with the same address: the reg field of the instruction that is meant."""
    opcode: int | None = None
    """Where the donor is LEA: the opcode of the instruction that is meant."""
    absolute: bool = False
    """The first field is an absolute address in 64-bit code, for which Keystone got another one."""


def request(instruction: Instruction, bits: int, value: Resolve) -> Request:
    """Prepare ``instruction``; raises Trouble for what must not be asked of Keystone."""
    if instruction.prefixes:
        _check_prefix(instruction)
    donor, reg = instruction, None
    if instruction.name in ("jmp", "call", "ljmp", "lcall"):
        donor, reg = _branch_donor(instruction, bits)
    elif instruction.name in _TABLE_REGISTERS:
        donor, reg = _table_donor(instruction), _TABLE_REGISTERS[instruction.name]
    for operand in instruction.operands:
        _check_registers(operand, bits)
    check_sizes(donor)
    opcode = None
    if instruction.name == "bound":
        donor, opcode = _bound_donor(instruction, bits), 0x62
    if donor.name in REFUSED:
        raise Refusal(f"'{instruction.name}' is not encoded by the built-in assembler", instruction.name)
    donor, absolute = _absolute_donor(donor, bits)
    numbers: list[list[int | None]] = [[], []]
    texts: list[list[str]] = [[], []]
    fields = []
    for operand in donor.operands:
        if isinstance(operand, Memory):
            _refuse_longer(operand, instruction.text)
        expression, field = _number_of(operand), None
        constant = value(expression) if expression is not None else None
        if absolute and isinstance(operand, Memory):
            constant = None
        if expression is not None and constant is None:
            size = _field_size(operand, donor, bits)
            relative = isinstance(operand, Memory) and operand.base in ("rip", "eip")
            field = (size, expression, relative)
            fields.append(field)
        for which in range(2):
            number = constant
            if field is not None:
                # Two fields of one instruction must not hold the same stand-in.
                number = _STAND_INS[field[0]][which] - 0x0101 * (len(fields) - 1)
            if constant is not None and isinstance(operand, Memory):
                number = _wrapped(constant, operand, bits)
            numbers[which].append(number)
            texts[which].append(_text(operand, number))
    first, second = (f"{donor.name} {', '.join(part)}".strip() for part in texts)
    one, two = (Expected(donor, tuple(part)) for part in numbers)
    return Request(instruction, bits, (first, second), (one, two), tuple(fields), reg, opcode, absolute)


def _check_registers(operand: Operand, bits: int) -> None:
    """In 16- and 32-bit code there are eight registers of a kind and none of 64 bits."""
    names = [operand.name] if isinstance(operand, Reg) else []
    if isinstance(operand, Memory):
        names = [name for name in (operand.base, operand.index) if name]
    for name in names:
        info = REGISTERS[name]
        new = (
            info.number >= 8 or name in ("spl", "bpl", "sil", "dil") or (info.kind in ("gpr", "ip") and info.bits == 64)
        )
        if bits != 64 and new and info.kind in ("gpr", "ip", "xmm", "ymm"):
            raise Mistake(f"register {name} does not exist in {bits}-bit code", name)


def _check_prefix(instruction: Instruction) -> None:
    """LOCK needs memory to write to; the others belong to string instructions, which have fixed bytes."""
    operands = instruction.operands
    memory = [one for one in operands if isinstance(one, Memory)]
    writes = bool(memory) and (isinstance(operands[0], Memory) or instruction.name == "xchg")
    if instruction.prefixes != b"\xf0" or instruction.name not in _LOCKABLE or not writes:
        raise Refusal(f"a prefix on '{instruction.name}' with these operands", instruction.text)


def _absolute_donor(instruction: Instruction, bits: int) -> tuple[Instruction, bool]:
    """``[rax*8 + address]`` for ``[address]`` in 64-bit code.

    Keystone makes that relative to RIP, or takes the 64-bit form of MOV; GNU as has a SIB byte without base or index.
    """
    if bits != 64 or instruction.name == "movabs":
        return instruction, False
    operands = tuple(
        replace(one, index="rax", scale=8) if isinstance(one, Memory) and not one.base and not one.index else one
        for one in instruction.operands
    )
    return replace(instruction, operands=operands), operands != instruction.operands


def _number_of(operand: Operand) -> Expression | None:
    if isinstance(operand, Immediate):
        return operand.value
    return operand.displacement if isinstance(operand, Memory) else None


def _wrapped(number: int, memory: Memory, bits: int) -> int:
    """A displacement as the signed number of its address size, so that `-4` and `0xfffffffc` are one."""
    register = memory.base or memory.index
    width = REGISTERS[register].bits if register else bits
    if width == 64 or not -(1 << width - 1) <= number < 1 << width:
        return number
    return number - (1 << width) if number >> width - 1 == 1 and register else number


def _field_size(operand: Operand, instruction: Instruction, bits: int) -> int:
    """Bytes of the field that an address in ``operand`` gets, as GNU as has it."""
    if isinstance(operand, Memory):
        register = operand.base or operand.index
        width = REGISTERS[register].bits if register else bits
        return 8 if instruction.name == "movabs" else 2 if width == 16 else 4
    sizes = [one.info.bits for one in instruction.operands if isinstance(one, Reg)]
    sizes += [one.size for one in instruction.operands if isinstance(one, Memory) and one.size]
    size = sizes[0] if sizes else instruction.size
    if size not in (16, 32, 64):
        raise Refusal("an address in an operand of unknown or 8-bit size", instruction.text)
    return 8 if instruction.name == "movabs" else min(size // 8, 4)


def _refuse_longer(operand: Memory, text: str) -> None:
    """Keystone puts a needless zero displacement behind [bp+si] and [bp+di]."""
    if operand.base == "bp" and operand.index and operand.displacement is None:
        raise Refusal("[bp+si] and [bp+di] without a displacement", text)


def _text(operand: Operand, number: int | None) -> str:
    if isinstance(operand, Reg):
        return operand.name
    if isinstance(operand, Immediate):
        return _hex(number or 0)
    if not isinstance(operand, Memory):
        raise Refusal("an operand that the built-in assembler does not know")
    parts = [operand.base] if operand.base else []
    if operand.index:
        parts.append(f"{operand.index}*{operand.scale}" if operand.scale != 1 or not operand.base else operand.index)
    inner = " + ".join(parts)
    if number or not parts:
        inner += (" - " if inner else "-") + hex(-number) if number and number < 0 else (
            " + " if inner else "") + hex(number or 0)  # fmt: skip
    segment = needed_segment(operand)
    size = f"{_WORDS[operand.size]} ptr " if operand.size else ""
    return f"{size}{segment + ':' if segment else ''}[{inner}]"


def _hex(number: int) -> str:
    return f"-{-number:#x}" if number < 0 else f"{number:#x}"


def _branch_donor(instruction: Instruction, bits: int) -> tuple[Instruction, int | None]:
    """The instruction to encode for an indirect branch; far ones borrow the address of ``inc``.

    FF /5 and FF /3 (far) have the same addresses as FF /0; Keystone knows no far form, and takes
    ``jmp dword ptr [bx]`` for a near one.
    """
    if len(instruction.operands) != 1:
        raise Refusal("a branch with these operands", instruction.text)
    operand = instruction.operands[0]
    far = instruction.name in ("ljmp", "lcall")
    if isinstance(operand, Reg):
        if far or operand.info.bits != bits or operand.info.kind != "gpr":
            raise Refusal(f"a branch to {operand.name}", instruction.text)
        return instruction, None
    if not isinstance(operand, Memory):
        raise Refusal("a branch with this operand", instruction.text)
    normal = 32 if bits == 16 else 48
    if far:
        if operand.size:
            raise Refusal("a far branch through memory of this size", instruction.text)
    elif operand.size == normal and operand.size != bits:
        far = True
    elif operand.size not in (0, bits):
        raise Refusal("a branch through memory of this size", instruction.text)
    if not far:
        return instruction, None
    sized = Memory(
        16 if bits == 16 else 32, operand.segment, operand.base, operand.index, operand.scale, operand.displacement
    )
    donor = Instruction("inc", (sized,), instruction.prefixes, 0, instruction.text)
    return donor, 5 if instruction.name.endswith("jmp") else 3


def _table_donor(instruction: Instruction) -> Instruction:
    """``invlpg`` (0F 01 /7) for the loads and stores of GDTR and IDTR.

    Keystone puts an operand-size prefix on some of them, which would make the base 24 bits wide.
    """
    operands = instruction.operands
    if len(operands) != 1 or not isinstance(operands[0], Memory):
        raise Mistake(f"'{instruction.name}' takes one memory operand", instruction.text)
    return replace(instruction, name="invlpg")


def _bound_donor(instruction: Instruction, bits: int) -> Instruction:
    """``lea`` (8D /r) for ``bound`` (62 /r), whose operands Capstone shows in another order."""
    kinds = [type(one) for one in instruction.operands]
    if kinds != [Reg, Memory]:
        raise Mistake("'bound' takes a register and memory", instruction.name)
    register, memory = instruction.operands
    if bits == 64:
        raise Mistake("'bound' does not exist in 64-bit code", instruction.name)
    if isinstance(memory, Memory) and memory.size:
        raise Refusal("a size of memory for 'bound'", instruction.text)
    if isinstance(register, Reg) and (register.info.kind != "gpr" or register.info.bits not in (16, 32)):
        raise Mistake("'bound' takes a 16- or 32-bit register", instruction.name)
    return replace(instruction, name="lea")


def encode_all(requests: Sequence[Request], encode: Encode) -> list[Code | Trouble]:
    """Encode and check ``requests``; a Trouble stands for each that gives no certain bytes."""
    for bits in {one.bits for one in requests}:
        mine = [one for one in requests if one.bits == bits]
        texts = sorted({text for one in mine for text in one.texts})
        _answers(bits, texts, encode)
    return [_finished(one, encode) for one in requests]


_encoded: dict[tuple[Encode, int, str], bytes | None] = {}
_KEPT: Final = 20_000


def _answers(bits: int, texts: Sequence[str], encode: Encode) -> None:
    missing = [text for text in texts if (encode, bits, text) not in _encoded]
    if len(_encoded) + len(missing) > _KEPT:
        _encoded.clear()
        missing = list(texts)
    if missing:
        for text, data in zip(missing, encode(bits, missing), strict=True):
            _encoded[encode, bits, text] = data


def _finished(one: Request, encode: Encode) -> Code | Trouble:
    first, second = (_encoded.get((encode, one.bits, text)) for text in one.texts)
    try:
        return _checked(one, first, second)
    except Trouble as trouble:
        return trouble


@lru_cache(maxsize=8192)
def _checked(one: Request, first: bytes | None, second: bytes | None) -> Code:
    text = one.instruction.text
    if first is None or second is None:
        raise Refusal(
            f"the built-in assembler does not know '{one.instruction.name}' with these operands", one.instruction.name
        )
    for data, expected in zip((first, second), one.expected, strict=True):
        check(expected, data, one.bits)
    pair = [_normal(data, one) for data in (first, second)]
    fields = tuple(_find_field(one, pair, i) for i in range(len(one.fields)))
    if len({field.offset for field in fields}) != len(fields):
        raise Refusal("two addresses in one place", text)
    code = bytearray(pair[0])
    for field in fields:
        code[field.offset : field.offset + field.size] = bytes(field.size)
    blank = bytearray(pair[1])
    for field in fields:
        blank[field.offset : field.offset + field.size] = bytes(field.size)
    if code != blank:
        raise Refusal("the built-in assembler's bytes depend on an address", text)
    if one.absolute:
        sib = fields[0].offset - 1
        if code[sib] != _NO_BASE[True]:
            raise Refusal("the place of an address is not clear", text)
        code[sib] = _NO_BASE[False]
    if one.opcode is not None:
        code[len(code) - len(bytes(code).lstrip(_PREFIX_ORDER))] = one.opcode
    if one.reg is not None:
        at = _modrm(code)
        code[at] = code[at] & 0xC7 | one.reg << 3
    prefixes = one.instruction.prefixes
    if prefixes:
        at = len(code) - len(bytes(code).lstrip(_PREFIX_ORDER))
        code[at:at] = prefixes
        fields = tuple(Field(f.offset + len(prefixes), f.size, f.value, f.relative, f.signed) for f in fields)
    return Code(bytes(code), fields)


def _normal(data: bytes, one: Request) -> bytes:
    """The same instruction as GNU as would encode it: prefixes in its order, and none that changes nothing."""
    body = data.lstrip(_PREFIX_ORDER)
    prefixes = bytes(sorted(data[: len(data) - len(body)], key=_PREFIX_ORDER.index))
    instruction = one.expected[0].instruction
    operands = instruction.operands
    segments = [isinstance(x, Reg) and x.info.kind == "segment" for x in operands]
    to_segment = instruction.name == "mov" and segments[:1] == [True]
    from_segment = instruction.name == "mov" and segments[1:] == [True]
    # A move to a segment register, and of one to memory, is 16 bits wide whatever the prefixes say; a move to a
    # general register clears the upper bits whatever its width.
    if to_segment or (from_segment and isinstance(operands[0], Memory)):
        prefixes = prefixes.replace(b"\x66", b"")
    if (to_segment or from_segment or instruction.name in _STORES_16) and body[0] & 0xF8 == 0x48:
        body = bytes([body[0] & 0xF7]) + body[1:]
        if body[0] == 0x40:
            body = body[1:]
    return prefixes + body


def _find_field(one: Request, pair: Sequence[bytes], number: int) -> Field:
    size, value, relative = one.fields[number]
    places = []
    for which in range(2):
        stand_in = (_STAND_INS[size][which] - 0x0101 * number).to_bytes(size, "little")
        if pair[which].count(stand_in) != 1:
            raise Refusal("the place of an address is not clear", one.instruction.text)
        places.append(pair[which].index(stand_in))
    if places[0] != places[1]:
        raise Refusal("the place of an address is not clear", one.instruction.text)
    return Field(places[0], size, value, relative, signed=size == 4 and one.bits == 64 and _extended(one))


def _extended(one: Request) -> bool:
    """True when the processor extends the sign of a 32-bit field: an address, or a number for 64 bits."""
    sizes = [x.info.bits for x in one.instruction.operands if isinstance(x, Reg) and x.info.kind == "gpr"]
    sizes += [x.size for x in one.instruction.operands if isinstance(x, Memory)]
    memory = any(isinstance(x, Memory) and x.displacement is not None for x in one.instruction.operands)
    return 64 in sizes or memory


def _modrm(code: bytes | bytearray) -> int:
    """Index of the ModRM byte of a donor: FF /0 or 0F 01 /7."""
    data = bytes(code)
    at = len(data) - len(data.lstrip(_PREFIX_ORDER))
    at += data[at] & 0xF0 == 0x40 and data[at + 1] in (0x0F, 0xFF)
    return at + (2 if data[at] == 0x0F else 1)
