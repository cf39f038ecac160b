"""What GNU as gets to read: the cleaned source, line for line, with our own directives translated.

Two directives mean something else here than to GNU as, because a guest has addresses and no linker script:

``.section NAME, ADDRESS``
    the section begins at ADDRESS; told to `as` as a symbol ``__at_NAME`` and read back from its symbol table.
``.org ADDRESS``
    absolute: to `as` an offset in the section, so the section's address is subtracted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kvmscope.asm.fixed import NEWER_THAN_GAS, fixed_bytes
from kvmscope.asm.image import Diagnostic, Severity, Syntax
from kvmscope.asm.source import Source, Statement

__all__ = ["ADDRESS_PREFIX", "HEADER_LINES", "GasSource", "split_arguments", "split_labels", "translate"]

HEADER_LINES: Final = 1
"""Lines before the first one of the user."""

ADDRESS_PREFIX: Final = "__at_"

_LABELS: Final = re.compile(r'(?:(?:[A-Za-z_.$\\][\w.$\\@()]*|\d+|"[^"]*")\s*:\s*)+')
_DIRECTIVE: Final = re.compile(r"(\.[A-Za-z_]\w*)(?:\s+(.*))?$", re.DOTALL)
_IDENTIFIER: Final = re.compile(r"(?<![\w.$])(?:[A-Za-z_.$][\w.$]*|\d+[bf]\b)")
_SYMBOLIC_NAME: Final = re.compile(r"[\w.$\\]+")
_MODES: Final = {".code16": 16, ".code32": 32, ".code64": 64}
_SECTIONS: Final = (".text", ".data", ".bss")


@dataclass(frozen=True, slots=True)
class GasSource:
    """Text for `as`, the section that each line begins in, and the mistakes found on the way."""

    text: str
    section_of_line: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...]
    wide: bool
    """True when the object must be ELF64."""

    def likely(self, line: int) -> tuple[str, str]:
        """The sections that the bytes of ``line`` can belong to: the one before it, the one after it."""
        before = self.section_of_line[line - 1] if 0 < line <= len(self.section_of_line) else ".text"
        return before, self.section_of_line[line] if 0 <= line < len(self.section_of_line) else before


def split_labels(text: str) -> tuple[str, str]:
    """``("a: 1: ", "nop")`` for ``a: 1: nop``."""
    match = _LABELS.match(text)
    end = match.end() if match else 0
    return text[:end], text[end:]


def split_arguments(text: str) -> list[str]:
    """Split at the commas outside of strings, characters and parentheses."""
    parts: list[str] = []
    depth = start = at = 0
    while at < len(text):
        character = text[at]
        if character == '"':
            at += 1
            while at < len(text) and text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif character == "'":
            # GNU as takes `'a` and `'a'` for the same number.
            at += 2 if text[at + 1 : at + 2] == "\\" else 1
            at += text[at + 1 : at + 2] == "'"
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
        at += 1
    parts.append(text[start:].strip())
    return parts


def translate(source: Source, bits: int, syntax: Syntax, origin: int, *, newer: bool = False) -> GasSource:
    """Text for `as` from the cleaned ``source``; ``newer``: instructions that it may not know become bytes."""
    return _Translator(source, bits, syntax, origin, newer).run()


class _Translator:
    def __init__(self, source: Source, bits: int, syntax: Syntax, origin: int, newer: bool) -> None:
        self.source = source
        self.bits = self.mode = bits
        self.newer = newer
        self.syntax = syntax
        self.diagnostics: list[Diagnostic] = []
        self.section = ".text"
        self.stack: list[str] = []
        self.previous = ".text"
        self.bases: dict[str, str] = {".text": hex(origin)}
        self.labels = {
            name.strip()
            for line in source.lines
            for statement in line.statements
            for name in split_labels(statement.text)[0].split(":")
        }

    def run(self) -> GasSource:
        style = ".intel_syntax noprefix" if self.syntax is Syntax.INTEL else ".att_syntax"
        out = [f"{style}; .code{self.bits}"]
        sections: list[str] = []
        wide = self.bits == 64
        for line in self.source.lines:
            sections.append(self.section)
            text = line.text
            # From the right, so that the columns of the statements to the left stay true.
            replaced = [(statement, self._statement(statement)) for statement in line.statements]
            for statement, new in reversed(replaced):
                if new is not None:
                    start = statement.column - 1
                    text = text[:start] + new + text[start + len(statement.text) :]
            wide = wide or ".code64" in text.lower()
            out.append(text)
        out.append("")
        return GasSource("\n".join(out), tuple(sections), tuple(self.diagnostics), wide)

    def _statement(self, statement: Statement) -> str | None:
        """The replacement of one statement; None to leave it."""
        labels, rest = split_labels(statement.text)
        match = _DIRECTIVE.match(rest)
        if match is None:
            return self._bytes_of(labels, rest) if self.newer else None
        name, arguments = match.group(1).lower(), (match.group(2) or "").strip()
        if name in (".include", ".incbin"):
            message = f"'{match.group(1)}' is refused: a reproducer is one self-contained file"
            hint = "paste the text, or declare the bytes with .byte or a [[memory]] table"
            self._error(statement, match.group(1), message, hint)
            return ""
        if name in _MODES:
            self.mode = _MODES[name]
        elif name in _SECTIONS:
            self._enter(name)
        elif name in (".pushsection", ".section"):
            if name == ".pushsection":
                self.stack.append(self.section)
            return self._section(statement, labels, name, arguments)
        elif name == ".popsection" and self.stack:
            self._enter(self.stack.pop())
        elif name == ".previous":
            self._enter(self.previous)
        elif name == ".org":
            return self._org(statement, labels, arguments)
        return None

    def _bytes_of(self, labels: str, rest: str) -> str | None:
        """``.byte`` for an instruction that is younger than this GNU as."""
        name = rest.strip().lower()
        code = fixed_bytes(name, self.mode, self.syntax) if name in NEWER_THAN_GAS else None
        return None if code is None else f"{labels}.byte {','.join(map(hex, code))}"

    def _enter(self, name: str) -> None:
        self.previous, self.section = self.section, name

    def _section(self, statement: Statement, labels: str, directive: str, arguments: str) -> str | None:
        parts = split_arguments(arguments)
        name = parts[0].strip('"')
        self._enter(name)
        if len(parts) < 2 or not parts[1] or parts[1][0] in '"@%#':
            return None
        if not _SYMBOLIC_NAME.fullmatch(name):
            self._error(statement, parts[0], f"a section with an address cannot be called {parts[0]}")
            return ""
        symbol = f"{ADDRESS_PREFIX}{name}"
        self.bases[name] = symbol
        flags = "" if name in _SECTIONS else ',"awx",@progbits'
        if len(parts) > 2:
            flags = "," + ",".join(parts[2:])
        return f"{labels}.set {symbol},({parts[1]}); {directive} {parts[0]}{flags}"

    def _org(self, statement: Statement, labels: str, arguments: str) -> str | None:
        parts = split_arguments(arguments)
        names = {match.group() for match in _IDENTIFIER.finditer(parts[0])}
        if any(name == "." or name in self.labels or name[0].isdigit() for name in names):
            return None
        base = self.bases.get(self.section)
        if base is None:
            message = f"'.org {parts[0]}' is an address, but section {self.section} has none"
            hint = f"write .section {self.section}, ADDRESS, or use .space"
            self._error(statement, parts[0], message, hint)
            return ""
        return f"{labels}.org ({parts[0]})-({base})" + "".join("," + part for part in parts[1:])

    def _error(self, statement: Statement, token: str, message: str, hint: str = "") -> None:
        column = statement.column + max(statement.text.find(token), 0)
        found = Diagnostic(statement.line, column, Severity.ERROR, message, hint, max(len(token), 1), token)
        self.diagnostics.append(found)
