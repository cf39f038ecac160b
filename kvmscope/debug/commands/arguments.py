"""Arguments of commands: expressions in gdb's spelling, locations, numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kvmscope.debug.commands.model import CommandContext
from kvmscope.errors import ExpressionError, UsageError
from kvmscope.expr import Expression, evaluate, nearest, parse

if TYPE_CHECKING:
    from kvmscope.asm.source_lines import SourceLines

__all__ = ["Location", "evaluate_int", "evaluate_text", "location", "numbers", "parse_expression", "split_condition"]

_DOLLAR = re.compile(r"\$([A-Za-z_])")
_CAST = re.compile(r"^\{(u8|u16|u32|u64|p8|p16|p32|p64|char|short|int|long)\}\s*(.+)$")
_GDB_TYPES = {"char": "u8", "short": "u16", "int": "u32", "long": "u64"}
_LINE = re.compile(r"^(?:[^\s:*]+:)?(\d+)$")


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the program."""

    address: int
    words: str
    line: int | None = None
    """Of an assembled source."""
    others: tuple[int, ...] = ()
    """Further addresses at which the same source line begins, where it was inlined or unrolled."""


def parse_expression(text: str) -> Expression:
    """An expression in ours or gdb's spelling: ``$rax`` is ``rax``, ``{u32}0x7000`` is ``u32(0x7000)``.

    Raises UsageError with the place.
    """
    plain = _DOLLAR.sub(r"\1", text.strip())
    cast = _CAST.match(plain)
    if cast:
        plain = f"{_GDB_TYPES.get(cast.group(1), cast.group(1))}({cast.group(2)})"
    if not plain:
        raise UsageError("An expression is missing")
    try:
        return parse(plain)
    except ExpressionError as error:
        raise UsageError(error.title, error.detail, error.hint) from None


def evaluate_text(text: str, context: CommandContext) -> int | str | bool | bytes:
    """The value of an expression now.  Raises UsageError."""
    expression = parse_expression(text)
    try:
        return evaluate(expression, context.scope())
    except ExpressionError as error:
        raise UsageError(error.title, error.detail, error.hint) from None


def evaluate_int(text: str, context: CommandContext) -> int:
    """Like `evaluate_text`, for a number."""
    value = evaluate_text(text, context)
    if not isinstance(value, int):
        raise UsageError(f"{text.strip()} is no number")
    return int(value)


def location(text: str, context: CommandContext) -> Location:
    """``*EXPR``, a line number (``12``, ``file:12``), a label (``label+4``), or nothing for the present place.

    Raises UsageError with the nearest label.
    """
    image = context.machine.image
    text = text.strip()
    if not text:
        cpu = context.machine.snapshot().cpu
        return Location(cpu.pc, f"*{cpu.pc:#x}", image.line_at(cpu.pc))
    if text.startswith("*"):
        address = evaluate_int(text[1:], context) & (1 << 64) - 1
        return Location(address, f"*{address:#x}", image.line_at(address))
    line = _LINE.match(text)
    if line and image.places is not None:
        return _source_line(image.places, text, context)
    if line:
        number = int(line.group(1)[:9])
        found = image.address_of_line(number)
        if found is None:
            raise UsageError(f"No code at or after line {number}", hint="*0x... sets a breakpoint at an address")
        return Location(found, f"line {number}", image.line_at(found))
    if re.fullmatch(r"[A-Za-z_.$][\w.$@]*", text) and text not in image.symbols and not text.startswith("$"):
        close = nearest(text, image.symbols)
        raise UsageError(
            f"No label {text!r}", hint=f"did you mean {close!r}?" if close else "an address needs a star: *0x401000"
        )
    if text in image.symbols:
        address = image.symbols[text]
    else:
        address = evaluate_int(text, context) & (1 << 64) - 1
    return Location(address, text, image.line_at(address))


def _source_line(places: SourceLines, text: str, context: CommandContext) -> Location:
    """``file.c:12``, or ``12`` of the present file."""
    name, _, number = text.rpartition(":")
    if name:
        found = places.find_file(name)
        if not found:
            known = sorted({PurePosixPath(file).name for file in places.files})
            close = nearest(name, known)
            raise UsageError(f"No code comes from a file {name!r}", hint=f"did you mean {close!r}?" if close else "")
        if len(found) > 1:
            raise UsageError(f"{name} may be several files", hint=", ".join(found[:4]))
        file = found[0]
    else:
        here = places.at(context.machine.snapshot().cpu.pc)
        if here is None:
            raise UsageError("The present place belongs to no file", hint=f"name one: file.c:{number}")
        file = here.file
    addresses = places.addresses(file, int(number[:9]))
    if not addresses:
        raise UsageError(f"No code at or after line {number} of {PurePosixPath(file).name}")
    return Location(addresses[0], str(places.at(addresses[0]) or text), others=addresses[1:])


def split_condition(text: str) -> tuple[str, str]:
    """``LOC if EXPR`` -> (LOC, EXPR)."""
    match = re.search(r"(?:^|\s)if\s+(.*)$", text)
    return (text[: match.start()].strip(), match.group(1).strip()) if match else (text.strip(), "")


def numbers(text: str, what: str = "breakpoint") -> list[int]:
    """``1 3 5-7`` -> [1, 3, 5, 6, 7].  Raises UsageError, which says of ``what`` they are the numbers."""
    out: list[int] = []
    for word in text.replace(",", " ").split():
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", word)
        if not match:
            raise UsageError(f"{word!r} is no {what} number")
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if not first <= last < first + 1000:
            raise UsageError(f"{word!r} is no range of {what} numbers")
        out.extend(range(first, last + 1))
    return out
