"""Operands of both syntaxes -> one structure, which the guard later compares with what was decoded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvmscope.asm.arith import Binary, Expression, Number, Unary, names_in, parse
from kvmscope.asm.names import INTEL_OPERATORS, REGISTERS, SIZE_WORDS, Register
from kvmscope.asm.refusal import Mistake, Refusal

__all__ = ["Far", "Immediate", "Memory", "Operand", "Reg", "Target", "parse_att", "parse_intel"]

_SIZE: Final = re.compile(r"(\w+)\s+ptr\b\s*", re.IGNORECASE)
_OFFSET: Final = re.compile(r"offset\b\s*(?:flat\s*:)?\s*", re.IGNORECASE)
_SEGMENT: Final = re.compile(r"(%?)([cdefgs]s)\s*:\s*", re.IGNORECASE)
_DISTANCE: Final = re.compile(r"(short|near\s+ptr)\b\s*", re.IGNORECASE)
_SCALED: Final = re.compile(r"(?:([A-Za-z]\w*)\s*\*\s*([1248])|([1248])\s*\*\s*([A-Za-z]\w*))\Z")


@dataclass(frozen=True, slots=True)
class Reg:
    """A register."""

    name: str

    @property
    def info(self) -> Register:
        return REGISTERS[self.name]


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant, or an address (``offset label``, ``$label``)."""

    value: Expression


@dataclass(frozen=True, slots=True)
class Memory:
    """``segment:[base + index*scale + displacement]`` of ``size`` bits (0: not said)."""

    size: int = 0
    segment: str = ""
    base: str = ""
    index: str = ""
    scale: int = 1
    displacement: Expression | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a branch goes; ``short`` when the source demands the 8-bit form."""

    value: Expression
    short: bool = False


@dataclass(frozen=True, slots=True)
class Far:
    """``selector:offset`` of a direct far branch."""

    selector: Expression
    offset: Expression


Operand = Reg | Immediate | Memory | Target | Far
IsConstant = Callable[[str], bool]


def parse_intel(text: str, is_constant: IsConstant, *, branch: bool) -> Operand:
    """One operand in GNU's Intel syntax.  ``branch``: of an instruction that takes a target."""
    lowered = text.lower()
    if lowered in REGISTERS:
        return _register(lowered)
    if re.search(r"%[A-Za-z]|\$", text):
        hint = "this looks like AT&T syntax; choose syntax att, or write registers and numbers without % and $"
        raise Refusal(f"'{text}' is no operand in Intel syntax", text, hint)
    size, rest = 0, text
    match = _SIZE.match(text)
    if match and match.group(1).lower() in SIZE_WORDS:
        size, rest = SIZE_WORDS[match.group(1).lower()], text[match.end() :]
    if (offset := _OFFSET.match(rest)) and not size:
        return Immediate(_plain(rest[offset.end() :]))
    segment = ""
    if match := _SEGMENT.match(rest):
        segment, rest = match.group(2).lower(), rest[match.end() :]
    if "[" in rest:
        return _intel_memory(rest, size, segment)
    if segment:
        return Memory(size, segment, displacement=_plain(rest))
    if branch and not size:
        return _intel_target(rest)
    tree = _plain(rest)
    names = names_in(tree)
    constant = all(is_constant(name) for name in names)
    if size:
        if constant:
            raise Refusal(f"'{text}' is an immediate with a size to some assemblers and memory to others", text)
        return Memory(size, displacement=tree)
    if constant:
        return Immediate(tree)
    if len(names) > 1 or (isinstance(tree, (Unary, Binary)) and not _is_sum(tree)):
        raise Refusal(
            f"'{text}' is memory or a constant, depending on the assembler", text, "write [...] or offset ..."
        )
    return Memory(displacement=tree)


def _is_sum(tree: Expression) -> bool:
    return isinstance(tree, Binary) and tree.operator in "+-" and isinstance(tree.right, Number)


def _register(name: str) -> Reg:
    if REGISTERS[name].kind == "ip":
        raise Mistake(f"{name} can only be the base of an address", name)
    return Reg(name)


def _plain(text: str) -> Expression:
    """An expression in which no register and no word operator stands."""
    tree = parse(text)
    for name in names_in(tree):
        if name.lower() in REGISTERS or name.lower() in INTEL_OPERATORS:
            raise Refusal(f"'{name}' in an expression", name)
    return tree


def _intel_target(text: str) -> Operand:
    short = False
    if match := _DISTANCE.match(text):
        short, text = match.group(1).lower() == "short", text[match.end() :]
    elif ":" in text:
        selector, _, offset = text.partition(":")
        return Far(_plain(selector), _plain(offset))
    return Target(_plain(text), short)


def _intel_memory(text: str, size: int, segment: str) -> Memory:
    match = re.fullmatch(r"([^\[\]]*)((?:\[[^\[\]]*\]\s*)+)", text)
    if match is None:
        raise Mistake(f"the brackets of '{text}' do not match", text)
    inner = [match.group(1).strip(), *(part.strip() for part in re.findall(r"\[([^\[\]]*)\]", match.group(2)))]
    if len(inner) == 2 and (nested := _SEGMENT.match(inner[1])):
        # `[fs:0x10]` is NASM's place for the segment; GNU as takes it too.
        if segment:
            raise Mistake("two segments", text)
        segment, inner[1] = nested.group(2).lower(), inner[1][nested.end() :]
    if not all(inner[1:]):
        raise Mistake("the brackets are empty", text)
    base = index = ""
    scale = 1
    rest: list[str] = []
    for sign, term in (term for part in inner if part for term in _terms(part)):
        lowered = term.lower()
        scaled = _SCALED.match(term)
        if lowered in REGISTERS and sign == "+":
            if not base:
                base = lowered
            elif not index:
                index = lowered
            else:
                raise Mistake(f"'{text}' has more than two registers", text)
        elif scaled and (scaled.group(1) or scaled.group(4)).lower() in REGISTERS and sign == "+":
            if index and base:
                raise Mistake(f"'{text}' has more than two registers", text)
            if index:
                base, index = index, ""
            index, scale = (scaled.group(1) or scaled.group(4)).lower(), int(scaled.group(2) or scaled.group(3))
        else:
            rest.append(sign + term)
    if len(rest) + bool(base) + bool(index) > 1 and any(re.search(r"[<>&|^]", term) for term in rest):
        raise Refusal(
            f"'{text}' mixes addition and bit operators", text, "put parentheses around the part that comes first"
        )
    displacement = _plain("".join(rest)) if rest else None
    return _checked(Memory(size, segment, base, index, scale, displacement), text, swap=True)


def _terms(text: str) -> list[tuple[str, str]]:
    """``[("+", "eax"), ("-", "4")]`` for ``eax - 4``; split at the signs outside of parentheses."""
    out: list[tuple[str, str]] = []
    depth, sign, current = 0, "+", ""
    for character in text:
        if character in "+-" and depth == 0 and (current.strip() and current.rstrip()[-1] not in "*/%<>&|^~("):
            out.append((sign, current.strip()))
            sign, current = character, ""
            continue
        if character in "+-" and depth == 0 and not current.strip():
            if character == "-":
                sign = "-" if sign == "+" else "+"
            continue
        depth += (character == "(") - (character == ")")
        current += character
    if not current.strip():
        raise Mistake(f"'{text}' ends with an operator", text)
    out.append((sign, current.strip()))
    return out


def _checked(memory: Memory, text: str, *, swap: bool) -> Memory:
    """Put base and index where the encoding has them; refuse registers that can be neither."""
    base, index, scale = memory.base, memory.index, memory.scale
    bits = {REGISTERS[name].bits for name in (base, index) if name}
    kinds = {REGISTERS[name].kind for name in (base, index) if name}
    if kinds - {"gpr", "ip"} or 8 in bits:
        raise Refusal(f"'{text}' has a register that is no base or index here", text)
    if len(bits) > 1:
        raise Mistake(f"'{text}' mixes registers of different sizes", text)
    if "ip" in kinds and index:
        raise Mistake(f"'{text}': the instruction pointer takes no index", text)
    if index.endswith("sp") and index in ("sp", "esp", "rsp"):
        if scale != 1 or base == index:
            raise Mistake(f"{index} cannot be an index", index)
        if not swap:
            raise Mistake(f"{index} cannot be an index", index)
        base, index = index, base
    if bits == {16}:
        if base in ("si", "di") and index in ("bx", "bp"):
            base, index = index, base
        allowed = {("bx", "si"), ("bx", "di"), ("bp", "si"), ("bp", "di")}
        single = not index and base in ("bx", "bp", "si", "di")
        if scale != 1 or not (single or (base, index) in allowed):
            raise Mistake(f"'{text}' is no 16-bit address", text, "16-bit code adds bx or bp and si or di, unscaled")
    return Memory(memory.size, memory.segment, base, index, scale, memory.displacement)


def parse_att(text: str, *, branch: bool) -> Operand:
    """One operand in AT&T syntax; ``branch`` as above (its memory operands and registers have ``*``)."""
    if text.startswith("*"):
        if not branch:
            raise Mistake(f"'{text}': only a branch is indirect", text)
        operand = parse_att(text[1:].strip(), branch=False)
        if isinstance(operand, Immediate):
            raise Mistake(f"'{text}' is no address", text)
        return operand
    if text.startswith("$"):
        return Immediate(_att_plain(text[1:]))
    segment, rest = "", text
    if match := _SEGMENT.match(text):
        if not match.group(1):
            raise Refusal(f"'{text}' has a segment without %", text)
        segment, rest = match.group(2).lower(), text[match.end() :]
    if rest.startswith("%"):
        name = rest[1:].strip().lower()
        if segment or name not in REGISTERS:
            raise Refusal(f"bad register name '{rest}'", rest)
        return _register(name)
    match = re.fullmatch(r"(.*?)\(([^()]*)\)", rest)
    if match and ("%" in match.group(2) or match.group(2).strip().startswith(",")):
        return _att_memory(match.group(1).strip(), match.group(2), segment, text)
    tree = _att_plain(rest)
    return Target(tree) if branch and not segment else Memory(segment=segment, displacement=tree)


def _att_plain(text: str) -> Expression:
    tree = parse(text)
    for name in names_in(tree):
        if name.startswith("$"):
            raise Refusal(f"'{name}' in an expression", name)
        if name.lower() in REGISTERS:
            hint = f"AT&T syntax: the register is %{name}; or choose syntax intel"
            raise Refusal(f"'{name}' is a symbol here, not the register", name, hint)
    return tree


def _att_memory(displacement: str, inner: str, segment: str, text: str) -> Memory:
    parts = [part.strip() for part in inner.split(",")]
    names = []
    for part in parts[:2]:
        if part and (not part.startswith("%") or part[1:].lower() not in REGISTERS):
            raise Refusal(f"bad register name '{part}'", part)
        names.append(part[1:].lower())
    base, index = (*names, "")[:2]
    scale = parts[2] if len(parts) > 2 and parts[2] else "1"
    if len(parts) > 3 or scale not in ("1", "2", "4", "8"):
        raise Refusal(f"'{text}' is no address", text, "an address is displacement(base, index, scale)")
    tree = _att_plain(displacement) if displacement else None
    return _checked(Memory(0, segment, base, index, int(scale), tree), text, swap=False)
