"""The tree of an expression: small, frozen, and printable so that ``parse(str(e)) == e``.

Places (``column``, ``width``, from 0) and the spelling of a number take no part in comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

__all__ = [
    "PRECEDENCE",
    "Binary",
    "Call",
    "Expression",
    "Name",
    "Node",
    "Number",
    "Text",
    "Tuple",
    "Unary",
    "calls",
    "names",
    "quote",
]

PRECEDENCE: Final = {
    "or": 1,
    "and": 2,
    # 3 is the unary `not`.
    "==": 4,
    "!=": 4,
    "<": 4,
    "<=": 4,
    ">": 4,
    ">=": 4,
    "in": 4,
    "|": 5,
    "^": 6,
    "&": 7,
    "<<": 8,
    ">>": 8,
    "+": 9,
    "-": 9,
    "*": 10,
    "/": 10,
    "%": 10,
}
"""Binding strength of the binary operators: Python's order, so that ``rflags & 1 == 0`` tests the bit."""

NOT_LEVEL: Final = 3
UNARY_LEVEL: Final = 11
_PRIMARY: Final = 12


@dataclass(frozen=True, slots=True)
class Number:
    """A literal; ``spelling`` keeps the writer's radix."""

    value: int
    spelling: str = field(default="", compare=False)
    column: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return self.spelling or (str(self.value) if self.value < 10 else hex(self.value))


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string."""

    value: str
    column: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return quote(self.value)


@dataclass(frozen=True, slots=True)
class Name:
    """A register, a label or a fact of the run."""

    name: str
    column: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Call:
    """A function of `kvmscope.expr.functions` applied to arguments."""

    function: str
    arguments: tuple[Node, ...]
    column: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, slots=True)
class Unary:
    """``not``, ``-`` or ``~``."""

    operator: str
    operand: Node
    column: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        if self.operator == "not":
            return f"not {_inside(self.operand, NOT_LEVEL)}"
        return f"{self.operator}{_inside(self.operand, UNARY_LEVEL)}"


@dataclass(frozen=True, slots=True)
class Binary:
    """Two operands; ``column`` is the operator's."""

    operator: str
    left: Node
    right: Node
    column: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        level = PRECEDENCE[self.operator]
        # Comparisons do not chain, the others group to the left: the right side always needs a stronger binding.
        left = _inside(self.left, level + 1 if level == PRECEDENCE["=="] else level)
        return f"{left} {self.operator} {_inside(self.right, level + 1)}"


@dataclass(frozen=True, slots=True)
class Tuple:
    """The right side of ``in``: several values."""

    items: tuple[Node, ...]
    column: int = field(default=0, compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))}{',' if len(self.items) == 1 else ''})"


Node: TypeAlias = Number | Text | Name | Call | Unary | Binary | Tuple


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; ``text`` is what was typed, for messages."""

    root: Node
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return str(self.root)


def quote(text: str) -> str:
    """``text`` as a literal of the language.

    >>> print(quote("it's"))
    'it\\'s'
    """
    out = []
    for char in text:
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif ord(char) < 0x20 or ord(char) == 0x7F:
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(char)
    return f"'{''.join(out)}'"


_ESCAPES: Final = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _level(node: Node) -> int:
    if isinstance(node, Binary):
        return PRECEDENCE[node.operator]
    if isinstance(node, Unary):
        return NOT_LEVEL if node.operator == "not" else UNARY_LEVEL
    return _PRIMARY


def _inside(node: Node, least: int) -> str:
    return str(node) if _level(node) >= least else f"({node})"


def _walk(node: Node) -> Iterator[Node]:
    stack = [node]
    while stack:
        here = stack.pop()
        yield here
        if isinstance(here, Binary):
            stack += (here.right, here.left)
        elif isinstance(here, Unary):
            stack.append(here.operand)
        elif isinstance(here, Call):
            stack += reversed(here.arguments)
        elif isinstance(here, Tuple):
            stack += reversed(here.items)


def _root(expression: Expression | Node) -> Node:
    return expression.root if isinstance(expression, Expression) else expression


def names(expression: Expression | Node) -> tuple[str, ...]:
    """Every name used, each once, from left to right."""
    return tuple(dict.fromkeys(node.name for node in _walk(_root(expression)) if isinstance(node, Name)))


def calls(expression: Expression | Node) -> tuple[Call, ...]:
    """Every function call, each once, from left to right."""
    return tuple(dict.fromkeys(node for node in _walk(_root(expression)) if isinstance(node, Call)))
