"""Precedence parser of the expression language.

Loosest to tightest: ``or ||``, ``and &&``, ``not``, ``== != < <= > >= in``, ``|``, ``^``, ``&``, ``<< >>``, ``+ -``, ``* / %``,
``- ~ !`` as prefixes.  ``!`` binds as in C, ``not`` as in Python; ``!a == b`` is ``(not a) == b``.
"""

from __future__ import annotations

from typing import Final

from kvmscope.expr.ast import (
    NOT_LEVEL,
    PRECEDENCE,
    UNARY_LEVEL,
    Binary,
    Call,
    Expression,
    Name,
    Node,
    Number,
    Text,
    Tuple,
    Unary,
)
from kvmscope.expr.errors import error_at
from kvmscope.expr.functions import FUNCTIONS
from kvmscope.expr.nearest import nearest
from kvmscope.expr.tokens import Token, tokenize

__all__ = ["MAX_NESTING", "MAX_NODES", "parse"]

MAX_NESTING: Final = 32
"""Deepest nesting of parentheses, calls and prefixes."""
MAX_NODES: Final = 256
"""Most nodes; bounds the depth of a long chain, and with it every recursion over the tree."""

_COMPARISON: Final = PRECEDENCE["=="]


def parse(text: str) -> Expression:
    """The expression ``text`` stands for.

    Raises ExpressionError with a caret under the place.
    """
    return Expression(_Parser(text).whole(), text)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.at = 0
        self.depth = 0
        self.nodes = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def counted(self, node: Node) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise error_at(f"the expression has more than {MAX_NODES} parts", self.text, node.column, node.width)
        return node

    def whole(self) -> Node:
        if self.token.kind == "end":
            raise error_at("the expression is empty", self.text, 0)
        node = self.binary(0)
        if self.token.kind != "end":
            hint = ""
            if self.token.kind in ("name", "number", "text"):
                hint = "an operator is missing before it"
            raise self.unexpected(hint)
        return node

    def unexpected(self, hint: str = "") -> Exception:
        token = self.token
        if token.kind == "end":
            return error_at("the expression ends too early", self.text, token.column, 1, hint)
        return error_at(f"unexpected {token.spelling!r}", self.text, token.column, len(token.spelling), hint)

    def binary(self, least: int, begun: Node | None = None) -> Node:
        """Operators that bind at least as strongly as ``least``; ``begun`` is a left side already read."""
        left = begun or self.negation(least)
        compared = False
        while True:
            token = self.token
            operator, negated = token.kind, False
            if operator == "not" and self.tokens[self.at + 1].kind == "in":
                operator, negated = "in", True
            level = PRECEDENCE.get(operator)
            if level is None or level < least:
                return left
            if level == _COMPARISON and compared:
                raise error_at(
                    "comparisons do not chain", self.text, token.column, len(token.spelling), "write a < b and b < c"
                )
            self.at += 2 if negated else 1
            right = self.choices() if operator == "in" else self.binary(level + 1)
            compared = level == _COMPARISON
            left = self.counted(Binary(operator, left, right, token.column, len(token.spelling)))
            if negated:
                left = self.counted(Unary("not", left, token.column, len(token.spelling)))

    def negation(self, least: int) -> Node:
        token = self.token
        if token.kind == "not":
            if least > NOT_LEVEL:
                raise self.unexpected("put the negation in parentheses: (not ...)")
            self.take()
            operand = self.nested(token, NOT_LEVEL)
            return self.counted(Unary("not", operand, token.column, len(token.spelling)))
        return self.prefix()

    def nested(self, token: Token, least: int) -> Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise error_at(f"nested more than {MAX_NESTING} deep", self.text, token.column, len(token.spelling))
        node = self.prefix() if least >= UNARY_LEVEL else self.binary(least)
        self.depth -= 1
        return node

    def prefix(self) -> Node:
        token = self.token
        if token.kind in ("-", "~", "!"):
            self.take()
            operand = self.nested(token, UNARY_LEVEL)
            operator = "not" if token.kind == "!" else token.kind
            return self.counted(Unary(operator, operand, token.column, 1))
        return self.primary()

    def primary(self) -> Node:
        token = self.token
        width = len(token.spelling)
        if token.kind == "number":
            self.take()
            return self.counted(Number(int(token.value), token.spelling, token.column, width))
        if token.kind == "text":
            self.take()
            return self.counted(Text(str(token.value), token.column, width))
        if token.kind == "name":
            self.take()
            if self.token.kind == "(":
                return self.call(token)
            return self.counted(Name(str(token.value), token.column, width))
        if token.kind == "(":
            self.take()
            node = self.nested(token, 0)
            if self.token.kind == ",":
                raise self.unexpected("several values stand only after 'in'")
            self.expect_close(token)
            return node
        raise self.unexpected("a value is missing before it" if self.at else "")

    def expect_close(self, opened: Token) -> None:
        if self.token.kind != ")":
            if self.token.kind == "end":
                raise error_at("the parenthesis is not closed", self.text, opened.column)
            raise self.unexpected("')' is missing before it")
        self.take()

    def call(self, token: Token) -> Node:
        opened = self.take()
        name = token.spelling
        if name not in FUNCTIONS:
            close = nearest(name, FUNCTIONS)
            hint = f"did you mean {close!r}?" if close else f"known: {' '.join(FUNCTIONS)}"
            raise error_at(f"unknown function {name!r}", self.text, token.column, len(name), hint)
        arguments: list[Node] = []
        if self.token.kind != ")":
            arguments = self.listed(opened)
        self.expect_close(opened)
        if len(arguments) != 1:
            hint = f"{name}(x): {FUNCTIONS[name].meaning}"
            title = f"{name} takes one argument, not {len(arguments)}"
            raise error_at(title, self.text, token.column, len(name), hint)
        return self.counted(Call(name, tuple(arguments), token.column, len(name)))

    def listed(self, opened: Token) -> list[Node]:
        items = [self.nested(opened, 0)]
        while self.token.kind == ",":
            self.take()
            if self.token.kind == ")":
                break
            items.append(self.nested(opened, 0))
        return items

    def choices(self) -> Node:
        """The right side of ``in``: a text, or several values in parentheses."""
        opened = self.token
        if opened.kind != "(":
            return self.binary(_COMPARISON + 1)
        self.take()
        items = self.listed(opened)
        several = len(items) > 1 or self.tokens[self.at - 1].kind == ","
        self.expect_close(opened)
        if several:
            return self.counted(Tuple(tuple(items), opened.column, 1))
        # One value in parentheses is an operand like any other: `'x' in (serial)`.
        return self.binary(_COMPARISON + 1, items[0])
