"""From a finished run to expectations met or not, and why: the actual values of everything they name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

from kvmscope.debug.run_scope import is_known, known_names
from kvmscope.errors import ExpressionError
from kvmscope.expr import Expression, Scope, Value, calls, evaluate, names, nearest, truth
from kvmscope.expr.ast import quote
from kvmscope.reproducer.document import Expectation
from kvmscope.reproducer.verdict import ExpectationResult

__all__ = ["actual_values", "judge", "show", "unknown_names"]

_SHOWN_TEXT: Final = 200
_COUNTS: Final = ("count", "exceptions", "ticks")


def judge(expectations: Iterable[Expectation], scope: Scope) -> tuple[ExpectationResult, ...]:
    """Evaluate each expectation; one that cannot be evaluated is not met."""
    return tuple(_judge(expectation, scope) for expectation in expectations)


def _judge(expectation: Expectation, scope: Scope) -> ExpectationResult:
    text, line = expectation.text, expectation.line
    try:
        value = evaluate(expectation.expression, scope)
        met = truth(value)
    except ExpressionError as error:
        return ExpectationResult(text, line, False, None, str(error))
    shown = value if not isinstance(value, bytes) else value.hex()
    return ExpectationResult(text, line, met, shown, "" if met else actual_values(expectation.expression, scope))


def unknown_names(expectation: Expectation, labels: Collection[str]) -> str:
    """A message about the first name that nothing will answer to; empty when all are known.

    Evaluation stops at the first operand that decides, so an unknown name behind it would go unnoticed.
    """
    for name in names(expectation.expression):
        if not is_known(name, labels):
            close = nearest(name, sorted(known_names(labels)))
            return f"unknown name {name!r}" + (f": did you mean {close!r}?" if close else "")
    return ""


def actual_values(expression: Expression, scope: Scope) -> str:
    """``rax is 0x7, label is 0x400010``: names and calls in the order of the expression."""
    parts = []
    for name in names(expression):
        # Whatever cannot be read has already been said by the evaluation, or took no part in it.
        with suppress(ExpressionError):
            value = scope.lookup(name)
            parts += [] if value is None else [f"{name} is {show(name, value)}"]
    for call in calls(expression):
        with suppress(ExpressionError):
            parts.append(f"{call} is {show(call.function, evaluate(Expression(call), scope))}")
    return ", ".join(parts)


def show(name: str, value: Value) -> str:
    """A value as a person compares it: hexadecimal, texts quoted and their end kept when they are long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if name in _COUNTS or -10 < value < 10:
            return str(value)
        return hex(value)
    if isinstance(value, bytes):
        return value[:_SHOWN_TEXT].hex(" ")
    if len(value) > _SHOWN_TEXT:
        return f"...{quote(value[-_SHOWN_TEXT:])} ({len(value)} characters)"
    return quote(value)
