"""First pass of the built-in assembler: statements -> items in sections, labels, constants."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from kvmscope.asm.arith import Binary, Expression, Name, Unary, Value, evaluate, names_in, parse
from kvmscope.asm.data import INTEGERS, STRINGS, parse_string, to_bytes
from kvmscope.asm.direct import Branch, Code, Field, encode_direct
from kvmscope.asm.encoder import Request, request
from kvmscope.asm.fixed import fixed_bytes, fixed_modes
from kvmscope.asm.gas_source import split_arguments, split_labels
from kvmscope.asm.image import Diagnostic, Severity, Syntax
from kvmscope.asm.instructions import PREFIXES, parse_instruction, place_operands
from kvmscope.asm.limits import MAX_OUTPUT
from kvmscope.asm.mnemonics import nearest_directive
from kvmscope.asm.names import DIRECTIVES
from kvmscope.asm.refusal import Mistake, Refusal, TooMuch
from kvmscope.asm.source import Statement

__all__ = ["Item", "Pad", "Program", "ProgramSection", "Space"]

_ASSIGN: Final = re.compile(r"([A-Za-z_.$][\w.$]*)\s*=(?!=)\s*(.*)\Z")
_IGNORED: Final = frozenset({".globl", ".global", ".local", ".type", ".size", ".hidden", ".extern", ".file", ".print"})
_CODE: Final = {".code16": 16, ".code32": 32, ".code64": 64}
_ALIGN: Final = frozenset({".align", ".balign", ".p2align"})
_SPACE: Final = frozenset({".space", ".skip", ".zero"})
_SETTERS: Final = frozenset({".equ", ".set", ".equiv"})
_SECTIONS: Final = (".text", ".data", ".bss")
_LABEL: Final = re.compile(r'\s*([A-Za-z_.$][\w.$]*|\d+|"[^"]*")\s*:')
_LOCAL: Final = re.compile(r"(\d+)([bf])\Z")


@dataclass(frozen=True, slots=True)
class Pad:
    """Fill up to a multiple of ``align`` bytes; ``fill`` None: no-operations in code, zeros in data."""

    align: int
    fill: int | None
    most: int | None


@dataclass(frozen=True, slots=True)
class Space:
    """``count`` times ``unit``; or, with ``to_address``, as many as reach the address ``count``."""

    count: Expression
    unit: bytes
    to_address: bool = False


@dataclass(slots=True)
class Item:
    """One statement's bytes to be: where it came from, and what the layout has decided."""

    statement: Statement
    bits: int
    content: Code | Branch | Request | Pad | Space
    is_code: bool
    offset: int = 0
    size: int = 0
    wide: bool = False


@dataclass(slots=True)
class ProgramSection:
    """Items one after another; ``address`` when the source gives one."""

    name: str
    code: bool
    address: int | None = None
    align: int = 1
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Label:
    """A place: before item ``index`` of a section."""

    section: ProgramSection
    index: int
    line: int


class Program:
    """What the source says, in the order in which it says it; fed one expanded statement after another."""

    def __init__(self, bits: int, syntax: Syntax, origin: int) -> None:
        self.bits = bits
        self.syntax = syntax
        self.text = ProgramSection(".text", True, origin)
        self.sections = {".text": self.text}
        self.section = self.previous = self.text
        self.labels: dict[str, _Label] = {}
        self.constants: dict[str, Expression] = {}
        self.warnings: list[Diagnostic] = []
        self.ended = False
        self._fixed: dict[str, int] = {}
        self._early: dict[str, str] = {}
        self._stack: list[tuple[ProgramSection, ProgramSection]] = []
        self._locals: dict[str, int] = {}
        self._dots = 0
        self._size = 0

    # What conditions and counts ask for.

    def constant(self, text: str) -> int:
        """The value of a constant expression of names defined above."""
        tree = self._tree(text)
        number = self.number(tree)
        if number is None:
            raise Refusal(f"'{text}' is not known yet at this point", text, "it must be a constant")
        return number

    def defined(self, name: str) -> bool:
        """True when ``name`` is a label or constant above."""
        return name in self.labels or name in self.constants

    def number(self, tree: Expression, /) -> int | None:
        """The value of ``tree`` when no label has a part in it and every name is known, else None."""
        if any(name not in self._fixed for name in names_in(tree)):
            return None
        return evaluate(tree, lambda name: Value(self._fixed[name])).number

    # Statements.

    def add(self, statement: Statement) -> None:
        """Take one statement; raises Trouble."""
        if self.ended:
            return
        labels, rest = split_labels(statement.text)
        for match in _LABEL.finditer(labels):
            self._label(match.group(1), statement)
        rest = rest.strip()
        if not rest:
            return
        assignment = _ASSIGN.match(rest)
        if assignment:
            self._assign(assignment.group(1), assignment.group(2), statement)
        elif rest.startswith("."):
            word = rest.split()[0].lower()
            self._directive(word, rest[len(word) :].strip(), statement)
        else:
            self._instruction(rest, statement)

    def _label(self, name: str, statement: Statement) -> None:
        if name.startswith('"'):
            raise Refusal("a quoted label", name)
        if name.isdigit():
            self._locals[name] = self._locals.get(name, 0) + 1
            name = f"{name}#{self._locals[name]}"
        if name in self.labels or name in self.constants:
            first = f"first defined in line {self.labels[name].line}" if name in self.labels else "it is a constant"
            raise Mistake(
                f"symbol '{name}' is already defined", name, f"{first}; or use a local label (1: with 1b or 1f)"
            )
        self.labels[name] = _Label(self.section, len(self.section.items), statement.line)

    def _tree(self, text: str) -> Expression:
        return self._placed(parse(text))

    def _placed(self, tree: Expression) -> Expression:
        """``tree`` with ``.`` and local labels replaced by the labels they mean at this point."""
        if isinstance(tree, Name):
            if tree.name == ".":
                self._dots += 1
                name = f".#{self._dots}"
                self.labels[name] = _Label(self.section, len(self.section.items), 0)
                return Name(name)
            if match := _LOCAL.match(tree.name):
                count = self._locals.get(match.group(1), 0) + (match.group(2) == "f")
                if count == 0:
                    raise Mistake(f"there is no label {match.group(1)}: above", tree.name)
                return Name(f"{match.group(1)}#{count}")
            if tree.name not in self._fixed:
                self._early.setdefault(tree.name, tree.name)
            return tree
        if isinstance(tree, Unary):
            return Unary(tree.operator, self._placed(tree.operand))
        if isinstance(tree, Binary):
            return Binary(tree.operator, self._placed(tree.left), self._placed(tree.right))
        return tree

    def _assign(self, name: str, text: str, statement: Statement) -> None:
        if name == ".":
            raise Refusal("an assignment to '.'", name, "use .org ADDRESS")
        if name in self.labels:
            raise Mistake(f"symbol '{name}' is already defined", name, f"in line {self.labels[name].line}")
        tree = self._tree(text)
        if name in names_in(tree) and name not in self._fixed:
            raise Mistake(f"'{name}' is defined by itself", name)
        if name in self._early and name in self.constants:
            raise Refusal(f"'{name}' is used before one of its values is known", name)
        number = self.number(tree)
        if name in self.constants and (number is None or name not in self._fixed):
            raise Refusal(f"'{name}' gets another value that is an address", name)
        if number is None:
            self._fixed.pop(name, None)
        else:
            self._fixed[name] = number
        self.constants[name] = tree

    def _directive(self, word: str, text: str, statement: Statement) -> None:
        parts = split_arguments(text) if text else []
        if word in INTEGERS:
            self._integers(INTEGERS[word], parts, statement)
        elif word in STRINGS:
            data = b"".join(parse_string(part) + STRINGS[word] for part in parts)
            self._bytes(data, statement)
        elif word in _SETTERS:
            if len(parts) != 2:
                raise Mistake(f"'{word}' wants NAME, VALUE", word)
            if word == ".equiv" and self.defined(parts[0]):
                raise Mistake(f"symbol '{parts[0]}' is already defined", parts[0])
            self._assign(parts[0], parts[1], statement)
        elif word in _ALIGN:
            self._align(word, parts, statement)
        elif word in _SPACE:
            self._space(parts, statement)
        elif word == ".fill":
            self._fill(parts, statement)
        elif word == ".org":
            self._org(parts, statement)
        elif word in _CODE:
            self.bits = _CODE[word]
        elif word in _SECTIONS or word in (".section", ".pushsection"):
            self._enter(word, [word] if word in _SECTIONS and not parts else parts, statement)
        elif word in (".popsection", ".previous"):
            self._leave(word)
        elif word == ".end":
            self.ended = True
        elif word in (".intel_syntax", ".att_syntax"):
            wanted = ("noprefix", Syntax.INTEL) if word == ".intel_syntax" else ("", Syntax.ATT)
            if (text if text != "prefix" else "", self.syntax) != wanted:
                raise Refusal("a change of the syntax within a file", word)
        elif word == ".warning":
            message = parse_string(text).decode(errors="replace")
            self.warnings.append(Diagnostic(statement.line, statement.column, Severity.WARNING, message, "", len(word)))
        elif word in (".error", ".err"):
            raise Mistake(parse_string(text).decode(errors="replace") if text else ".err encountered", word)
        elif word in (".include", ".incbin"):
            hint = "paste the text, or declare the bytes with .byte or a [[memory]] table"
            raise Mistake(f"'{word}' is refused: a reproducer is one self-contained file", word, hint)
        elif word not in DIRECTIVES and word not in _IGNORED:
            near = nearest_directive(word)
            raise Refusal(f"unknown directive '{word}'", word, f"did you mean {near}?" if near else "")
        elif word not in _IGNORED:
            raise Refusal(f"'{word}' is not known to the built-in assembler", word)

    def _item(self, statement: Statement, content: Code | Branch | Request | Pad | Space, *, is_code: bool) -> None:
        self.section.items.append(Item(statement, self.bits, content, is_code))

    def _bytes(self, data: bytes, statement: Statement) -> None:
        self._size += len(data)
        if self._size > MAX_OUTPUT:
            raise TooMuch(f"the program has more than {MAX_OUTPUT >> 20} MiB")
        if data:
            self._item(statement, Code(data), is_code=False)

    def _integers(self, size: int, parts: list[str], statement: Statement) -> None:
        data = bytearray()
        fields = []
        for i, part in enumerate(parts):
            tree = self._tree(part)
            if i and "." in {name[:1] for name in names_in(tree) if name.startswith(".#")}:
                raise Refusal("'.' after the first number of a list", part)
            number = self.number(tree)
            if number is None:
                fields.append(Field(len(data), size, tree))
                number = 0
            data += to_bytes(number, size, part)
        if fields:
            self._item(statement, Code(bytes(data), tuple(fields)), is_code=False)
        else:
            self._bytes(bytes(data), statement)

    def _align(self, word: str, parts: list[str], statement: Statement) -> None:
        numbers = [self.constant(part) if part else None for part in parts]
        if not numbers or len(numbers) > 3 or numbers[0] is None:
            raise Refusal(f"'{word}' without an alignment", word)
        align = 1 << numbers[0] if word == ".p2align" and 0 <= numbers[0] < 16 else numbers[0]
        if not 0 < align <= 1 << 16 or align & align - 1:
            raise Refusal(f"an alignment of {align} is no power of two up to 64 KiB", parts[0])
        fill, most = (*numbers[1:], None, None)[:2]
        if fill is not None:
            to_bytes(fill, 1, parts[1])
        self.section.align = max(self.section.align, align)
        self._item(statement, Pad(align, fill, most), is_code=False)

    def _space(self, parts: list[str], statement: Statement) -> None:
        if not 1 <= len(parts) <= 2:
            raise Mistake("this wants COUNT or COUNT, FILL", statement.text)
        fill = self.constant(parts[1]) if len(parts) > 1 else 0
        tree = self._tree(parts[0])
        self._item(statement, Space(tree, to_bytes(fill, 1, parts[-1])), is_code=False)

    def _fill(self, parts: list[str], statement: Statement) -> None:
        size = self.constant(parts[1]) if len(parts) > 1 else 1
        value = self.constant(parts[2]) if len(parts) > 2 else 0
        if not parts or len(parts) > 3 or not 0 <= size <= 8 or not 0 <= value < 1 << 32:
            raise Refusal("'.fill' wants COUNT, SIZE (to 8), VALUE (to 32 bits)", statement.text)
        self._item(statement, Space(self._tree(parts[0]), value.to_bytes(8, "little")[:size]), is_code=False)

    def _org(self, parts: list[str], statement: Statement) -> None:
        if not 1 <= len(parts) <= 2:
            raise Mistake("'.org' wants ADDRESS or ADDRESS, FILL", statement.text)
        fill = self.constant(parts[1]) if len(parts) > 1 else 0
        tree = self._tree(parts[0])
        if self.number(tree) is not None and self.section.address is None:
            hint = f"write .section {self.section.name}, ADDRESS, or use .space"
            message = f"'.org {parts[0]}' is an address, but section {self.section.name} has none"
            raise Mistake(message, parts[0], hint)
        self._item(statement, Space(tree, to_bytes(fill, 1, parts[-1]), True), is_code=False)

    def _enter(self, word: str, parts: list[str], statement: Statement) -> None:
        if not parts or (word in _SECTIONS and parts != [word]):
            raise Refusal(f"'{word}' with these operands", word)
        name = parts[0].strip('"')
        rest = parts[1:]
        address = None
        if rest and rest[0] and rest[0][0] not in '"@%':
            address = self.constant(rest[0])
            rest = rest[1:]
            if not 0 <= address < 1 << 64:
                raise Mistake(f"{address:#x} is no address", parts[1])
        flags = rest[0].strip('"') if rest else ""
        section = self.sections.get(name)
        if section is None:
            code = name == ".text" or name.startswith(".text.") or "x" in flags or (address is not None and not rest)
            section = self.sections[name] = ProgramSection(name, code and name not in (".data", ".bss"))
        if address is not None:
            if section is not self.text and section.address not in (None, address):
                raise Mistake(f"section {name} gets two addresses", parts[1])
            section.address = address
        if word == ".pushsection":
            self._stack.append((self.section, self.previous))
        self.previous, self.section = self.section, section

    def _leave(self, word: str) -> None:
        if word == ".previous":
            self.previous, self.section = self.section, self.previous
        elif not self._stack:
            raise Mistake("'.popsection' without '.pushsection'", word)
        else:
            self.section, self.previous = self._stack.pop()

    def _instruction(self, text: str, statement: Statement) -> None:
        fixed = self._fixed_instruction(text)
        if fixed is not None:
            self._item(statement, Code(fixed), is_code=True)
            return
        instruction = parse_instruction(text, self.bits, self.syntax, self._fixed.__contains__)
        instruction = place_operands(instruction, self._placed)
        content = encode_direct(instruction, self.bits, self.number) or request(instruction, self.bits, self.number)
        self._item(statement, content, is_code=True)

    def _fixed_instruction(self, text: str) -> bytes | None:
        words = text.lower().split()
        prefix = b""
        if len(words) == 2 and words[0] in PREFIXES:
            prefix, words = PREFIXES[words[0]], words[1:]
        code = fixed_bytes(words[0], self.bits, self.syntax) if len(words) == 1 else None
        modes = fixed_modes(words[0]) if len(words) == 1 and code is None else frozenset()
        if modes and self.bits not in modes:
            raise Mistake(f"'{words[0]}' does not exist in {self.bits}-bit code", words[0])
        if modes:
            raise Refusal(f"'{words[0]}' without operands is not known in this syntax", words[0])
        if code is None or not prefix:
            return code
        string = words[0][:4] in ("movs", "cmps", "stos", "lods", "scas") or words[0][:3] in ("ins", "out")
        if prefix == b"\xf0" or not (string or words[0] == "ret"):
            raise Refusal("a prefix on this instruction", text)
        # The order of GNU as: operand size, repeat, REX.
        at = 1 if code[:1] == b"\x66" else 0
        return code[:at] + prefix + code[at:]
