"""The same expression in C, for exported tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from kvmscope.errors import ExpressionError
from kvmscope.expr.ast import Binary, Expression, Node, Number, Tuple, Unary

__all__ = ["Translate", "to_c"]

Translate: TypeAlias = Callable[[Node], str | None]
"""Asked for every node before its default form: C text that is a primary expression, or None.

Names, calls and texts have no default.  Names must come out as unsigned 64-bit values (``u64``), for C's arithmetic to be
that of the language.
"""

_C_OPERATORS: Final = {"and": "&&", "or": "||"}
_CHAINS: Final = ("&&", "||", "|", "&", "^", "+", "*")
_ARITHMETIC: Final = ("|", "^", "&", "<<", ">>", "+", "-", "*", "/", "%")
_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
_PREFIXES: Final = ("u!", "u-", "u~")
_U64: Final = 1 << 64


def to_c(expression: Expression | Node, translate: Translate) -> str:
    """C text of ``expression`` with as few parentheses as gcc's -Wall accepts.

    Raises ExpressionError for a part that C cannot say.  C wraps sums, products and left shifts at 64 bits where the
    language does not; all other operators agree.

    >>> from kvmscope.expr import parse
    >>> to_c(parse("rax & 0xff == 0x34 and not cf"), lambda node: node.name if isinstance(node, Name) else None)
    '(rax & 0xffull) == 0x34 && !cf'
    """
    node = expression.root if isinstance(expression, Expression) else expression
    return _part(node, translate)[0]


def _part(node: Node, translate: Translate, *, wide: bool = False) -> tuple[str, str]:
    """(C text, its outermost operator; empty when it is primary)."""
    given = translate(node)
    if given is not None:
        return given, ""
    if isinstance(node, Number):
        return _number(node, wide=wide), ""
    if isinstance(node, Unary):
        return _unary(node, translate)
    if isinstance(node, Binary):
        return _binary(node, translate)
    raise ExpressionError(f"{str(node)!r} has no form in C")


def _number(node: Number, *, wide: bool) -> str:
    if node.value >= _U64:
        raise ExpressionError(f"{node} is wider than 64 bits: it has no form in C")
    # C knows neither _ nor 0o in numbers; decimal stays decimal, everything else is hexadecimal.
    spelling = str(node.value) if node.value < 10 or node.spelling.isdecimal() else hex(node.value)
    return spelling + ("ull" if wide or node.value > 0x7FFFFFFF else "")


def _unary(node: Unary, translate: Translate) -> tuple[str, str]:
    text, inner = _part(node.operand, translate, wide=node.operator != "not")
    # -(-x) must not become a decrement.
    if inner and (inner not in _PREFIXES or inner == "u-"):
        text = f"({text})"
    symbol = "!" if node.operator == "not" else node.operator
    return symbol + text, "u" + symbol


def _binary(node: Binary, translate: Translate) -> tuple[str, str]:
    operator = _C_OPERATORS.get(node.operator, node.operator)
    if operator == "in":
        return _member(node, translate)
    if operator in ("<<", ">>") and isinstance(node.right, Number) and node.right.value > 63:
        raise ExpressionError(f"a shift by {node.right.value} has no form in C")
    wide = operator in _ARITHMETIC
    left = _side(node.left, operator, translate, wide=wide, chain=True)
    right = _side(node.right, operator, translate, wide=wide and operator not in ("<<", ">>"), chain=False)
    return f"{left} {operator} {right}", operator


def _side(node: Node, operator: str, translate: Translate, *, wide: bool, chain: bool) -> str:
    text, inner = _part(node, translate, wide=wide)
    if not inner or inner in _PREFIXES:
        return text
    if chain and inner == operator and operator in _CHAINS:
        return text
    if operator in ("&&", "||") and inner in _COMPARISONS:
        return text
    return f"({text})"


def _member(node: Binary, translate: Translate) -> tuple[str, str]:
    if not isinstance(node.right, Tuple):
        raise ExpressionError(f"{str(node)!r} has no form in C")
    equals = [_part(Binary("==", node.left, item), translate)[0] for item in node.right.items]
    return (" || ".join(equals), "||") if len(equals) > 1 else (equals[0], "==")
