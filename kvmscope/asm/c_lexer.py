"""One line of C in coloured pieces, for sources that are looked at: a scanner that never fails."""

from __future__ import annotations

import re
from typing import Final

from kvmscope.asm.image import Syntax
from kvmscope.asm.lexer import Kind, Span, State

__all__ = ["c_spans"]

_KEYWORDS: Final = frozenset(
    [
        "asm",
        "auto",
        "break",
        "case",
        "const",
        "continue",
        "default",
        "do",
        "else",
        "enum",
        "extern",
        "for",
        "goto",
        "if",
        "inline",
        "register",
        "restrict",
        "return",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "typeof",
        "union",
        "volatile",
        "while",
        "__asm__",
        "__attribute__",
        "__volatile__",
        "__inline__",
    ]
)
_TYPES: Final = re.compile(
    r"(?:void|char|short|int|long|signed|unsigned|float|double|bool|_Bool|FILE|u?int(?:8|16|32|64)?_t|[su](?:8|16|32|64)"
    r"|ulong|uint|size_t|ssize_t|\w+_t)\Z"
)
_TOKEN: Final = re.compile(
    r"""
      (?P<comment>//.*|/\*.*?\*/)
    | (?P<open>/\*.*)
    | (?P<string>"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?)
    | (?P<number>\b(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)[uUlL]*\b)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<operator>[-+*/%&|^~!<>=?:]+)
    """,
    re.VERBOSE,
)
_DIRECTIVE: Final = re.compile(r"\s*#\s*\w+")
_LABEL: Final = re.compile(r"\s*(?!default\b)([A-Za-z_]\w*)\s*:(?!:)")
_IN_COMMENT: Final = State(in_comment=True)
_OUTSIDE: Final = State()


def c_spans(line: str, _syntax: Syntax, state: State | None) -> tuple[list[Span], State]:
    """The coloured pieces of ``line`` and the state after it; the interface of `kvmscope.asm.lexer.spans`."""
    found: list[Span] = []
    at = 0
    if state is not None and state.in_comment:
        end = line.find("*/")
        if end < 0:
            return [Span(0, len(line), Kind.COMMENT)], _IN_COMMENT
        at = end + 2
        found.append(Span(0, at, Kind.COMMENT))
    elif directive := _DIRECTIVE.match(line):
        at = directive.end()
        found.append(Span(0, at, Kind.DIRECTIVE))
    elif label := _LABEL.match(line):
        at = label.end(1)
        found.append(Span(label.start(1), at, Kind.LABEL))
    for token in _TOKEN.finditer(line, at):
        kind = token.lastgroup
        if kind == "open":
            found.append(Span(token.start(), len(line), Kind.COMMENT))
            return found, _IN_COMMENT
        if kind == "word":
            if token[0] in _KEYWORDS:
                found.append(Span(token.start(), token.end(), Kind.MNEMONIC))
            elif _TYPES.match(token[0]):
                found.append(Span(token.start(), token.end(), Kind.REGISTER))
        elif kind is not None:
            found.append(Span(token.start(), token.end(), Kind(kind)))
    return found, _OUTSIDE
