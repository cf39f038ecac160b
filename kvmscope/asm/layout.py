"""Second pass of the built-in assembler: sizes, addresses, bytes."""

from __future__ import annotations

from typing import Final

from kvmscope.asm.arith import Expression, Name, Value, evaluate, names_in
from kvmscope.asm.direct import Branch, Code, Field
from kvmscope.asm.encoder import Request
from kvmscope.asm.limits import MAX_DEPTH, MAX_OUTPUT
from kvmscope.asm.nops import nops
from kvmscope.asm.program import Item, Pad, Program, ProgramSection, Space
from kvmscope.asm.refusal import Mistake, Refusal, TooMuch

__all__ = ["At", "Layout", "Undefined"]

_ROUNDS: Final = 60
"""Passes over the sizes: a branch can only grow, so this is far more than any program needs."""


class Layout:
    """Decides the size of every branch and the address of every section, then fills in the fields."""

    def __init__(self, program: Program, wide: bool) -> None:
        self.program = program
        self.wide = wide
        self.at: dict[str, int] = {}
        """Address of each section."""

    def undefined(self) -> list[tuple[Item, Undefined]]:
        """Every use of a name that is nowhere defined."""
        found = []
        for section in self.program.sections.values():
            for item in section.items:
                for name in sorted(_names(item)):
                    if name not in self.program.labels and name not in self.program.constants:
                        found.append((item, _undefined(name)))
        return found

    def sizes(self) -> None:
        """Offsets and sizes, then addresses; raises At, or Refusal."""
        for _ in range(_ROUNDS):
            self._addresses()
            changed = False
            for section in self.program.sections.values():
                changed |= self._section_sizes(section)
            if not changed:
                return
        raise Refusal("the sizes of the program do not settle")

    def size_of(self, section: ProgramSection) -> int:
        """Bytes of ``section`` as sized so far."""
        last = section.items[-1] if section.items else None
        return last.offset + last.size if last else 0

    def _addresses(self) -> None:
        """As for GNU as: .text at the origin, declared sections there, the others behind .text."""
        text = self.program.text
        self.at[text.name] = text.address or 0
        cursor = self.at[text.name] + self.size_of(text)
        ordered = sorted(self.program.sections.values(), key=lambda one: _ORDER.get(one.name, len(_ORDER)))
        for section in ordered:
            if section is text:
                continue
            if section.address is not None:
                self.at[section.name] = section.address
            elif section.items:
                self.at[section.name] = cursor + -cursor % section.align
                cursor = self.at[section.name] + self.size_of(section)
            else:
                self.at[section.name] = cursor

    def _section_sizes(self, section: ProgramSection) -> bool:
        offset, changed = 0, False
        for item in section.items:
            if isinstance(item.content, Branch) and not item.wide and item.size:
                item.wide = self._outgrown(item, item.content, section)
        for item in section.items:
            size = self._item_size(item, section, offset)
            changed |= (item.offset, item.size) != (offset, size)
            item.offset, item.size = offset, size
            offset += size
            if offset > MAX_OUTPUT:
                raise At(item, TooMuch(f"the program has more than {MAX_OUTPUT >> 20} MiB"))
        return changed

    def _item_size(self, item: Item, section: ProgramSection, offset: int) -> int:
        content = item.content
        if isinstance(content, Code):
            return len(content.data)
        try:
            if isinstance(content, Branch):
                return self._branch_size(item, content, section)
            if isinstance(content, Pad):
                size = -offset % content.align
                return 0 if content.most is not None and size > content.most else size
            if isinstance(content, Space):
                return self._space_size(content, section, offset)
        except (Mistake, Refusal) as error:
            raise At(item, error) from None
        raise At(item, Refusal("an instruction without bytes"))

    def _branch_size(self, item: Item, branch: Branch, section: ProgramSection) -> int:
        wide = len(branch.wide) + branch.width
        if not branch.short:
            return wide
        if branch.wide and not item.size:
            item.wide = self._in_section(branch.target, section) is None
        return wide if item.wide else len(branch.short) + 1

    def _outgrown(self, item: Item, branch: Branch, section: ProgramSection) -> bool:
        """True when the 8-bit form does not reach, by the offsets of the round before, which fit each other."""
        if not branch.short or not branch.wide:
            return False
        target = self._in_section(branch.target, section)
        return target is None or not -128 <= target - item.offset - len(branch.short) - 1 <= 127

    def _in_section(self, target: Expression, section: ProgramSection) -> int | None:
        """The offset of ``target`` when it is a place in ``section``."""
        value = self.value(target)
        if value.weight != 1:
            return None
        for name in names_in(target):
            label = self.program.labels.get(name)
            if label is not None and label.section is not section:
                return None
        return value.number - self.at[section.name]

    def _space_size(self, space: Space, section: ProgramSection, offset: int) -> int:
        value = self.value(space.count)
        if space.to_address:
            size = value.number - self.at[section.name] - offset
            if size < 0:
                message = f"'.org' goes back from {self.at[section.name] + offset:#x} to {value.number:#x}"
                hint = ".org takes an address that lies ahead; .section NAME, ADDRESS places code anywhere"
                raise Mistake(message, ".org", hint)
        elif value.weight:
            raise Mistake("an address is no count")
        else:
            size = value.number * len(space.unit)
            if size < 0:
                raise Mistake(f"a count of {value.number} is negative")
        if size > MAX_OUTPUT:
            raise TooMuch(f"{size} bytes are more than a program may have ({MAX_OUTPUT >> 20} MiB)")
        return size

    def value(self, tree: Expression, depth: int = 0) -> Value:
        """The value of ``tree`` with the addresses of this round."""
        return evaluate(tree, lambda name: self.name(name, depth))

    def name(self, name: str, depth: int = 0) -> Value:
        """The value of a symbol; raises Mistake when there is none."""
        label = self.program.labels.get(name)
        if label is not None:
            items = label.section.items
            if label.index < len(items):
                offset = items[label.index].offset
            else:
                offset = self.size_of(label.section)
            return Value(self.at.get(label.section.name, 0) + offset, 1, False)
        tree = self.program.constants.get(name)
        if tree is None:
            raise _undefined(name)
        if depth > MAX_DEPTH or tree == Name(name):
            raise Mistake(f"'{name}' is defined by itself", name)
        return self.value(tree, depth + 1)

    # Bytes.

    def item_bytes(self, item: Item, address: int) -> bytes:
        """The bytes of ``item`` at ``address``; raises Mistake or Refusal."""
        content = item.content
        if isinstance(content, Pad):
            if content.fill is not None:
                return bytes([content.fill & 0xFF]) * item.size
            return b""
        if isinstance(content, Space):
            return content.unit * (item.size // len(content.unit)) if content.unit else b""
        if isinstance(content, Branch):
            return self._branch_bytes(item, content, address)
        if isinstance(content, Request):
            raise Refusal("an instruction without bytes")
        code = bytearray(content.data)
        for field in content.fields:
            code[field.offset : field.offset + field.size] = self._field(field, address + item.size, item)
        return bytes(code)

    def padding(self, item: Item, section: ProgramSection) -> bytes:
        """What fills an alignment without a fill value of its own."""
        return nops(item.size, self.program.bits, self.wide) if section.code else bytes(item.size)

    def _branch_bytes(self, item: Item, branch: Branch, address: int) -> bytes:
        wide = item.wide or not branch.short
        opcode, width = (branch.wide, branch.width) if wide else (branch.short, 1)
        field = Field(len(opcode), width, branch.target, True, True)
        return opcode + self._field(field, address + item.size, item)

    def _field(self, field: Field, end: int, item: Item) -> bytes:
        value = self.value(field.value)
        number = value.number - (end if field.relative else 0)
        if number >> 63 == 1 and field.signed:
            # The upper half of the address space, as a number whose sign is extended.
            number -= 1 << 64
        bits = 8 * field.size
        token = next(iter(sorted(names_in(field.value))), "").split("#")[0]
        if field.relative and (item.bits == 16 or field.size == 2) and value.number >> 16 == end >> 16 and bits >= 16:
            number = (number + (1 << bits - 1) & (1 << bits) - 1) - (1 << bits - 1)
        if field.relative and item.bits == 32 and bits == 32:
            number = (number + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
        signed = field.signed or field.relative
        top = 1 << bits - 1 if signed else 1 << bits
        if bits < 64 and not -(1 << bits - 1) <= number < top:
            what = "the branch or reference goes over" if field.relative else "the value"
            message = f"{what} {'-' if number < 0 else ''}{abs(number):#x}: it does not fit in {bits} bits"
            hint = "the target is too far away for this instruction, or the value too large for its operand"
            raise Mistake(message, token, hint)
        return (number & (1 << bits) - 1).to_bytes(field.size, "little")


class At(Exception):
    """A Mistake or Refusal of the layout, with the item it belongs to."""

    def __init__(self, item: Item, trouble: Mistake | Refusal) -> None:
        super().__init__(trouble.message)
        self.item = item
        self.trouble = trouble


class Undefined(Mistake):
    """A symbol that is nowhere defined."""


_ORDER: Final = {".text": 0, ".data": 1, ".bss": 2}


def _undefined(name: str) -> Undefined:
    shown = name.split("#")[0]
    hint = "there is no such label further on" if "#" in name else ""
    return Undefined(f"undefined symbol '{shown}'", shown, hint)


def _names(item: Item) -> set[str]:
    """The symbols that the bytes of ``item`` depend on."""
    content = item.content
    if isinstance(content, Code):
        return {name for field in content.fields for name in names_in(field.value)}
    if isinstance(content, Branch):
        return names_in(content.target)
    return names_in(content.count) if isinstance(content, Space) else set()
