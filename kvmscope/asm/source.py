"""Source text -> lines without comments, and their statements.

Comments are ``#``, ``//``, ``;`` to the end of the line and ``/* */`` over lines, in both syntaxes.  They become
spaces, so that a column in the cleaned text is the column in the editor.

GNU as takes ``;`` for a separator of statements, kernel code writes ``ud2; .ascii "kvm"``, and everybody else writes
comments after ``;``.  The rule here: ``;`` begins a comment unless a directive (``.name``) follows it.  A comment
that reads like an instruction (``cli; hlt``) gets a warning, since dropping an instruction silently would be the
worst of all answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kvmscope.asm.image import Diagnostic, Severity
from kvmscope.asm.limits import MAX_SOURCE
from kvmscope.asm.mnemonics import is_mnemonic
from kvmscope.asm.names import DIRECTIVES, REGISTERS

__all__ = ["Line", "Source", "Statement", "clean"]

_INTERESTING: Final = re.compile(r"[\"'/#;]")
_STRING: Final = re.compile(r'"(?:\\.|[^"\\\n])*"')
_CHARACTER: Final = re.compile(r"'(?:\\[^\n]|[^\\\n])'?")
_DIRECTIVE: Final = re.compile(r"\s*(\.[A-Za-z_][\w.]*)")
_WORDS: Final = re.compile(
    r"\s*(?:\w+:\s*)?(?:(?:rep|repe|repne|repz|repnz|lock)\s+)?([A-Za-z][A-Za-z0-9]*)(?:\s+(.*))?$"
)
_PREPROCESSOR: Final = re.compile(r"\s*#\s*(include|define|undef|ifdef|ifndef|if|elif|else|endif|error|pragma)\b")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: ``column`` counts from 1, ``text`` has no surrounding blanks."""

    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One source line: ``raw`` as typed, ``text`` with comments blanked (same columns)."""

    number: int
    raw: str
    text: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A cleaned source; ``diagnostics`` of this stage (unterminated strings, doubtful comments)."""

    lines: tuple[Line, ...]
    diagnostics: tuple[Diagnostic, ...]

    def raw(self, number: int) -> str:
        """The text of line ``number`` as typed; empty beyond the end."""
        return self.lines[number - 1].raw if 1 <= number <= len(self.lines) else ""


def clean(text: str) -> Source:
    """Blank all comments of ``text`` and split it into statements."""
    if len(text) > MAX_SOURCE:
        message = f"the source has {len(text)} characters, more than {MAX_SOURCE}"
        return Source(
            (), (Diagnostic(1, 1, Severity.ERROR, message, "split it, or load data from a [[memory]] table"),)
        )
    lines: list[Line] = []
    found: list[Diagnostic] = []
    open_comment: tuple[int, int] | None = None
    for number, full in enumerate(text.split("\n"), 1):
        raw = full.rstrip("\r")
        cleaned, separators, open_comment = _clean_line(number, raw, open_comment, found)
        lines.append(Line(number, raw, cleaned, _statements(number, cleaned, separators)))
    if open_comment is not None:
        line, column = open_comment
        found.append(Diagnostic(line, column, Severity.ERROR, "this comment has no end", "close it with */", 2, "/*"))
    return Source(tuple(lines), tuple(found))


def _clean_line(
    number: int, raw: str, opened: tuple[int, int] | None, found: list[Diagnostic]
) -> tuple[str, list[int], tuple[int, int] | None]:
    """(blanked line, positions of separators, place of the comment still open at the end of the line)."""
    out: list[str] = []
    separators: list[int] = []
    at = 0
    while True:
        if opened is not None:
            end = raw.find("*/", at)
            if end < 0:
                return "".join(out), separators, opened
            out.append(" " * (end + 2 - at))
            at, opened = end + 2, None
        match = _INTERESTING.search(raw, at)
        if match is None:
            out.append(raw[at:])
            return "".join(out), separators, None
        start = match.start()
        out.append(raw[at:start])
        character = raw[start]
        if character == '"':
            literal = _STRING.match(raw, start)
            if literal is None:
                message = "this string has no end"
                found.append(Diagnostic(number, start + 1, Severity.ERROR, message, 'close it with "', 1, '"'))
                return "".join(out), separators, None
            at = literal.end()
            out.append(literal.group())
        elif character == "'":
            literal = _CHARACTER.match(raw, start)
            at = literal.end() if literal else start + 1
            out.append(raw[start:at])
        elif raw.startswith("/*", start):
            opened = (number, start + 1)
            out.append("  ")
            at = start + 2
        elif character == "#" or raw.startswith("//", start):
            if character == "#" and (directive := _PREPROCESSOR.match(raw)):
                message = f"'#{directive.group(1)}' is a comment here: the C preprocessor is not run"
                hint = "use .equ, .macro and .if, which need no preprocessor"
                found.append(Diagnostic(number, start + 1, Severity.WARNING, message, hint, 1, "#"))
            return "".join(out), separators, None
        elif character == ";":
            if _is_directive(raw, start + 1):
                separators.append(start)
                out.append(";")
                at = start + 1
            else:
                if "".join(out).strip():
                    _warn_of_dropped_code(number, start, raw[start + 1 :], found)
                return "".join(out), separators, None
        else:
            out.append(character)
            at = start + 1


def _is_directive(raw: str, at: int) -> bool:
    match = _DIRECTIVE.match(raw, at)
    return match is not None and match.group(1).lower() in DIRECTIVES


def _warn_of_dropped_code(number: int, start: int, comment: str, found: list[Diagnostic]) -> None:
    """Warn where a comment could be an instruction: a mnemonic alone, or one with operands that look like operands."""
    match = _WORDS.match(comment.split(";")[0].rstrip())
    if match is None or not is_mnemonic(match.group(1).lower()):
        return
    operands = match.group(2)
    if operands is None or all(_looks_like_operand(part.strip()) for part in operands.split(",")):
        message = f"'{match.group(1)}' after ';' is a comment: this instruction is not assembled"
        column = start + 2 + match.start(1)
        hint = "put it on a line of its own (';' begins a comment unless a directive follows)"
        found.append(Diagnostic(number, column, Severity.WARNING, message, hint, len(match.group(1)), match.group(1)))


def _looks_like_operand(text: str) -> bool:
    return (
        text.lower() in REGISTERS or re.match(r"[%$\[*]\S|-?\d\w*$|\d*\(%|(?:byte|[dqf]?word) ptr\b", text) is not None
    )


def _statements(number: int, text: str, separators: list[int]) -> tuple[Statement, ...]:
    result: list[Statement] = []
    start = 0
    for end in [*separators, len(text)]:
        part = text[start:end]
        stripped = part.strip()
        if stripped:
            result.append(Statement(number, start + len(part) - len(part.lstrip()) + 1, stripped))
        start = end + 1
    return tuple(result)
