"""One line of assembly in coloured pieces, for the editor.

Not a parser: it never fails, and asks no table of instructions; the first word of a statement that is no label and
no directive is a mnemonic.  Comments follow the rules of `kvmscope.asm.source`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kvmscope.asm.image import Syntax
from kvmscope.asm.names import DIRECTIVES, INTEL_OPERATORS, REGISTERS

__all__ = ["Kind", "Span", "State", "spans"]


class Kind(StrEnum):
    """What a span is."""

    MNEMONIC = "mnemonic"
    REGISTER = "register"
    NUMBER = "number"
    STRING = "string"
    COMMENT = "comment"
    DIRECTIVE = "directive"
    LABEL = "label"
    OPERATOR = "operator"
    HEADER = "header"


@dataclass(frozen=True, slots=True)
class Span:
    """Columns ``start`` to ``end`` (exclusive, from 0)."""

    start: int
    end: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class State:
    """What one line leaves to the next."""

    in_comment: bool = False
    """Inside ``/* */``."""
    header: str = ""
    """Comment leader of the header block we are in, empty outside."""


_START: Final = State()
_HEADER_OPEN: Final = re.compile(r"\s*(#|;|//)\s?/// kvmscope\s*$")
_PREFIXES: Final = frozenset(
    [
        "rep",
        "repe",
        "repz",
        "repne",
        "repnz",
        "lock",
        "data16",
        "data32",
        "addr16",
        "addr32",
        "notrack",
        "xacquire",
        "xrelease",
        "bnd",
    ]
)
_STATEMENT: Final = re.compile(
    r"""\s*(?:
        (?P<label>[A-Za-z_.$\\][\w.$@\\]*|\d+)(?P<colon>\s*:)(?!:)
      | (?P<name>[A-Za-z_.$][\w.$]*)(?=\s*==?[^=])
      | (?P<directive>\.[A-Za-z_][\w.]*)
      | (?P<word>[A-Za-z_\\][\w.\\]*)
    )""",
    re.VERBOSE,
)
_TOKEN: Final = re.compile(
    r"""
      (?P<comment>\#.*|//.*|/\*)
    | (?P<semicolon>;)
    | (?P<string>"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])'?)
    | (?P<register>%[A-Za-z][A-Za-z0-9]*)
    | (?P<localref>\d+[bf](?![\w.]))
    | (?P<number>\$?(?:0[xX][0-9A-Fa-f_]+|0[bB][01_]+|0[oO][0-7_]+|\d[0-9A-Fa-f]*[hH]\b|\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?))
    | (?P<word>[A-Za-z_.\\@][\w.$@\\]*)
    | (?P<operator><<|>>|==|!=|<=|>=|[-+*/|^~!<>=\[\](){},:$%*&])
    """,
    re.VERBOSE,
)
_SEPARATES: Final = re.compile(r";\s*(\.[A-Za-z_][\w.]*)")


def spans(line: str, syntax: Syntax = Syntax.INTEL, state: State | None = None) -> tuple[list[Span], State]:
    """Spans of one line in order, without overlap, and the state for the next line.

    ``state`` None is that of a file's first line.
    """
    state = state or _START
    if state.header or (not state.in_comment and _HEADER_OPEN.match(line)):
        return _header(line, syntax, state)
    out: list[Span] = []
    position = 0
    if state.in_comment:
        end = line.find("*/")
        if end < 0:
            return ([Span(0, len(line), Kind.COMMENT)] if line else []), state
        position = end + 2
        out.append(Span(0, position, Kind.COMMENT))
    at_start = True
    while position < len(line):
        if at_start:
            position, at_start = _statement(line, position, out)
            if position >= len(line):
                break
        match = _TOKEN.match(line, position)
        if match is None:
            position += 1
            continue
        kind = match.lastgroup
        end = match.end()
        if kind == "comment":
            if match.group() != "/*":
                out.append(Span(position, len(line), Kind.COMMENT))
                break
            close = line.find("*/", end)
            if close < 0:
                out.append(Span(position, len(line), Kind.COMMENT))
                return out, State(in_comment=True)
            out.append(Span(position, close + 2, Kind.COMMENT))
            end = close + 2
        elif kind == "semicolon":
            follows = _SEPARATES.match(line, position)
            if follows is None or follows.group(1).lower() not in DIRECTIVES:
                out.append(Span(position, len(line), Kind.COMMENT))
                break
            out.append(Span(position, end, Kind.OPERATOR))
            at_start = True
        else:
            found = _kind(kind or "", match.group(), syntax)
            if found is not None:
                out.append(Span(position, end, found))
        position = end
    return out, _START


def _kind(group: str, text: str, syntax: Syntax) -> Kind | None:
    """Kind of an operand's token; None for a plain symbol."""
    if group == "word":
        lowered = text.lower()
        if lowered in REGISTERS and syntax is Syntax.INTEL:
            return Kind.REGISTER
        if lowered in INTEL_OPERATORS and syntax is Syntax.INTEL:
            return Kind.OPERATOR
        return Kind.DIRECTIVE if lowered in DIRECTIVES else None
    if group == "register":
        # In Intel syntax % is also the remainder operator; a register's name decides.
        return Kind.REGISTER if text[1:].lower() in REGISTERS else None
    return {
        "string": Kind.STRING,
        "localref": Kind.LABEL,
        "number": Kind.NUMBER,
        "operator": Kind.OPERATOR,
    }[group]


def _statement(line: str, position: int, out: list[Span]) -> tuple[int, bool]:
    """Take labels, then the directive or mnemonic; (where the operands begin, whether a statement may still begin)."""
    while True:
        match = _STATEMENT.match(line, position)
        if match is None:
            # Blanks, or a comment before the statement.
            blank = len(line[position:]) - len(line[position:].lstrip())
            rest = line[position + blank :]
            return position + blank, rest.startswith("/*")
        group = match.lastgroup
        if group == "colon":
            out.append(Span(match.start("label"), match.end(), Kind.LABEL))
            position = match.end()
            continue
        if group == "name":
            out.append(Span(match.start("name"), match.end("name"), Kind.LABEL))
            return match.end(), False
        if group == "directive":
            out.append(Span(match.start("directive"), match.end(), Kind.DIRECTIVE))
            return match.end(), False
        word = match.group("word")
        out.append(Span(match.start("word"), match.end(), Kind.MNEMONIC))
        position = match.end()
        if word.lower() not in _PREFIXES:
            return position, False


def _header(line: str, syntax: Syntax, state: State) -> tuple[list[Span], State]:
    """A line of the header block, or its first."""
    if not state.header:
        opened = _HEADER_OPEN.match(line)
        leader = opened.group(1) if opened else "#"
        return [Span(0, len(line), Kind.HEADER)], State(header=leader)
    text = line.strip()
    if not text.startswith(state.header):
        # The block was not closed: what follows is source again.
        return spans(line, syntax)
    closed = text[len(state.header) :].strip() == "///"
    return [Span(0, len(line), Kind.HEADER)], _START if closed else state
