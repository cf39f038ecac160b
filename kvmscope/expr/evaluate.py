"""Evaluation against a scope.

Integers are mathematical and never negative: a result below zero (``-x``, ``a - b``, a scope's -1) is its 64-bit two's
complement, and ``~`` complements 64 bits, so ``rax == -1`` and ``debug_exit == -1`` mean what they say.  Sums, products and left
shifts do not wrap, so that an overflow is never taken for a small number.  Types do not mix: comparing an integer with a text is
an error, not False.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from kvmscope.errors import ExpressionError
from kvmscope.expr.ast import Binary, Call, Expression, Name, Node, Number, Text, Tuple, Unary
from kvmscope.expr.errors import error_at
from kvmscope.expr.functions import FUNCTIONS
from kvmscope.expr.nearest import nearest
from kvmscope.expr.tokens import MAX_BITS

__all__ = ["MappingScope", "Scope", "Value", "evaluate", "truth"]

Value: TypeAlias = int | str | bool | bytes
_WRAP: Final = 1 << 64
_MAX_SHIFT: Final = 127


class Scope(Protocol):
    """Where names and functions get their values.

    A method may raise ExpressionError with a title alone (memory that is not mapped); evaluation adds the place.
    """

    def lookup(self, name: str) -> Value | None:
        """The value of ``name``; None when there is no such name."""
        ...

    def call(self, name: str, arguments: tuple[Value, ...]) -> Value | None:
        """A function's value; None when this scope has no such function."""
        ...

    def names(self) -> Iterable[str]:
        """The names known, to suggest the nearest."""
        ...


@dataclass(frozen=True)
class MappingScope:
    """A scope made of a mapping and, for functions, callables."""

    values: Mapping[str, Value]
    functions: Mapping[str, Callable[..., Value]] = field(default_factory=dict)

    def lookup(self, name: str) -> Value | None:
        return self.values.get(name)

    def call(self, name: str, arguments: tuple[Value, ...]) -> Value | None:
        function = self.functions.get(name)
        return None if function is None else function(*arguments)

    def names(self) -> Iterable[str]:
        return self.values


def evaluate(expression: Expression, scope: Scope) -> Value:
    """The value of ``expression``; ``and`` and ``or`` stop as soon as their value is known.

    Raises ExpressionError, and nothing else, with a caret under the place.
    """
    return _Evaluation(expression.text or str(expression), scope).value(expression.root)


def truth(value: Value) -> bool:
    """Whether an expression's value counts as met: True, or an integer that is not 0.

    Raises ExpressionError for a text or bytes.
    """
    if isinstance(value, int):
        return bool(value)
    raise ExpressionError(f"{_kind(value)} is not a condition", hint="compare it: exception != ''")


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int):
        return "an integer"
    return "a text" if isinstance(value, str) else "bytes"


class _Evaluation:
    def __init__(self, text: str, scope: Scope) -> None:
        self.text = text
        self.scope = scope

    def error(self, title: str, node: Node, hint: str = "") -> ExpressionError:
        return error_at(title, self.text, node.column, node.width, hint)

    def value(self, node: Node) -> Value:
        if isinstance(node, Number):
            return node.value
        if isinstance(node, Text):
            return node.value
        if isinstance(node, Name):
            return self.name(node)
        if isinstance(node, Binary):
            return self.binary(node)
        if isinstance(node, Unary):
            return self.unary(node)
        if isinstance(node, Call):
            return self.call(node)
        raise self.error("several values stand only after 'in'", node)

    def from_scope(self, node: Name | Call, ask: Callable[[], Value | None]) -> Value | None:
        try:
            value = ask()
        except ExpressionError as error:
            raise self.error(error.title, node, error.hint) from None
        if isinstance(value, int) and not isinstance(value, bool) and value < 0:
            return value % _WRAP
        return value

    def name(self, node: Name) -> Value:
        value = self.from_scope(node, lambda: self.scope.lookup(node.name))
        if value is None:
            close = nearest(node.name, self.scope.names())
            raise self.error(f"unknown name {node.name!r}", node, f"did you mean {close!r}?" if close else "")
        return value

    def call(self, node: Call) -> Value:
        arguments = tuple(self.value(argument) for argument in node.arguments)
        takes = FUNCTIONS[node.function].takes
        for argument, part in zip(arguments, node.arguments, strict=True):
            if isinstance(argument, bool) or not isinstance(argument, takes):
                wanted = " or ".join("an integer" if kind is int else "a text" for kind in takes)
                raise self.error(f"{node.function} takes {wanted}, not {_kind(argument)}", part)
        value = self.from_scope(node, lambda: self.scope.call(node.function, arguments))
        if value is None:
            raise self.error(f"{node.function} is not available here", node)
        return value

    def integer(self, node: Node, operator: str) -> int:
        value = self.value(node)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"{operator} takes integers, not {_kind(value)}", node)
        return value

    def condition(self, node: Node, operator: str) -> bool:
        value = self.value(node)
        if not isinstance(value, int):
            hint = "compare it: exception != ''" if isinstance(value, str) else ""
            raise self.error(f"{operator} takes conditions, not {_kind(value)}", node, hint)
        return bool(value)

    def unary(self, node: Unary) -> Value:
        if node.operator == "not":
            return not self.condition(node.operand, "not")
        value = self.integer(node.operand, node.operator)
        if value >= _WRAP:
            raise self.error(f"{node.operator} takes at most 64 bits", node)
        return -value % _WRAP if node.operator == "-" else value ^ (_WRAP - 1)

    def binary(self, node: Binary) -> Value:
        operator = node.operator
        if operator == "and":
            return self.condition(node.left, "and") and self.condition(node.right, "and")
        if operator == "or":
            return self.condition(node.left, "or") or self.condition(node.right, "or")
        if operator == "in":
            return self.contained(node)
        if operator in _COMPARE:
            return self.compare(node, self.value(node.left), self.value(node.right))
        left, right = self.integer(node.left, operator), self.integer(node.right, operator)
        if operator in ("/", "%") and right == 0:
            raise self.error("division by zero", node)
        if operator in ("<<", ">>") and right > _MAX_SHIFT:
            raise self.error(
                f"shift by {right if right < 1 << 64 else 'more than 64 bits'}", node, "0 to 127 are taken"
            )
        result = _ARITHMETIC[operator](left, right)
        if result < 0:
            return result % _WRAP
        if result.bit_length() > MAX_BITS:
            raise self.error(f"the result is wider than {MAX_BITS} bits", node)
        return result

    def compare(self, node: Binary, left: Value, right: Value) -> bool:
        if _kind(left) != _kind(right):
            hint = ""
            if isinstance(left, str) or isinstance(right, str):
                hint = "texts are quoted, numbers are not"
            elif isinstance(left, bool) or isinstance(right, bool):
                hint = "join conditions with and / or, not with =="
            raise self.error(f"cannot compare {_kind(left)} with {_kind(right)}", node, hint)
        if node.operator in ("==", "!="):
            return (left == right) is (node.operator == "==")
        if isinstance(left, bool) or not isinstance(left, int) or not isinstance(right, int):
            raise self.error(f"{node.operator} orders integers, not {_kind(left)}", node)
        return _COMPARE[node.operator](left, right)

    def contained(self, node: Binary) -> bool:
        left = self.value(node.left)
        if isinstance(node.right, Tuple):
            # Every member is compared, so that a wrong type is an error wherever it stands.
            equal = [self.compare(_equality(node), left, self.value(item)) for item in node.right.items]
            return True in equal
        right = self.value(node.right)
        if isinstance(left, str) and isinstance(right, str):
            return left in right
        if isinstance(left, bytes) and isinstance(right, bytes):
            return left in right
        raise self.error(
            f"'in' looks for a text in a text, not for {_kind(left)} in {_kind(right)}",
            node,
            "several values are written x in (a, b)",
        )


def _equality(node: Binary) -> Binary:
    return Binary("==", node.left, node.right, node.column, node.width)


_COMPARE: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: Final[Mapping[str, Callable[[int, int], int]]] = {
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}
